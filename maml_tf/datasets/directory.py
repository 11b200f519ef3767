"""A user's own folder of class folders as few-shot tasks.

    photos/cat/*.jpg, photos/dog/*.jpg, ...
        the classes are split by their names, or as a --split_file says
    photos/train/cat/*.jpg, photos/val/..., photos/test/...
        the folders are the split

image_files.py says what counts as a class and as an image, and how one is read.
"""

import collections
import contextlib
import csv
import hashlib
import itertools
import json
import math
import os
import pathlib
import shlex

import numpy as np

from maml_tf.datasets.raw import memory_map
from maml_tf.datasets.raw.image_files import (
    composed,
    each,
    list_folder,
    name_in,
    read_image,
    shown,
    visible_folders,
)
from maml_tf.errors import UserError
from maml_tf.terminal import progress

SPLITS = ('train', 'val', 'test')
LOOK_LIKE_SPLITS = {*SPLITS, 'training', 'valid', 'validation', 'dev', 'testing'}
FEWEST_CLASSES = 6  # two to tell apart in each split
ADAPT = 'python -m maml_tf.adapt'


def directory(data_dir, side=84, split_file=None, channels=3, way=2, least=2):
    """The classes of a folder as ImageClasses. Here files are only listed; a split is read when it
    is first needed.

    What cannot be used is left out, and a line says so: class folders without images, classes with
    fewer than `least`, files that are not whole images. More than a gigabyte of pixels is written
    once to files, in `.maml_tf` in the folder or, where that may not be written, in the user's
    cache directory.

    Args:
      data_dir: the folder.
      side, channels: of the images; see image_files.read_image.
      split_file: a csv file that says which split each class is in, see read_split_file; None: see
        split_by_name.
      way: classes that a task takes; a number, or {split: number}.
      least: images that a class needs, support and query together; a number, or {split: number}.
    Raises:
      UserError: there is no such folder, the split file is wrong, or a split has too few classes
        for a task.
    """
    from maml_tf.episodes.images import (
        ImageClasses,
    )  # Imports TensorFlow, which inspect_folder does without.

    if not data_dir:
        raise UserError('--data_dir: name the folder that holds a folder of images for each class')
    folder = pathlib.Path(data_dir).expanduser()
    way, least = (
        {split: n[split] if isinstance(n, dict) else n for split in SPLITS} for n in (way, least)
    )
    listings = list_splits(folder)
    parts = split_classes(folder, listings, split_file)
    for line in (*left_out(folder, listings), *too_small(parts, least)):
        print(f'{shown(folder)}: left out {line}')
    large = large_enough(parts, least)
    check_enough(folder, large, way, least)
    shape = (side, side, channels)
    whole = sum(len(paths) for classes in large.values() for paths in classes.values())

    def load(split):
        root = folder if '' in listings else folder / split
        return _load(
            folder, split, way[split], _Reading(root, large[split], shape, least[split]), whole
        )

    # Of runs on folders with other classes, or on the same classes split otherwise, none is to
    # resume another.
    return ImageClasses(
        load, shape, identity=_digest({split: sorted(classes) for split, classes in large.items()})
    )


def list_splits(folder):
    """{'train', 'val', 'test': Listing} of a folder that is split into these folders, else {'':
    Listing}."""
    names = {composed(path.name) for path in visible_folders(folder)}
    if names.issuperset(SPLITS):
        listings = {split: list_folder(folder / split) for split in SPLITS}
        _check_apart(folder, listings)
        return listings
    if names and {name.lower() for name in names} <= LOOK_LIKE_SPLITS:
        raise UserError(
            f'{shown(folder)}: {" and ".join(sorted(names))} look like a split, which needs the '
            'folders '
            'train, val and test, with a folder per class in each; or name one of them instead, '
            'and its '
            'classes are split'
        )
    return {'': list_folder(folder)}


