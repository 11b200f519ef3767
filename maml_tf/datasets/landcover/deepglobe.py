"""DeepGlobe land cover (Demir et al. 2018): satellite images with a class for every pixel.

    train/119_sat.jpg    2448x2448, red, green and blue, half a metre a pixel
    train/119_mask.png   the same size, a colour for each class

The set says of no image where it was taken. So an image is a region here: it is cut into tiles, and
a task is drawn from one image. That is a reconstruction; how Russwurm et al. (2020, arXiv
2004.13390) make tasks of this set is not known here.
"""

import pathlib

import numpy as np
from PIL import Image

from maml_tf.datasets.landcover.rasters import read_raster
from maml_tf.datasets.landcover.split import split_regions
from maml_tf.datasets.landcover.tile_files import TileFiles, source
from maml_tf.episodes.segmentation.label_images import packed
from maml_tf.episodes.segmentation.source import LabelledRegions
from maml_tf.episodes.segmentation.values import UNLABELLED
from maml_tf.errors import ArgumentError, UserError
from maml_tf.terminal.text import counted, listed, shown

ROWS = 12  # of tiles in an image, and as many columns: tiles of 204x204 pixels, 100 m
# Class -> its colour in masks. Black is unknown.
COLOURS = {
    'Urban': (0, 255, 255),
    'Agriculture': (255, 255, 0),
    'Rangeland': (255, 0, 255),
    'Forest': (0, 255, 0),
    'Water': (0, 0, 255),
    'Barren': (255, 255, 255),
}
MIDDLE = 128  # Masks may have been compressed: a channel is off or on.


def deepglobe(
    data_dir: str | pathlib.Path | None,
    image_size: int = 64,
    split_file: str | pathlib.Path | None = None,
) -> LabelledRegions:
    """Loads the images of DeepGlobe that have masks, as they lie on disk.

    An image is cut into 12x12 tiles. A tile is made `image_size` pixels large: the bands by
    averaging, the labels by the nearest pixel.

    Args:
      data_dir: the folder of the files, or the one that has it as `train`.
      image_size: at most the side of a tile, 204.
      split_file: csv with the columns region (an image's number) and split; None: by the numbers.
    Raises:
      ArgumentError: there is no such folder or nothing in it, or an argument is out of range.
    """
    if not data_dir:
        raise ArgumentError('data_dir', None, 'name the folder that holds 119_sat.jpg and so on')
    folder = pathlib.Path(data_dir).expanduser()
    if (folder / 'train').is_dir():
        folder /= 'train'
    if not folder.is_dir():
        raise ArgumentError('data_dir', shown(folder), 'no such folder')
    masks = {path.name.removesuffix('_mask.png'): path for path in folder.glob('*_mask.png')}
    regions = {name: [path] for name, path in sorted(masks.items()) if _image(path).is_file()}
    if alone := sorted(masks.keys() - regions.keys()):
        files = counted(len(alone), 'mask')
        print(f'{shown(folder)}: left out {files} without an image: {listed(alone)}')
    if not regions:
        reason = 'no image with a mask; there should be 119_sat.jpg, 119_mask.png and so on'
        raise ArgumentError('data_dir', shown(folder), reason)

    def read(path):
        return read_tiles(path, image_size)

    files = TileFiles(
        folder=folder,
        regions=regions,
        beside=lambda mask: [_image(mask)],
        read=read,
        tiles_of_file=ROWS**2,
        shape=(image_size, image_size, 3),
        wide=False,
        class_names=list(COLOURS),
        way_of_reading=f'deepglobe-{image_size}',
    )
    return source(files, split_regions(list(regions), split_file))


def read_tiles(path: pathlib.Path, side: int) -> np.ndarray:
    """Reads a mask and its image as packed tiles uint8 [ROWS * ROWS, side, side, 4], row by row.

    Raises: UserError where a file is not whole, or they differ in size or are too small.
    """
    mask, image = read_raster(path), read_raster(_image(path))
    if mask.shape != image.shape or image.shape[-1] != 3:
        raise UserError(
            f'{shown(path)}: {list(mask.shape)} does not fit {_image(path).name}, '
            f'{list(image.shape)}'
        )
    if min(image.shape[:2]) < ROWS * side:
        raise UserError(
            f'{shown(_image(path))}: {image.shape[0]}x{image.shape[1]} is too small to be cut into '
            f'{ROWS}x{ROWS} tiles of {side} pixels; give a smaller --image_size'
        )
    picture, labels = Image.fromarray(image), Image.fromarray(numbers_of(mask))
    tiles = []
    for box in _boxes(picture.size):
        bands = picture.resize((side, side), Image.Resampling.BOX, box)
        of_tile = labels.resize((side, side), Image.Resampling.NEAREST, box)
        tiles.append(packed(np.asarray(bands), np.asarray(of_tile)))
    return np.stack(tiles)


def numbers_of(mask: np.ndarray) -> np.ndarray:
    """Returns uint8 [height, width], numbers of COLOURS, of a mask [height, width, 3]."""
    on = mask[..., :3] >= MIDDLE
    table = np.full(8, UNLABELLED, np.uint8)
    for number, colour in enumerate(COLOURS.values()):
        table[_code(np.array(colour) >= MIDDLE)] = number
    return table[_code(on)]


def _code(on):
    """Returns the number from 0 to 7 that three channels, off or on, make."""
    return on @ np.array([4, 2, 1])


def _boxes(size):
    """Yields the tiles of an image of (width, height), row by row, in whole pixels."""
    width, height = size
    edge = lambda length, i: length * i // ROWS
    for row in range(ROWS):
        for column in range(ROWS):
            left, top = edge(width, column), edge(height, row)
            yield left, top, edge(width, column + 1), edge(height, row + 1)


def _image(mask):
    return mask.with_name(mask.name.replace('_mask.png', '_sat.jpg'))
