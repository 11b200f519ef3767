"""Which classes of a folder are trained, validated and tested on.

Imports no TensorFlow, so that a command that only looks at files starts at once.
"""

import csv
import hashlib
import itertools
import pathlib
from collections.abc import Collection, Iterable, Iterator, Mapping

from maml_tf.datasets.raw.listing import SPLITS, Listing, composed
from maml_tf.errors import ArgumentError, UserError
from maml_tf.serialisation.files import check_is_file
from maml_tf.terminal.text import counted, listed, shortened, shown

FEWEST_CLASSES = 6  # two to tell apart in each split
SHARES = {'val': 0.16, 'test': 0.2}  # of the classes; the rest is trained on
LEAST_OF_A_SPLIT = 5  # classes, where there are enough for all three
ADAPT = 'python -m maml_tf.adapt'

Classes = dict[str, list[pathlib.Path]]  # {class name: [paths of its images]}


def split_classes(
    folder: pathlib.Path,
    listings: Mapping[str, Listing],
    split_file: str | pathlib.Path | None = None,
) -> dict[str, Classes]:
    """Returns {'train', 'val', 'test': {class: [paths]}}, without the classes that are empty.

    Args:
      listings: what `list_splits` found in the folder.
      split_file: see read_split_file; None: as the folders are, or else see split_by_name.
    Raises:
      UserError: there are too few classes to split them.
      ArgumentError: the split file is wrong, or the folder is split already.
    """
    present = {
        part: {name: paths for name, paths in listing.classes.items() if paths}
        for part, listing in listings.items()
    }
    if '' not in present:
        if split_file:
            raise ArgumentError(
                'split_file',
                shown(split_file),
                f'{shown(folder)} is split already, into the folders train, val and test',
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


def split_by_name(
    names: Iterable[str], shares: Mapping[str, float] = SHARES, least: int = LEAST_OF_A_SPLIT
) -> dict[str, str]:
    """Returns {class: split}, 64 / 16 / 20 % of the classes for training, validation and test.

    Each split gets at least 5 classes, or a third where there are under 15. `shares` and `least`
    say otherwise (of regions, say).

    The classes are put in the order of the SHA-256 of their names, and cut. So the split is the
    same on every machine, depends neither on way nor shots (a learner may be tested on tasks of
    another size than it was trained on, and still sees new classes), and a class more or less moves
    hardly any other.
    """
    order = sorted(
        names, key=lambda name: hashlib.sha256(name.encode('utf-8', 'surrogatepass')).digest()
    )
    counts = sizes(len(order), shares, least)
    splits = [split for split, size in reversed(counts.items()) for _ in range(size)]
    return dict(zip(order, splits))


def sizes(
    count: int, shares: Mapping[str, float] = SHARES, least: int = LEAST_OF_A_SPLIT
) -> dict[str, int]:
    """Returns {split: how many of `count` classes split_by_name gives it}."""
    fewest = min(least, count // 3)
    others = {split: max(fewest, round(share * count)) for split, share in shares.items()}
    return {'train': count - sum(others.values()), **others}


def read_split_file(
    path: str | pathlib.Path, names: Collection[str], what: str = 'class'
) -> dict[str, str]:
    """Reads {class: split} from a csv file in UTF-8 that names each of the classes `names` once.

    For example

        class,split
        cat,train
        dog,test

    The splits are train, val and test. Semicolons do too: spreadsheets write them in many
    countries.

    what: the first column's title, and what messages call the names.

    Raises: ArgumentError, of `split_file`, that names the line.
    """
    wrong = lambda reason: ArgumentError('split_file', shown(path), reason)
    try:
        path = pathlib.Path(path).expanduser()
        check_is_file(path)
        text = path.read_text('utf-8-sig')
    except OSError as error:
        raise wrong(error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise wrong('not in UTF-8; a spreadsheet offers it as "CSV UTF-8"') from error
    header, *lines = text.splitlines() or ['']
    delimiter = ';' if ';' in header else ','
    if [cell.strip() for cell in header.split(delimiter)] != [what, 'split']:
        raise wrong(f'the first line is {shortened(repr(header))}; it should be {what},split')
    of_class, rows = {}, csv.reader(lines, delimiter=delimiter)
    for number in itertools.count(2):
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise wrong(f'line {number} is none of a csv file ({error})') from None
        if row is None:
            break
        cells = [composed(cell.strip()) for cell in row]
        if not any(cells):
            continue
        if len(cells) != 2:
            raise wrong(f'line {number} has {len(cells)} columns instead of {what},split')
        name, split = cells
        if name not in names:
            folder = 'class folder' if what == 'class' else what
            raise wrong(f'line {number}: there is no {folder} {shortened(name)}')
        if name in of_class:
            raise wrong(f'line {number}: {what} {shown(name)} is there twice')
        if split not in SPLITS:
            raise wrong(
                f'line {number}: {shortened(repr(split))} is no split, only train, val and test'
            )
        of_class[name] = split
    if missing := [name for name in names if name not in of_class]:
        raise wrong(f'{what} {shown(missing[0])} is missing, {len(missing)} of {len(names)} are')
    return of_class


def large_enough(parts: Mapping[str, Classes], least: Mapping[str, int]) -> dict[str, Classes]:
    """Returns the {split: {class: [paths]}} of the classes with least[split] images or more."""
    return {
        split: {name: paths for name, paths in classes.items() if len(paths) >= least[split]}
        for split, classes in parts.items()
    }


def too_small(parts: Mapping[str, Classes], least: Mapping[str, int]) -> Iterator[str]:
    """Yields, in one line, the classes that `large_enough` leaves out."""
    if small := [
        f'{name} ({len(paths)} of {least[split]})'
        for split, classes in parts.items()
        for name, paths in classes.items()
        if len(paths) < least[split]
    ]:
        few = f'{counted(len(small), "class")} with fewer images than a task takes of each'
        yield f'{few}: {listed(small)}'


def check_enough(
    folder: pathlib.Path,
    parts: Mapping[str, Classes],
    way: Mapping[str, int],
    least: Mapping[str, int],
) -> None:
    """Raises ArgumentError, of `way`, where a split has fewer than way[split] classes.

    least: {split: images that a class has at least}, for the message.
    """
    for split, classes in parts.items():
        if len(classes) < way[split]:
            counts = ', '.join(f'{split} {len(classes)}' for split, classes in parts.items())
            raise ArgumentError(
                'way',
                way[split],
                f'the {split} split of {shown(folder)} has {counted(len(classes), "class")} with '
                f'{least[split]} images or more ({counts}). Add classes (by default it takes '
                f'{_classes_for(way)} such in all), ask for fewer, or for fewer images of each '
                f'(shots and queries), or choose the split by a split file; {ADAPT} adapts a '
                'trained learner to a few folders',
            )


def _classes_for(way):
    """Counts the classes of which split_by_name makes large enough splits."""
    return next(
        count
        for count in itertools.count()
        if all(size >= way[split] for split, size in sizes(count).items())
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
        f'and test on different ones takes {FEWEST_CLASSES}, and 15 for 5-way tasks. To adapt '
        f'a trained learner to them: {ADAPT}'
    )