def _check_apart(folder, listings):
    splits = collections.defaultdict(list)
    for split, listing in listings.items():
        for name in listing.classes:
            splits[name].append(split)
    if twice := {name: of for name, of in splits.items() if len(of) > 1}:
        name, of = next(iter(twice.items()))
        raise UserError(
            f'{shown(folder)}: {counted(len(twice), "class")} in more than one split, such as '
            f'{shown(name)} in {" and ".join(of)}; few-shot learners are tested on classes they '
            'never saw. '
            f'Keep each class in one, or name {shown(folder / "train")} instead, and its classes '
            'are split'
        )


def split_classes(folder, listings, split_file=None):
    """{'train', 'val', 'test': {class: [paths]}} of `list_splits`' listings, without the classes
    that are empty.

    Raises: UserError, where there are too few classes to split them, or the split file is wrong.
    """
    present = {
        part: {name: paths for name, paths in listing.classes.items() if paths}
        for part, listing in listings.items()
    }
    if '' not in present:
        if split_file:
            raise UserError(
                f'--split_file: {shown(folder)} is split already, into the folders train, val and '
                'test'
            )
        return present
    classes = present['']
    if split_file:
        of_class = read_split_file(split_file, listings[''].classes)
    elif len(classes) < FEWEST_CLASSES:
        raise UserError(_too_few(folder, classes))
    else:
        of_class = split_by_name(classes)
    return {
        split: {name: paths for name, paths in classes.items() if of_class[name] == split}
        for split in SPLITS
    }


def split_by_name(names):
    """{class: split}: 64 / 16 / 20 % of the classes, but each split at least 5, or a third where
    there are under 15.

    The classes are put in the order of the SHA-256 of their names, and cut. So the split is the
    same on every machine, hangs neither on way nor shots (a learner may be tested on tasks of
    another size than it was trained on, and still sees new classes), and a class more or less moves
    hardly any other.
    """
    order = sorted(
        names, key=lambda name: hashlib.sha256(name.encode('utf-8', 'surrogatepass')).digest()
    )
    splits = [split for split, size in reversed(sizes(len(order)).items()) for _ in range(size)]
    return dict(zip(order, splits))


