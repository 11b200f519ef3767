"""Listing a folder of regions, each with a folder of tiles for every land-cover class.

    tiles/122/Forests/fall_p17bl.png, ...   scene 122 of fall, bottom left corner of patch 17
    tiles/alps/Water/anything.jpg, ...      region alps, each tile a patch of its own

Of names `<season>_p<number><corner>`, as tiles of SEN12MS are called, two things are known. Tiles
of one patch lie side by side. And a folder's tiles of two seasons show two places: SEN12MS numbers
scenes season by season (`ROIs…_fall/s2_122`), and the tiles look it (122 in fall is a coast, 122 in
spring a plain). So such a folder is a region for each of its seasons, `122_fall` and `122_spring`.

Imports no TensorFlow.
"""

import collections
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from maml_tf.datasets.raw.listing import (
    LOOK_LIKE_SPLITS,
    composed,
    list_folder,
    name_in,
    visible_folders,
)
from maml_tf.errors import UserError
from maml_tf.terminal.text import counted, listed, shown

TILE = re.compile(r'(?P<season>[A-Za-z]+)_p(?P<patch>\d+)(?P<corner>tl|tr|bl|br)\.[^.]+')
DEPTH = 2  # folders from the folder of regions to the tiles of a class

Regions = dict[str, dict[str, list[pathlib.Path]]]  # {region: {land cover: [paths of its tiles]}}


class Listing(NamedTuple):
    """Holds what is in a folder of regions.

    regions: {region: {land cover: [paths]}}, both sorted; tiles of a patch follow one another
    others: what belongs to no region or class, as 'what: names'
    """

    regions: Regions
    others: list[str]


def patch_of(name: str) -> str:
    """Returns the patch that a tile is a part of; a tile that is called otherwise is its own."""
    match = TILE.fullmatch(name.rpartition('/')[2])
    return f'{match["season"]}_p{match["patch"]}' if match else name


def count_patches(names: list[str]) -> int:
    """Returns how many patches some tiles show."""
    return len({patch_of(name) for name in names})


def list_regions(folder: pathlib.Path) -> Listing:
    """Lists the regions of a folder, with the tiles of each of their classes.

    Raises: UserError where there is no such folder, or it has no folder of folders of images.
    """
    regions, others, loose, alone = {}, [], [], []
    for path in visible_folders(folder):
        region = composed(path.name)
        if region.lower() in LOOK_LIKE_SPLITS:
            raise UserError(
                f'{shown(folder)}: {shown(region)} looks like a split, and the folders here are '
                'regions; which split each is in says a split file'
            )
        if not visible_folders(path):
            alone.append(region)
            continue
        listing = list_folder(path)
        loose += [f'{region}/{file.name}' for file in listing.loose]
        for name, tiles in _by_season(region, listing.classes, folder):
            if name in regions:
                raise UserError(f'{shown(folder)}: two folders make a region {shown(name)}')
            regions[name] = tiles
    if not regions:
        raise UserError(
            f'{shown(folder)}: no region in it, a folder with a folder of tiles for every '
            'land-cover class (region/class/tile.png)'
        )
    if alone:
        others.append(f'{counted(len(alone), "folder")} without class folders: {listed(alone)}')
    if loose:
        others.append(f'{counted(len(loose), "tile")} in no class folder: {listed(loose)}')
    return Listing(dict(sorted(regions.items())), others)


def _by_season(
    region: str, classes: Mapping[str, list[pathlib.Path]], folder: pathlib.Path
) -> Iterator[tuple[str, dict[str, list[pathlib.Path]]]]:
    """Yields (region, {class: [paths]}) for every season of a folder, if it knows seasons."""
    regions = collections.defaultdict(lambda: collections.defaultdict(list))
    for cover, paths in classes.items():
        for path in sorted(paths, key=lambda path: _order(path, folder)):
            match = TILE.fullmatch(path.name)
            regions[f'{region}_{match["season"]}' if match else region][cover].append(path)
    for name, tiles in regions.items():
        yield name, dict(tiles)


def _order(path, folder):
    name = name_in(path, folder)
    return patch_of(name), name


def too_small(
    parts: Mapping[str, Regions], way: Mapping[str, int], least: Mapping[str, int]
) -> tuple[dict[str, Regions], list[str]]:
    """Leaves out what gives no task: classes of few patches, then regions of few classes.

    Args:
      parts: {split: regions}. way, least: {split: classes of a task, patches of a class}.
    Returns: ({split: regions that are left}, what was left out as 'what: names').
    """
    left, classes, regions = {}, [], []
    for split, listing in parts.items():
        left[split] = {}
        for region, covers in listing.items():
            counts = {
                cover: count_patches([path.as_posix() for path in tiles])
                for cover, tiles in covers.items()
            }
            large = {cover: covers[cover] for cover in covers if counts[cover] >= least[split]}
            classes += [
                f'{region}/{cover} ({counts[cover]} of {least[split]})'
                for cover in covers
                if cover not in large
            ]
            if len(large) >= way[split]:
                left[split][region] = large
            else:
                regions.append(f'{region} ({len(large)} of {way[split]})')
    lines = []
    if classes:
        few = f'{counted(len(classes), "class")} of a region with fewer patches than are asked for'
        lines.append(f'{few}: {listed(classes)}')
    if regions:
        few = f'{counted(len(regions), "region")} with fewer such classes than a task has'
        lines.append(f'{few}: {listed(regions)}')
    return left, lines
