"""Evaluation tasks as a file to read, compare and replay: which classes and images each task has.

The first line describes the tasks; then comes one JSON object a task, {"classes": [...], "turns":
[...], "support": [[image, ...] per class], "query": [[...]]}. An image is `class name/image name`,
where its class has a name. Of a sequence it is {"images": [...], "labels": [...], "turns": [...]},
and of a region with label images {"region": ..., "classes": [...], "support": [[tile, ...] per
class], "query": [[...]]}, which are not read again.
"""

import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.episodes.class_images import ClassImages
from maml_tf.episodes.image_tasks import ImageTasks
from maml_tf.episodes.images import ImageClasses
from maml_tf.episodes.labelled_images import ImageSequences
from maml_tf.episodes.random_bits import KEYS, Stream
from maml_tf.episodes.sampling import Picks
from maml_tf.episodes.segmentation.tasks import RegionTasks
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import ArgumentError
from maml_tf.serialisation.files import check_is_file, write_atomically
from maml_tf.terminal.text import described


def write(
    path: str | pathlib.Path,
    tasks: ImageTasks | ImageSequences | RegionTasks,
    count: int,
    description: Mapping[str, Any],
) -> None:
    """Writes the first `count` tasks below a description, {name: JSON value}."""
    lines = [json.dumps({**description, 'tasks': count}, ensure_ascii=False), *_lines(tasks, count)]
    # Names that are no text are escaped as JSON escapes them.
    lines = [line.encode('utf-8', 'backslashreplace').decode() for line in lines]
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, '\n'.join(lines) + '\n')


def fingerprint(tasks: ImageTasks | ImageSequences | RegionTasks, count: int) -> str:
    """Returns 16 hexadecimal digits that two lists of the same tasks share.

    They do not depend on how the tasks were asked for.
    """
    # Names of files need not be text.
    text = '\n'.join(_lines(tasks, count)).encode('utf-8', 'surrogatepass')
    return hashlib.sha256(text).hexdigest()[:16]


def _lines(tasks: ImageTasks | ImageSequences | RegionTasks, count: int) -> Iterator[str]:
    """Yields each task as JSON."""
    if isinstance(tasks, ImageSequences):
        yield from _of_sequences(tasks, count)
        return
    if isinstance(tasks, RegionTasks):
        yield from (json.dumps(task, ensure_ascii=False) for task in tasks.named(count))
        return
    picks = tasks.pick(0, count)
    classes, images = picks.classes.numpy(), picks.images.numpy()
    turns = None if picks.turns is None else picks.turns.numpy()
    names, shot = _Names(tasks.classes), tasks.spec.shot
    for i in range(count):
        drawn = [
            [names.image(c, number) for number in row] for c, row in zip(classes[i], images[i])
        ]
        yield json.dumps(
            {
                'classes': [names.of_class[c] for c in classes[i]],
                'turns': [] if turns is None else turns[i].tolist(),
                'support': [row[:shot] for row in drawn],
                'query': [row[shot:] for row in drawn],
            },
            ensure_ascii=False,
        )


def _of_sequences(sequences: ImageSequences, count: int) -> Iterator[str]:
    drawn, classes, images = sequences.order(0, count)
    turns = [None] * count if drawn.turns is None else drawn.turns.numpy().tolist()
    names = _Names(sequences.classes)
    for i, labels in enumerate(drawn.labels.numpy().tolist()):
        pairs = zip(classes[i].numpy(), images[i].numpy())
        line = {
            'images': [names.image(c, number) for c, number in pairs],
            'labels': labels,
            'turns': turns[i] or [],
        }
        yield json.dumps(line, ensure_ascii=False)


