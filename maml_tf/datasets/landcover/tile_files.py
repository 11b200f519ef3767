"""Tiles with label images, read from files once: into memory, or into a file that streams."""

import contextlib
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from maml_tf.datasets.raw import memory_map
from maml_tf.datasets.raw.image_files import each
from maml_tf.datasets.raw.listing import name_in
from maml_tf.episodes.class_images import ClassImages
from maml_tf.episodes.segmentation import label_images
from maml_tf.episodes.segmentation.label_images import LabelImages
from maml_tf.episodes.segmentation.source import LabelledRegions
from maml_tf.serialisation import cache
from maml_tf.serialisation.files import replaced


class TileFiles(NamedTuple):
    """Says what there is to read, and how.

    folder: that the files lie in.
    regions: {name: its files, the label images}.
    beside: label image -> the other files that its tiles are read from.
    read: label image -> its packed tiles uint8 [tiles_of_file, height, width, bytes], see
      label_images.py.
    tiles_of_file: how many tiles every file gives.
    shape: (height, width, bands) of a tile; wide: whether a band takes two bytes.
    class_names: of the numbers in the tiles.
    way_of_reading: what besides the files decides the tiles, in a word for the name of a cache.
    values: of the classes in the files, where the files' owner chooses them.
    choose: (split, files of a region) -> those that serve there.
    """

    folder: pathlib.Path
    regions: Mapping[str, Sequence[pathlib.Path]]
    beside: Callable[[pathlib.Path], Iterable[pathlib.Path]]
    read: Callable[[pathlib.Path], np.ndarray]
    tiles_of_file: int
    shape: tuple[int, int, int]
    wide: bool
    class_names: list[str]
    way_of_reading: str
    values: Sequence[int] = ()
    choose: Callable[[str, Sequence[pathlib.Path]], Sequence[pathlib.Path]] = lambda _, paths: paths


def source(files: TileFiles, parts: Mapping[str, Sequence[str]]) -> LabelledRegions:
    """Makes a source of tiles; parts: {split: names of its regions}."""
    content = [files.class_names, {split: list(names) for split, names in parts.items()}]
    load = lambda split: load_split(files, split, parts[split])
    return LabelledRegions(load, files.shape, files.class_names, identity=cache.digest(content))


def load_split(files: TileFiles, split: str, regions: Sequence[str]) -> LabelImages:
    """Reads the tiles of some regions.

    A set of more than memory_map.IN_MEMORY bytes is written to `.maml_tf` in its folder (where that
    may not be written, to the user's cache directory), and written anew when its files change.
    Raises: UserError where a file cannot be read, or the disk is full.
    """
    chosen = {name: files.choose(split, files.regions[name]) for name in regions}
    paths = [path for name in regions for path in chosen[name]]
    each_file, (height, width, bands) = files.tiles_of_file, files.shape
    shape = height, width, label_images.depth(bands, files.wide)
    made_of = f'{split}-{files.way_of_reading}-{cache.digest(list(regions))}'
    name = f'{made_of}-{cache.digest(_content(files, paths))}.npy'
    whole = each_file * sum(map(len, files.regions.values()))
    streams = memory_map.streams(whole, shape)
    cached = cache.cached(files.folder, name) if streams else pathlib.Path(name)

    def numbered():
        for number, tiles in enumerate(each(files.read, paths)):
            yield np.arange(each_file) + number * each_file, tiles

    tiles = memory_map.gathered(cached, each_file * len(paths), shape, numbered(), whole)
    if streams:
        cache.remove_outdated(cached, made_of)
    sizes = np.array([each_file * len(chosen[name]) for name in regions])
    stems = [path.stem for path in paths]
    if each_file > 1:
        stems = [f'{stem}_{i}' for stem in stems for i in range(each_file)]
    counts = _counts(tiles, cached, len(files.class_names))
    regional = ClassImages(tiles, sizes, list(regions), stems)
    return LabelImages(regional, counts, files.class_names)


def _content(files, paths):
    """Returns what decides the tiles of some label images, as JSON has it."""
    read = [path for label in paths for path in (label, *files.beside(label))]
    states = [(name_in(path, files.folder), *cache.state(path)) for path in read]
    return [files.class_names, list(files.values), states]


def _counts(tiles, cached, classes):
    """Counts the pixels of each class; of a mapped set once, beside it."""
    if not isinstance(tiles, np.memmap):
        return label_images.count_pixels(tiles, classes)
    beside = cached.with_suffix('.counts')
    try:
        counts = np.frombuffer(beside.read_bytes(), '<i4').reshape(len(tiles), classes)
    except (OSError, ValueError):
        counts = label_images.count_pixels(tiles, classes)
        # Where it cannot be written, they are counted anew.
        with contextlib.suppress(OSError), replaced(beside) as temporary:
            temporary.write_bytes(counts.astype('<i4').tobytes())
    return counts