def sizes(count):
    """{split: how many of `count` classes split_by_name gives it}."""
    fewest = min(5, count // 3)
    val, test = (max(fewest, round(share * count)) for share in (0.16, 0.2))
    return {'train': count - val - test, 'val': val, 'test': test}


def read_split_file(path, names):
    """{class: split} of a csv file in UTF-8 that names each of the classes `names` once, for
    example

        class,split
        cat,train
        dog,test

    The splits are train, val and test. Semicolons do too: spreadsheets write them in many
    countries.

    Raises: UserError, which names the line.
    """
    flag = f'--split_file={shown(path)}'
    try:
        text = pathlib.Path(path).expanduser().read_text('utf-8-sig')
    except OSError as error:
        raise UserError(f'{flag}: {error.strerror}') from error
    except UnicodeDecodeError as error:
        raise UserError(f'{flag}: not in UTF-8; a spreadsheet offers it as "CSV UTF-8"') from error
    header, *lines = text.splitlines() or ['']
    delimiter = ';' if ';' in header else ','
    if [cell.strip() for cell in header.split(delimiter)] != ['class', 'split']:
        raise UserError(f'{flag}: the first line is {header!r}; it should be class,split')
    of_class = {}
    for number, row in enumerate(csv.reader(lines, delimiter=delimiter), start=2):
        cells, line = [composed(cell.strip()) for cell in row], f'{flag}: line {number}'
        if not any(cells):
            continue
        if len(cells) != 2:
            raise UserError(f'{line} has {len(cells)} columns instead of class,split')
        name, split = cells
        if name not in names:
            raise UserError(f'{line}: there is no class folder {shown(name)}')
        if name in of_class:
            raise UserError(f'{line}: class {shown(name)} is there twice')
        if split not in SPLITS:
            raise UserError(f'{line}: {split!r} is no split, only train, val and test')
        of_class[name] = split
    if missing := [name for name in names if name not in of_class]:
        raise UserError(
            f'{flag}: class {shown(missing[0])} is missing, {len(missing)} of {len(names)} are'
        )
    return of_class


def large_enough(parts, least):
    """{split: {class: [paths]}} without the classes of fewer than least[split] images."""
    return {
        split: {name: paths for name, paths in classes.items() if len(paths) >= least[split]}
        for split, classes in parts.items()
    }


def check_enough(folder, parts, way, least):
    """Raises UserError where a split has fewer classes than way[split]."""
    for split, classes in parts.items():
        if len(classes) < way[split]:
            counts = ', '.join(f'{split} {len(classes)}' for split, classes in parts.items())
            needed = next(
                n
                for n in itertools.count()
                if all(size >= way[split] for split, size in sizes(n).items())
            )
            raise UserError(
                f'--num_classes={way[split]}: the {split} split of {shown(folder)} has '
                f'{counted(len(classes), "class")} with {least[split]} images or more ({counts}). '
                'Add classes (by '
                f'default it takes {needed} such in all), ask for fewer or for fewer images '
                '(--update_batch_size, --train_query, --test_query), or choose with '
                f'--split_file; {ADAPT} adapts a '
                'trained learner to a few folders'
            )


def _too_few(folder, classes):
    nested = next(
        (name for name, paths in classes.items() if paths[0].parent.parent != folder), None
    )
    hint = (
        f' (do you mean {shown(folder / nested)}, which has folders of its own?)' if nested else ''
    )
    return (
        f'{shown(folder)}: {counted(len(classes), "class")} with images{hint}; to train, validate '
        'and test on '
        f'different ones takes {FEWEST_CLASSES}, and 15 for 5-way tasks. To adapt a trained '
        'learner to them: '
        f'{ADAPT} --init_from=RUN_DIRECTORY --support={shown(shlex.quote(str(folder)))}'
    )


def left_out(folder, listings):
    """Yields what belongs to no class, or holds no image, as 'what: names'."""
    if '' not in listings and (
        others := [path.name for path in visible_folders(folder) if path.name not in SPLITS]
    ):
        yield f'{counted(len(others), "folder")} beside train, val and test: {named(others)}'
    if loose := [path.name for listing in listings.values() for path in listing.loose]:
        yield f'{counted(len(loose), "image")} in no class folder: {named(loose)}'
    if empty := [
        name
        for listing in listings.values()
        for name, paths in listing.classes.items()
        if not paths
    ]:
        yield f'{counted(len(empty), "class")} without images: {named(empty)}'


def too_small(parts, least):
    """Yields, in one line, the classes that large_enough leaves out."""
    if small := [
        f'{name} ({len(paths)} of {least[split]})'
        for split, classes in parts.items()
        for name, paths in classes.items()
        if len(paths) < least[split]
    ]:
        yield f'{counted(len(small), "class")} with fewer images than a task takes of each: '
        f'{named(small)}'


def counted(number, noun):
    """'1 class', '2 classes', '1 image', '2 images'."""
    plural = 'es' if noun.endswith('s') else 's'
    return f'{number:,} {noun}{plural if number != 1 else ""}'


def named(names, most=10, joint=', '):
    """The first names, and how many more there are."""
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return joint.join(shown(name) for name in names[:most]) + more


def _load(folder, split, way, reading, whole):
    """The ClassImages of a split; whole: images of all splits, which are held alike."""
    from maml_tf.episodes.images import ClassImages

    if whole * math.prod(reading.shape) <= memory_map.IN_MEMORY:
        images = np.empty([reading.count, *reading.shape], np.uint8)
        with progress.bar(
            None, f'reading {split}', total=reading.count, unit=' images', delay=1, leave=False
        ) as bar:
            for number, image in enumerate(reading.images(bar.update)):
                images[number] = image
    else:
        images = _mapped(folder, split, reading)
    if reading.unreadable:
        print(
            f'{split}: left out {counted(len(reading.unreadable), "file")}; {reading.unreadable[0]}'
        )
    if lost := [name for name in reading.classes if name not in reading.kept]:
        print(
            f'{split}: left out {counted(len(lost), "class")} with too few images without them: '
            f'{named(lost)}'
        )
    if len(reading.kept) < way:
        raise UserError(
            f'--num_classes={way}: only {len(reading.kept)} classes of the {split} split of '
            f'{shown(folder)} have {reading.least} images that can be read'
        )
    names = list(itertools.chain(*reading.kept.values()))
    return ClassImages(
        images[: len(names)],
        np.array([len(names) for names in reading.kept.values()]),
        list(reading.kept),
        names,
    )


class _Reading:
    """Reads images, and remembers what became of them.

    Args:
      root: the folder of the class folders.
      classes: {class: [paths]}.
      shape: (side, side, channels).
      least: images that a class needs.
    Attributes, filled by images():
      kept: {class: [image names]} in the order of the images.
      unreadable: [one message for each file that is not a whole image].
    """

    def __init__(self, root, classes, shape, least):
        self.root, self.classes, self.shape, self.least = root, classes, shape, least
        self.count = sum(map(len, classes.values()))
        self.kept, self.unreadable = {}, []

    def images(self, read=lambda files: None):
        """Yields uint8 [side, side, channels], class after class; read(1) is called for each
        file."""
        results = each(self._read, list(itertools.chain(*self.classes.values())))
        for name, paths in self.classes.items():
            names, images = [], []
            for path, result in zip(paths, results):
                read(1)
                if isinstance(result, UserError):
                    self.unreadable.append(str(result))
                else:
                    names.append(name_in(path, self.root).split('/', 1)[1])
                    images.append(result)
            if len(images) >= self.least:
                self.kept[name] = names
                yield from images

    def _read(self, path):
        try:
            return read_image(path, self.shape[0], self.shape[2])
        except UserError as error:
            return error


def _mapped(folder, split, reading):
    """The images of a _Reading left in a file, which is read only where it is not there yet.

    Its name holds what it was made of: the classes and sizes in the first part, the files in the
    second, so that a file that is out of date is known and removed. What became of the images
    stands beside it.
    """
    from maml_tf.saving.run_directory import write_atomically

    height, width, channels = reading.shape
    made_of = (
        f'{split}-{height}x{width}x{channels}-{_digest([reading.least, list(reading.classes)])}'
    )
    files = [
        (name_in(path, reading.root), *_state(path))
        for paths in reading.classes.values()
        for path in paths
    ]
    path = _cached(folder, f'{made_of}-{_digest(files)}.npy')
    record = path.with_suffix('.json')

    def images():
        number = -1
        for number, image in enumerate(reading.images()):
            yield number, image
        for unused in range(number + 1, reading.count):  # the places of what was left out
            yield unused, np.zeros(reading.shape, np.uint8)
        write_atomically(
            record, json.dumps({'kept': reading.kept, 'unreadable': reading.unreadable})
        )

    if not record.exists():
        path.unlink(missing_ok=True)
    is_new = not path.exists()
    mapped = memory_map.memory_mapped(path, reading.count, reading.shape, images())
    reading.kept, reading.unreadable = json.loads(record.read_text('utf-8')).values()
    if is_new:
        for old in path.parent.glob(f'{made_of}-*'):
            if old.stem != path.stem and old.suffix in (
                '.npy',
                '.json',
            ):  # not what another process is writing
                old.unlink(missing_ok=True)
    return mapped


def _digest(content):
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _state(path):
    """What changes when a file does; a link that leads nowhere has none."""
    try:
        state = path.stat()
    except OSError:
        return ()
    return state.st_size, state.st_mtime_ns


def _cached(folder, name):
    """The path of the cached file `name`: in the folder itself, else in the user's cache
    directory."""
    own = folder / '.maml_tf'
    with contextlib.suppress(OSError):
        if (own / name).exists():
            return own / name
        own.mkdir(exist_ok=True)
        if os.access(own, os.W_OK):
            return own / name
    user = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser()
    return (
        user / 'maml_tf' / f'{folder.resolve().name}-{_digest(os.fspath(folder.resolve()))}' / name
    )
