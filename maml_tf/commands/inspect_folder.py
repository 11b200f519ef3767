"""What is in a folder of class folders, and what to do with it: to be run before any training.

    python -m maml_tf.inspect_folder photos

Exits with 0 if a few-shot learner can be trained on the folder, else with 1 and the reason. Reads
every image once and writes nothing.
"""

import argparse
import collections
import hashlib
import itertools
import math
import pathlib
import shlex
import statistics
import sys
from typing import NamedTuple

from PIL import Image

from maml_tf.datasets import directory
from maml_tf.datasets.raw.image_files import (
    TURNS,
    each,
    is_hidden,
    name_in,
    orientation,
    read_image,
    shown,
)
from maml_tf.errors import UserError
from maml_tf.terminal import progress

SIDE = 84
WAY, SHOT, QUERY = 5, 1, 15  # proposed where there are classes and images enough
BINS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, math.inf)
BAR = 40
MODES = {
    '1': 'black and white',
    'L': 'grey',
    'I;16': '16-bit grey',
    'LA': 'grey with transparency',
    'P': 'palette',
    'RGBA': 'RGB with transparency',
}
CONVERTIBLE = {'.heic', '.heif', '.tif', '.tiff', '.avif', '.svg', '.dng', '.cr2', '.nef', '.arw'}


class Seen(NamedTuple):
    """What a file turned out to be. error: why it is no whole image; then nothing else is known."""

    error: str | None
    digest: bytes | None = None
    mode: str | None = None
    size: tuple | None = None
    is_turned: bool = False


