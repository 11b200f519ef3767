"""SEN12MS (Schmitt et al. 2019): Sentinel-1 and -2 patches with land cover, by scene.

    ROIs1868_summer/s1_17/ROIs1868_summer_s1_17_p30.tif   2 bands, float32, decibels
    ROIs1868_summer/s2_17/ROIs1868_summer_s2_17_p30.tif   13 bands, uint16, reflectance * 10,000
    ROIs1868_summer/lc_17/ROIs1868_summer_lc_17_p30.tif   4 bands, of which the first is IGBP's

A region is a scene of a season, `ROIs1868_summer_17`. Few-shot tasks of it are Russwurm et al.'s
(2020, arXiv 2004.13390); their code is not at hand, and what a task takes is a reconstruction (see
episodes/segmentation/sampling.py), as are the values' scales and the split. Their splits of the
regions are not known here.

Patches were cut at every 128th pixel, so those next to each other overlap by half. Queries of a
task are not to show the ground that the learner was adapted to: in validation and test only the
patches of every second row and column of a scene serve, by the georeference of their label images.
Those without one all serve, and then support and query may overlap. In training all serve.
"""

import pathlib
import re

import numpy as np

from maml_tf.datasets.landcover import bands as scales
from maml_tf.datasets.landcover.overlap import apart
from maml_tf.datasets.landcover.rasters import read_raster
from maml_tf.datasets.landcover.split import split_regions
from maml_tf.datasets.landcover.tile_files import TileFiles, source
from maml_tf.episodes.segmentation.label_images import packed
from maml_tf.episodes.segmentation.source import LabelledRegions
from maml_tf.episodes.segmentation.values import UNLABELLED
from maml_tf.errors import ArgumentError, UserError, check_one_of
from maml_tf.terminal.text import counted, listed, shown

SIDE = 256  # of a patch
STRIDE = 128  # from a patch to the next: neighbours overlap by half
SENSORS = {'rgb': ('s2',), 's2': ('s2',), 's1s2': ('s2', 's1')}  # by --bands
FILE = re.compile(r'(?P<season>ROIs\d+_\w+?)_lc_(?P<scene>\d+)_p\d+\.tif')
# IGBP's classes 1 to 17 -> the simplified ones, as of the 2020 Data Fusion Contest: forests (1-5),
# shrublands (6, 7), savannas (8, 9), grasslands, wetlands, croplands (12, 14), urban, snow and ice,
# barren, water.
CLASSES = (
    *('Forest', 'Shrubland', 'Savanna', 'Grassland', 'Wetlands'),
    *('Croplands', 'Urban', 'Snow and ice', 'Barren', 'Water'),
)
SIMPLIFIED = (0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 5, 7, 8, 9)


def sen12ms(
    data_dir: str | pathlib.Path | None,
    image_size: int = 64,
    bands: str = 'rgb',
    split_file: str | pathlib.Path | None = None,
) -> LabelledRegions:
    """Loads SEN12MS as it lies on disk.

    A patch of 256x256 is made `image_size` pixels large: bands by the means of blocks, labels by
    the blocks' central pixels. The patches of the val and test split do not overlap, see above.

    Args:
      data_dir: the folder that has the folders of the seasons.
      image_size: a divisor of 256.
      bands: 'rgb', 's2' or 's1s2', see bands.py.
      split_file: csv with the columns region and split; None: by the regions' names.
    Raises:
      ArgumentError: there is no such folder or nothing in it, or an argument is out of range.
    """
    check_one_of('bands', bands, tuple(scales.BANDS))
    if image_size < 1 or SIDE % image_size:
        raise ArgumentError('image_size', image_size, f'a divisor of {SIDE}, the side of a patch')
    if not data_dir:
        raise ArgumentError(
            'data_dir', None, 'name the folder that holds ROIs1868_summer and so on'
        )
    folder = pathlib.Path(data_dir).expanduser()
    regions, incomplete = list_regions(folder, bands)
    if not regions:
        found = f'{incomplete[0]} has no image beside it' if incomplete else 'no label image'
        reason = f'{found}; it should be ROIs1868_summer/lc_17/ROIs1868_summer_lc_17_p30.tif'
        raise ArgumentError('data_dir', shown(folder), reason)
    if incomplete:
        files = counted(len(incomplete), 'label image')
        print(f'{shown(folder)}: left out {files} without all its bands: {listed(incomplete)}')

    def read(path):
        return read_patch(path, image_size, bands)[np.newaxis]

    files = TileFiles(
        folder=folder,
        regions=regions,
        beside=lambda path: [sibling(path, sensor) for sensor in SENSORS[bands]],
        read=read,
        tiles_of_file=1,
        shape=(image_size, image_size, scales.BANDS[bands]),
        wide=True,
        class_names=list(CLASSES),
        way_of_reading=f'sen12ms-{bands}-{image_size}',
        choose=lambda split, paths: paths if split == 'train' else apart(paths, STRIDE),
    )
    return source(files, split_regions(list(regions), split_file))


def list_regions(
    folder: pathlib.Path, bands: str = 'rgb'
) -> tuple[dict[str, list[pathlib.Path]], list[str]]:
    """Returns ({region: paths of its label images}, names of those without all bands), sorted.

    Raises: ArgumentError where there is no such folder.
    """
    if not folder.is_dir():
        raise ArgumentError('data_dir', shown(folder), 'no such folder')
    regions, incomplete = {}, []
    for path in sorted(folder.glob('ROIs*/lc_*/ROIs*_lc_*_p*.tif'), key=_number):
        match = FILE.fullmatch(path.name)
        if match is None:
            continue
        if all(sibling(path, sensor).is_file() for sensor in SENSORS[bands]):
            regions.setdefault(f'{match["season"]}_{match["scene"]}', []).append(path)
        else:
            incomplete.append(path.name)
    return regions, incomplete


def sibling(path: pathlib.Path, sensor: str) -> pathlib.Path:
    """Returns the file of 's1' or 's2' that belongs to a label image."""
    scene = path.parent.name.replace('lc', sensor, 1)
    return path.parent.parent / scene / path.name.replace('_lc_', f'_{sensor}_', 1)


def read_patch(path: pathlib.Path, side: int, bands: str) -> np.ndarray:
    """Reads a label image and its bands as a packed tile [side, side, bytes].

    Raises: UserError where a file is not a whole one of this set.
    """
    labels = simplified(_checked(path, 4)[..., 0])
    values = scales.of_s2(_checked(sibling(path, 's2'), scales.OF_S2), bands)
    if bands == 's1s2':
        radar = _checked(sibling(path, 's1'), scales.OF_S1)
        values = np.concatenate([values, scales.of_s1(radar)], -1)
    return packed(scales.reduced(values, side), scales.reduced_labels(labels, side))


def simplified(igbp: np.ndarray) -> np.ndarray:
    """Returns uint8 numbers of CLASSES of IGBP's, UNLABELLED for what is none of theirs."""
    table = np.full(256, UNLABELLED, np.uint8)
    table[1 : len(SIMPLIFIED) + 1] = SIMPLIFIED
    return table[np.clip(igbp, 0, 255).astype(np.uint8)]


def _checked(path, bands):
    values = read_raster(path)
    if values.shape != (SIDE, SIDE, bands):
        height, width, there = values.shape
        raise UserError(
            f'{shown(path)}: {height}x{width} with {counted(there, "band")}; a file of SEN12MS is '
            f'{SIDE}x{SIDE} with {bands}'
        )
    return values


def _number(path):
    """Sorts p9 before p10."""
    return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', str(path))]