def read(
    tasks_file: str | pathlib.Path,
    source: ImageClasses,
    split: str,
    spec: EpisodeSpec,
    seed: int = 1,
) -> tuple[ImageTasks, int]:
    """Returns the tasks of a file, and how many there are.

    Beyond the last they begin again, for evaluation draws some tasks more than it counts.

    Args:
      seed: of the tasks' keys; with that of the tasks that were written their keys are the same.
    Raises: ArgumentError, naming the line, where the file is no list of tasks, its tasks are not of
      `spec`'s sizes, or the source has no such class or image.
    """

    def wrong(reason):
        return ArgumentError('tasks_file', tasks_file, reason)

    tasks = source.tasks(split, spec, seed)
    names = _Names(tasks.classes)
    rows = []
    for number, line in enumerate(_lines_of(tasks_file)[1], start=2):
        try:
            classes, turns, images, sizes = names.parsed(line)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f'line {number} is no task of the {split} split ({described(error)})'
            raise wrong(reason) from None
        if (len(classes), sizes, len(turns)) != (spec.way, {(spec.shot, spec.query)}, spec.way):
            raise wrong(
                f'line {number} is not {spec.way}-way with {spec.shot} support and {spec.query} '
                'query images per class'
            )
        rows.append((classes, turns, images))
    classes, turns, images = (np.array(values, np.int32) for values in zip(*rows))
    keys = Stream(seed, split, KEYS).bits(0, len(rows), 2)

    def pick(start, count):
        row = (tf.cast(start, tf.int64) + tf.range(count, dtype=tf.int64)) % len(rows)
        return Picks(
            tf.gather(classes, row),
            tf.gather(turns, row) if turns.any() else None,
            tf.gather(images, row),
            keys=tf.gather(keys, row),
        )

    return tasks.picked_by(pick), len(rows)


class Sizes(NamedTuple):
    """Says what the tasks of a file are like, and how many there are."""

    way: int
    shot: int
    query: int
    count: int


def sizes(tasks_file: str | pathlib.Path) -> Sizes:
    """Returns the sizes of a file's first task, and the number of its tasks; `read` checks the
    others.

    Raises: ArgumentError where the file is no list of tasks, or has fewer than its first line says.
    """
    header, lines = _lines_of(tasks_file)
    try:
        task = json.loads(lines[0])
        way, shot, query = len(task['classes']), len(task['support'][0]), len(task['query'][0])
        promised = int(header['tasks'])
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
        reason = f'line 2 is no task ({described(error)})'
        raise ArgumentError('tasks_file', tasks_file, reason) from None
    if promised != len(lines):
        reason = f'has {len(lines)} tasks, and its first line says {promised}; write it again'
        raise ArgumentError('tasks_file', tasks_file, reason)
    return Sizes(way, shot, query, len(lines))


def _lines_of(tasks_file):
    """Returns (the description in the first line, the lines of the tasks)."""
    try:
        check_is_file(tasks_file)
        # Only at line feeds: JSON leaves other ends of lines in names as they are.
        header, *lines = pathlib.Path(tasks_file).read_text('utf-8').split('\n')
        lines = lines[:-1] if lines and not lines[-1] else lines
        description = json.loads(header)
        description['tasks']
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f'not a list of tasks ({described(error)})'
        raise ArgumentError('tasks_file', tasks_file, reason) from None
    if not lines:
        raise ArgumentError('tasks_file', tasks_file, 'no task in it')
    return description, lines


class _Names:
    """Names of the classes and images of a ClassImages, and back."""

    def __init__(self, classes: ClassImages):
        self._sizes, self._firsts = classes.sizes, classes.firsts
        self.of_class = classes.class_names or [str(c) for c in range(len(classes.sizes))]
        self._number = {name: c for c, name in enumerate(self.of_class)}
        self._of_image = classes.image_names

    def image(self, c, number):
        """Returns the name of an image of class c."""
        name = number if self._of_image is None else self._of_image[self._firsts[c] + number]
        return f'{self.of_class[c]}/{name}'

    def parsed(self, line):
        """Returns (classes, turns, images of each class, {(support, query) images}) of a line."""
        task = json.loads(line)
        classes = [self._number[name] for name in task['classes']]
        pairs = list(zip(task['support'], task['query'], strict=True))
        images = [
            [self._index(c, image) for image in (*support, *query)]
            for c, (support, query) in zip(classes, pairs, strict=True)
        ]
        turns = [(0, 1, 2, 3).index(turn) for turn in task['turns'] or [0] * len(classes)]
        return classes, turns, images, {(len(support), len(query)) for support, query in pairs}

    def _index(self, c, name):
        """Returns the number within class c of the image that is called so."""
        own = name.removeprefix(f'{self.of_class[c]}/')
        if self._of_image is None:
            number = int(own)
        else:
            images = self._of_image[self._firsts[c] : self._firsts[c] + self._sizes[c]]
            number = list(images).index(own)
        if not 0 <= number < self._sizes[c]:
            raise ValueError(f'no image {name}')
        return number