def main(arguments=None):
    """Prints the report, returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m maml_tf.inspect_folder',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'folder',
        type=pathlib.Path,
        help='holds a folder of images for each class; or train, val and test, and these hold them',
    )
    folder = parser.parse_args(arguments).folder.expanduser()
    try:
        listings = directory.list_splits(folder)
        seen = look(paths_in(listings))
        # One by one: what is there is also said of a folder that is then refused.
        for line in itertools.chain(
            report(folder, listings, seen), [''], advice(folder, listings, seen)
        ):
            print(line)
    except UserError as error:
        print(f'Cannot be trained on: {error}')
        return 1
    return 0


def paths_in(listings):
    """Every image of every class."""
    return [
        path
        for listing in listings.values()
        for paths in listing.classes.values()
        for path in paths
    ]


def look(paths):
    """{path: Seen}, with a progress bar where it takes long."""
    bar = progress.bar(
        each(look_at, paths), 'looking', total=len(paths), unit=' images', delay=1, leave=False
    )
    return dict(zip(paths, bar))


def look_at(path):
    """The Seen of an image file."""
    try:
        read_image(path, SIDE)
    except UserError as error:
        return Seen(str(error))
    with open(path, 'rb') as file:
        digest = hashlib.file_digest(file, 'blake2b').digest()
        file.seek(0)
        with Image.open(file) as image:
            turned = orientation(image)
            size = image.size[::-1] if turned in (5, 6, 7, 8) else image.size
            return Seen(None, digest, image.mode, size, turned in TURNS)


def report(folder, listings, seen):
    """Yields the lines that say what is there."""
    counts = {
        name: len(paths)
        for listing in listings.values()
        for name, paths in listing.classes.items()
        if paths
    }
    good = [image for image in seen.values() if not image.error]
    yield row('folder', folder)
    yield row('classes', f'{len(counts):,}')
    yield row('images', f'{len(seen):,}')
    if counts:
        yield row(
            'per class',
            f'{min(counts.values()):,} to {max(counts.values()):,}, '
            f'median {statistics.median(counts.values()):,.0f}',
        )
        yield from histogram(counts.values())
        smallest = [f'{name} ({counts[name]})' for name in sorted(counts, key=counts.get)]
        yield row('smallest', directory.named(smallest, 5))
    if good:
        yield row(
            'pixels',
            frequent(f'{width}x{height}' for width, height in (image.size for image in good)),
        )
        yield row('colours', frequent(MODES.get(image.mode, image.mode) for image in good))
        yield row(f'at {SIDE}x{SIDE}', ', '.join(made_of(good)))
    if nested := [
        path
        for part, listing in listings.items()
        for paths in listing.classes.values()
        for path in paths
        if name_in(path, folder / part).count('/') > 1
    ]:
        yield row(
            'nested',
            f'{directory.counted(len(nested), "image")} in folders inside class folders, which '
            'count '
            f'for the class, such as {nested[0]}',
        )
    for line in (*directory.left_out(folder, listings), *skipped(listings)):
        yield row('left out', line)
    bad = [image.error for image in seen.values() if image.error]
    yield from several(
        'unreadable', f'{directory.counted(len(bad), "file")}, which training leaves out', bad
    )
    yield from duplicates(listings, seen)


def histogram(counts):
    """Yields a bar for each number of images, from the smallest class to the largest."""
    bins = [sum(low <= count < high for count in counts) for low, high in itertools.pairwise(BINS)]
    filled = [i for i, classes in enumerate(bins) if classes]
    for i in range(filled[0], filled[-1] + 1):
        low, high = BINS[i : i + 2]
        label = (
            f'{low} or more'
            if high == math.inf
            else f'{low}'
            if high == low + 1
            else f'{low} to {high - 1}'
        )
        yield row(
            '', f'{label:>14}  {"#" * math.ceil(BAR * bins[i] / max(bins)):{BAR}}  {bins[i]:,}'
        )


def made_of(good):
    """Yields what becomes of the images that can be read."""
    bytes_needed = len(good) * SIDE * SIDE * 3
    yield (
        f'{bytes_needed / 1e9:.1f} GB'
        if bytes_needed > 1e9
        else f'{math.ceil(bytes_needed / 1e6):,} MB'
    )
    if turned := sum(image.is_turned for image in good):
        yield f'{directory.counted(turned, "photo")} turned upright as the camera noted'
    if enlarged := sum(min(image.size) < SIDE for image in good):
        yield f'{directory.counted(enlarged, "smaller image")} enlarged'
    if cut := sum(image.size[0] != image.size[1] for image in good):
        yield f'the square in the centre of {cut:,} that are not square'


def skipped(listings):
    """Yields what is neither an image nor a class, by ending."""
    endings = collections.Counter(
        'hidden' if is_hidden(path) else path.suffix.lower() or 'without ending'
        for listing in listings.values()
        for path in listing.skipped
    )
    if endings:
        convert = (
            ' (.heic, .tif and the like can be converted to JPEG or PNG)'
            if CONVERTIBLE & set(endings)
            else ''
        )
        yield f'{directory.counted(endings.total(), "other file")}: '
        f'{frequent(endings.elements(), 8)}{convert}'


def duplicates(listings, seen):
    """Yields where files are the same, byte for byte."""
    copies = collections.defaultdict(list)
    for part, listing in listings.items():
        for name, paths in listing.classes.items():
            for path in paths:
                if not seen[path].error:
                    copies[seen[path].digest].append((part, name, path))
    across, within = [], []
    for group in copies.values():
        if len(group) > 1:
            classes = {(part, name) for part, name, _ in group}
            (across if len(classes) > 1 else within).append(
                directory.named([path for *_, path in group], most=4, joint=' = ')
            )
    yield from several(
        'duplicates',
        f'{directory.counted(len(across), "image")} in more than one class: one picture with two '
        'labels, '
        'and classes to be tested on that were seen in training. Remove them',
        across,
    )
    yield from several(
        'duplicates',
        f'{directory.counted(len(within), "image")} more than once in a class: a task can query '
        'what it '
        'was shown. Remove the copies',
        within,
    )


def advice(folder, listings, seen):
    """Yields how the classes are split and the command that trains on them.

    Raises UserError where they are too few.
    """
    parts = {
        split: {
            name: [path for path in paths if not seen[path].error]
            for name, paths in classes.items()
        }
        for split, classes in directory.split_classes(folder, listings).items()
    }
    least = dict.fromkeys(directory.SPLITS, SHOT + 1)
    large = directory.large_enough(parts, least)
    way = max(2, min(WAY, *map(len, large.values())))
    directory.check_enough(folder, large, dict.fromkeys(directory.SPLITS, way), least)
    query = train_query(large['train'], way)
    origin = (
        'by their names; --split_file chooses otherwise' if '' in listings else 'as the folders are'
    )
    yield row(
        'split',
        f'{", ".join(f"{split} {len(classes)}" for split, classes in parts.items())} classes, '
        f'{origin}',
    )
    for split, classes in parts.items():
        yield row(f'  {split}', directory.named(list(classes)))
    for line in directory.too_small(parts, {**least, 'train': SHOT + query}):
        yield row('left out', line)
    if way < WAY:
        yield row('tasks', f'{way}-way; for {WAY}-way tasks each split needs {WAY} classes')
    if len(large['train']) < 2 * way:
        yield row(
            'note',
            f'{len(large["train"])} classes to train on are few: learning to learn wants many. '
            f'{directory.ADAPT} adapts a learner that was trained on others',
        )
    yield ''
    yield f'To train, {way}-way {SHOT}-shot:'
    yield ''
    yield (
        f'    run_maml.py --datasource=directory --data_dir={shown(shlex.quote(str(folder)))} '
        f'--num_classes={way} '
        f'--update_batch_size={SHOT} --train_query={query}'
    )


def train_query(classes, way):
    """Queries per class for which three quarters of the classes, and at least `way`, have
    images."""
    counts = sorted(map(len, classes.values()), reverse=True)
    kept = max(way, math.ceil(0.75 * len(counts)))
    return min(QUERY, counts[kept - 1] - SHOT)


def row(label, text):
    return f'{label:<12}{shown(text)}'.rstrip()


def several(label, heading, items, most=5):
    """Yields a row, if there are items, and the first of them below it."""
    if items:
        yield row(label, heading)
        yield from (row('', f'  {item}') for item in items[:most])
        if len(items) > most:
            yield row('', f'  and {len(items) - most:,} more')


def frequent(values, most=4):
    """'a (7), b (2) and 3 others', the most frequent first."""
    counts = collections.Counter(values)
    text = ', '.join(f'{value} ({count:,})' for value, count in counts.most_common(most))
    return f'{text} and {len(counts) - most} others' if len(counts) > most else text


if __name__ == '__main__':
    sys.stdout.reconfigure(errors='backslashreplace')  # Names of files can be in any script.
    sys.exit(main())
