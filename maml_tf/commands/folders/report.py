"""The report on a folder of class folders: what is in it, and what is amiss."""

import collections
import itertools
import math
import pathlib
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence

from maml_tf.commands.folders.look import SIDE, Seen
from maml_tf.commands.folders.nested import proposal
from maml_tf.commands.folders.rows import by_ending, frequent, row, several
from maml_tf.datasets.raw.listing import Listing, left_out, name_in
from maml_tf.terminal.text import counted, listed

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

Listings = Mapping[str, Listing]
AllSeen = Mapping[pathlib.Path, Seen]


def report(folder: pathlib.Path, listings: Listings, seen: AllSeen) -> Iterator[str]:
    """Yields the lines that say what is in a folder.

    Args:
      listings: what listing.list_splits found in it.
      seen: every image of every class.
    """
    yield row('folder', folder)
    yield from _sizes(listings, seen)
    if good := [image for image in seen.values() if not image.error]:
        pixels = (f'{width}x{height}' for width, height in (image.size for image in good))
        yield row('pixels', frequent(pixels))
        yield row('colours', frequent(MODES.get(image.mode, image.mode) for image in good))
        yield row(f'at {SIDE}x{SIDE}', ', '.join(_made_of(good)))
    if nested := [
        path
        for part, listing in listings.items()
        for paths in listing.classes.values()
        for path in paths
        if name_in(path, folder / part).count('/') > 1
    ]:
        inside = f'{counted(len(nested), "image")} in folders inside class folders'
        yield row('nested', f'{inside}, which count for the class, such as {nested[0]}')
    yield from proposal(folder, listings)
    for line in (*left_out(folder, listings), *_skipped(listings)):
        yield row('left out', line)
    bad = [image.error for image in seen.values() if image.error]
    yield from several('unreadable', f'{counted(len(bad), "file")}, which training leaves out', bad)
    yield from _duplicates(listings, seen)


def _sizes(listings: Listings, seen: AllSeen) -> Iterator[str]:
    """Yields how many classes and images there are, and how many images a class has."""
    counts = {
        name: len(paths)
        for listing in listings.values()
        for name, paths in listing.classes.items()
        if paths
    }
    yield row('classes', f'{len(counts):,}')
    yield row('images', f'{len(seen):,}')
    if counts:
        least, most = min(counts.values()), max(counts.values())
        median = statistics.median(counts.values())
        yield row('per class', f'{least:,} to {most:,}, median {median:,.0f}')
        yield from _histogram(counts.values())
        smallest = [f'{name} ({counts[name]})' for name in sorted(counts, key=counts.get)]
        yield row('smallest', listed(smallest, 5))


def _histogram(counts: Iterable[int]) -> Iterator[str]:
    """Yields a bar for each number of images, from the smallest class to the largest."""
    bins = [sum(low <= count < high for count in counts) for low, high in itertools.pairwise(BINS)]
    filled = [i for i, classes in enumerate(bins) if classes]
    for i in range(filled[0], filled[-1] + 1):
        bar = '#' * math.ceil(BAR * bins[i] / max(bins))
        yield row('', f'{_interval(*BINS[i : i + 2]):>14}  {bar:{BAR}}  {bins[i]:,}')


def _interval(low: int, high: float) -> str:
    if high == math.inf:
        return f'{low} or more'
    return f'{low}' if high == low + 1 else f'{low} to {high - 1}'


def _made_of(good: Sequence[Seen]) -> Iterator[str]:
    """Yields what becomes of the images that can be read."""
    size = len(good) * SIDE * SIDE * 3
    yield f'{size / 1e9:.1f} GB' if size > 1e9 else f'{math.ceil(size / 1e6):,} MB'
    if turned := sum(image.is_turned for image in good):
        yield f'{counted(turned, "photo")} turned upright as the camera noted'
    if enlarged := sum(min(image.size) < SIDE for image in good):
        yield f'{counted(enlarged, "smaller image")} enlarged'
    if cut := sum(image.size[0] != image.size[1] for image in good):
        yield f'the square in the centre of {cut:,} that are not square'


def _skipped(listings: Listings) -> Iterator[str]:
    """Yields what is neither an image nor a class, by ending."""
    if skipped := [path for listing in listings.values() for path in listing.skipped]:
        yield by_ending(skipped)


def _duplicates(listings: Listings, seen: AllSeen) -> Iterator[str]:
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
            kind = across if len(classes) > 1 else within
            kind.append(listed([path for *_, path in group], most=4, joint=' = '))
    yield from several(
        'duplicates',
        f'{counted(len(across), "image")} in more than one class: one picture with two labels, '
        'and classes to be tested on that were seen in training. Remove them',
        across,
    )
    yield from several(
        'duplicates',
        f'{counted(len(within), "image")} more than once in a class: a task can query what it was '
        'shown. Remove the copies',
        within,
    )
