"""Tasks written down: which classes and which images each evaluation task has, as a file to read,
diff and replay.

The first line describes the tasks; then comes one JSON object a task, {"classes": [...], "turns":
[...], "support": [[image, ...] per class], "query": [[...]]}. An image is `class name/image name`,
where its class has a name.
"""

import hashlib
import json
import pathlib

import numpy as np
import tensorflow as tf

from maml_tf.episodes.image_tasks import ImageTasks
from maml_tf.episodes.random_bits import KEYS, Stream
from maml_tf.episodes.sampling import Picks
from maml_tf.errors import UserError
from maml_tf.saving.files import write_atomically


def write(path, tasks, count, description):
    """Writes the first `count` tasks of `tasks`, an ImageTasks, below `description`, a {name: JSON
    value}."""
    lines = [json.dumps({**description, 'tasks': count}, ensure_ascii=False), *_lines(tasks, count)]
    lines = [
        line.encode('utf-8', 'backslashreplace').decode() for line in lines
    ]  # as JSON escapes them
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, '\n'.join(lines) + '\n')


def fingerprint(tasks, count):
    """16 hexadecimal digits that two lists of the same tasks share, however they were asked for."""
    # Names of files need not be text.
    return hashlib.sha256(
        '\n'.join(_lines(tasks, count)).encode('utf-8', 'surrogatepass')
    ).hexdigest()[:16]


def _lines(tasks, count):
    """Each task as JSON."""
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


def read(path, source, split, spec, seed=1):
    """(the tasks of a manifest as an ImageTasks over `source`, an ImageClasses, their number).

    Beyond the last they begin again, for evaluation draws some tasks more than it counts.

    Args:
      seed: of the tasks' keys; with that of the tasks that were written their keys are the same.

    Raises UserError, naming the line, where the file is no manifest, its tasks are not of `spec`'s
    sizes, or the source has no such class or image.
    """
    tasks = source.tasks(split, spec, 0)
    names = _Names(tasks.classes)
    rows = []
    try:
        header, *lines = pathlib.Path(path).read_text('utf-8').splitlines()
        json.loads(header)['tasks']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'--tasks_file={path}: not a list of tasks as --write_tasks writes it ({error})'
        ) from None
    for number, line in enumerate(lines, start=2):
        try:
            task = json.loads(line)
            classes = [names.number[name] for name in task['classes']]
            images = [
                [names.index(c, image) for image in (*support, *query)]
                for c, support, query in zip(classes, task['support'], task['query'], strict=True)
            ]
            sizes = {
                (len(support), len(query)) for support, query in zip(task['support'], task['query'])
            }
            turns = [(0, 1, 2, 3).index(turn) for turn in task['turns'] or [0] * len(classes)]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f'--tasks_file={path}: line {number} is no task of the {split} split ({error})'
            ) from None
        if (len(classes), sizes, len(turns)) != (spec.way, {(spec.shot, spec.query)}, spec.way):
            raise UserError(
                f'--tasks_file={path}: line {number} is not {spec.way}-way with {spec.shot} '
                'support and '
                f'{spec.query} query images per class, as --num_classes, --update_batch_size and '
                '--test_query say'
            )
        rows.append((classes, turns, images))
    if not rows:
        raise UserError(f'--tasks_file={path}: no task in it')
    classes, turns, images = (np.array(values, np.int32) for values in zip(*rows))
    keys = Stream(seed, split, KEYS).bits(0, len(rows), 2)

    def pick(start, count):
        row = tf.cast(
            (tf.cast(start, tf.int64) + tf.range(count, dtype=tf.int64)) % len(rows), tf.int32
        )
        return Picks(
            tf.gather(classes, row),
            tf.gather(turns, row) if turns.any() else None,
            tf.gather(images, row),
            keys=tf.gather(keys, row),
        )

    return ImageTasks(tasks.classes, pick, spec), len(rows)


class _Names:
    """Names of the classes and images of a ClassImages, and back."""

    def __init__(self, classes):
        self._sizes = classes.sizes
        self._firsts = np.cumsum(classes.sizes) - classes.sizes
        self.of_class = classes.class_names or [str(c) for c in range(len(classes.sizes))]
        self.number = {name: c for c, name in enumerate(self.of_class)}
        self._of_image = classes.image_names

    def image(self, c, number):
        name = number if self._of_image is None else self._of_image[self._firsts[c] + number]
        return f'{self.of_class[c]}/{name}'

    def index(self, c, name):
        """Number within class c of the image that is called so."""
        own = name.removeprefix(f'{self.of_class[c]}/')
        if self._of_image is None:
            number = int(own)
        else:
            images = self._of_image[self._firsts[c] : self._firsts[c] + self._sizes[c]]
            number = list(images).index(own)
        if not 0 <= number < self._sizes[c]:
            raise ValueError(f'no image {name}')
        return number
