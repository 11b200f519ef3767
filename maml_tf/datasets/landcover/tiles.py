"""Land-cover tiles: each region of the world is a task (Rußwurm et al. 2020).

    Rußwurm, Wang, Körner, Lobell: Meta-Learning for Few-Shot Land Cover Classification, CVPR
    workshops 2020, arXiv 2004.13390

A RECONSTRUCTION. The paper's are the question (is a learner that was trained on tasks of other
regions better in a new region than one that was pretrained on their tiles, or one that starts from
nothing?), regions as tasks, and the land-cover classes of SEN12MS. Our choice: tiles of three
colours instead of all bands, what a region is where a folder holds several seasons (regions.py),
which regions are in which split (by name, about 60 / 20 / 20 %), and that a task takes of a class
one tile of a patch. So support and query of a class never show corners of one patch; those of two
classes may, and neighbouring patches may touch or overlap.

Pretraining (BatchSpec) tells land-cover classes apart, not regions: forests here and there are one
class.
"""

import hashlib
import itertools
import json
import pathlib
from collections.abc import Mapping

import numpy as np

from maml_tf.datasets.landcover.regions import (
    DEPTH,
    Regions,
    count_patches,
    list_regions,
    patch_of,
    too_small,
)
from maml_tf.datasets.landcover.split import split_regions
from maml_tf.datasets.raw import memory_map
from maml_tf.datasets.raw.folder_images import Outcome, Wanted, in_memory, mapped
from maml_tf.datasets.raw.listing import SPLITS
from maml_tf.episodes.class_images import ClassImages
from maml_tf.episodes.images import ImageClasses
from maml_tf.errors import ArgumentError
from maml_tf.terminal.text import counted, shown

SIDE = 64


def landcover(
    data_dir: str | pathlib.Path,
    image_size: int = SIDE,
    split_file: str | pathlib.Path | None = None,
    way: int | Mapping[str, int] = 2,
    least: int | Mapping[str, int] = 2,
) -> ImageClasses:
    """Returns the regions of a folder; here files are only listed, a split is read when needed.

    A class of the source is (region, land cover), its group the region, its label the land cover. A
    task is of one region. What gives no task is left out, and a line says so. How images are read
    and where many of them are kept: see directory.directory.

    Args:
      data_dir: the folder, see regions.py.
      image_size: side of the tiles in pixels.
      split_file: a csv file of the columns region and split, see folder_split.read_split_file;
        None: by the regions' names, always alike.
      way: classes that a task takes; a number, or {split: number}.
      least: patches that a class of a region needs; a number, or {split: number}.
    Raises:
      UserError: there is no such folder.
      ArgumentError: no folder is named, there are fewer than three regions, the split file is
        wrong, or a split has no region with `way` classes; this also where files turn out not to
        be whole images.
    """
    if not data_dir:
        raise ArgumentError(
            'data_dir', None, 'name the folder of regions, each with a folder of tiles for a class'
        )
    folder = pathlib.Path(data_dir).expanduser()
    way, least = _by_split(way), _by_split(least)
    listing = list_regions(folder)
    parts = split_regions(listing.regions, split_file)
    splits = {
        split: {name: listing.regions[name] for name in names} for split, names in parts.items()
    }
    large, small = too_small(splits, way, least)
    for line in (*listing.others, *small):
        print(f'{shown(folder)}: left out {line}')
    for split in SPLITS:
        _check_any(folder, split, large[split], way[split], least[split])
    numbers = _Numbers(listing.regions)
    shape = (image_size, image_size, 3)
    files = {split: _classes(large[split]) for split in SPLITS}
    total = sum(len(paths) for classes in files.values() for paths in classes.values())
    streams = memory_map.streams(total, shape)

    def load(split):
        wanted = Wanted(split, folder, files[split], shape, least[split], DEPTH, count_patches)
        images, outcome = mapped(wanted, folder) if streams else in_memory(wanted)
        _check_read(folder, wanted, outcome, way[split])
        return numbers.class_images(images, outcome.kept)

    return ImageClasses(load, shape, identity=_identity(splits), within_groups=True)


class _Numbers:
    """Numbers regions and land covers, alike in all splits."""

    def __init__(self, regions: Regions):
        self.regions = {name: number for number, name in enumerate(regions)}
        covers = sorted({cover for tiles in regions.values() for cover in tiles})
        self.covers = {name: number for number, name in enumerate(covers)}

    def class_images(self, images, kept):
        """Makes ClassImages of the images that were read; kept: {class: [names of its tiles]}."""
        pairs = [name.split('/', 1) for name in kept]
        patches = [f'{name}/{patch_of(tile)}' for name, tiles in kept.items() for tile in tiles]
        names = list(itertools.chain(*kept.values()))
        return ClassImages(
            images[: len(names)],
            np.array([len(tiles) for tiles in kept.values()]),
            list(kept),
            names,
            groups=np.array([self.regions[region] for region, _ in pairs]),
            labels=np.array([self.covers[cover] for _, cover in pairs]),
            scenes=np.unique(patches, return_inverse=True)[1],
        )


def _by_split(number):
    return {split: number[split] if isinstance(number, Mapping) else number for split in SPLITS}


def _classes(regions: Regions) -> dict[str, list[pathlib.Path]]:
    """Returns {region/land cover: [paths]}."""
    return {
        f'{region}/{cover}': paths
        for region, covers in regions.items()
        for cover, paths in covers.items()
    }


def _identity(splits):
    """Names the split, so that no run resumes another on other regions.

    It does not depend on what a task takes: a run is evaluated with other shots than it was trained
    with. What those leave out of the training regions follows from its flags, which are in its
    name.
    """
    names = {
        split: {region: sorted(covers) for region, covers in regions.items()}
        for split, regions in splits.items()
    }
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:12]


def _check_any(folder, split, regions, way, least):
    if not regions:
        raise ArgumentError(
            'way',
            way,
            f'no region of the {split} split of {shown(folder)} has {counted(way, "class")} of '
            f'{least} patches; ask for fewer classes or images, or choose the split by '
            'a split file',
        )


def _check_read(folder, wanted: Wanted, outcome: Outcome, way: int) -> None:
    """Says which files could not be read, and raises ArgumentError where too few are left."""
    if outcome.unreadable:
        files = counted(len(outcome.unreadable), 'file')
        print(f'{wanted.split}: left out {files}; {outcome.unreadable[0]}')
    regions = [name.split('/', 1)[0] for name in outcome.kept]
    if not any(regions.count(region) >= way for region in regions):
        raise ArgumentError(
            'way',
            way,
            f'no region of the {wanted.split} split of {shown(folder)} has {counted(way, "class")} '
            f'of {wanted.least} patches that can be read',
        )
