"""Images and label images of one's own, region by region, in plain folders.

    alps/images/a.tif    bands, see bands.py: a picture, Sentinel-2, or Sentinel-2 and -1
    alps/labels/a.tif    the same size, one band: the value of each pixel's class, 0 for no label
    classes.csv          beside the regions: value,name

A label image may be a GeoTIFF or a PNG, whatever the image is. Without classes.csv the classes
are the values that occur, and are called after them.

Imports no TensorFlow, unless a source is made.
"""

import csv
import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from maml_tf.datasets.landcover import bands as scales
from maml_tf.datasets.landcover.rasters import ENDINGS, read_raster
from maml_tf.datasets.landcover.split import split_regions
from maml_tf.datasets.raw.listing import composed, is_hidden, visible_folders
from maml_tf.episodes.segmentation.values import UNLABELLED
from maml_tf.errors import ArgumentError, UserError, check_one_of
from maml_tf.serialisation.files import check_is_file
from maml_tf.terminal.text import described, shown

if TYPE_CHECKING:
    from maml_tf.episodes.segmentation.source import LabelledRegions

IMAGES, LABELS, CLASSES = 'images', 'labels', 'classes.csv'
LABEL_ENDINGS = ('.tif', '.tiff', '.png')
MOST = 254  # value of a class


def label_images(
    data_dir: str | pathlib.Path | None,
    image_size: int = 64,
    bands: str = 'rgb',
    split_file: str | pathlib.Path | None = None,
) -> 'LabelledRegions':
    """Loads regions of one's own, all of whose images are of one size.

    An image is cut into tiles of `image_size` pixels; what is left over at its right and at its
    bottom is left out.

    Args:
      data_dir: the folder of the regions.
      bands: 'rgb', 's2' or 's1s2', see bands.py.
      split_file: csv with the columns region and split; None: by the regions' names.
    Raises:
      ArgumentError: there is no such folder or nothing in it, or an argument is out of range.
    """
    from maml_tf.datasets.landcover.tile_files import TileFiles, source
    from maml_tf.episodes.segmentation.label_images import packed

    check_one_of('bands', bands, tuple(scales.BANDS))
    if not data_dir:
        raise ArgumentError('data_dir', None, 'name the folder that holds a folder for each region')
    folder = pathlib.Path(data_dir).expanduser()
    regions = {composed(path.name): pairs(path) for path in visible_folders(folder)}
    if not regions:
        raise ArgumentError('data_dir', shown(folder), f'no region in it, as alps/{IMAGES}')
    image_of = {label: image for of in regions.values() for label, image in of.items()}
    size = read_labels(next(iter(image_of))).shape
    down, across = (length // image_size for length in size)
    if not down * across:
        reason = f'larger than the images, {size[0]}x{size[1]}'
        raise ArgumentError('image_size', image_size, reason)
    names = read_classes(folder, image_of)
    table = np.full(256, UNLABELLED, np.uint8)
    table[list(names)] = np.arange(len(names))

    def read(label):
        values, labels = read_pair(label, image_of[label], bands)
        check_known(label, labels, names)
        if labels.shape != size:
            raise UserError(
                f'{shown(label)}: {labels.shape[0]}x{labels.shape[1]}, and the first image is '
                f'{size[0]}x{size[1]}; all are to be of one size'
            )
        whole = packed(values, table[labels])[: down * image_size, : across * image_size]
        tiles = whole.reshape(down, image_size, across, image_size, -1)
        return tiles.swapaxes(1, 2).reshape(down * across, image_size, image_size, -1)

    files = TileFiles(
        folder=folder,
        regions={name: list(of) for name, of in regions.items()},
        beside=lambda label: [image_of[label]],
        read=read,
        tiles_of_file=down * across,
        shape=(image_size, image_size, scales.BANDS[bands]),
        wide=True,
        class_names=list(names.values()),
        way_of_reading=f'label_images-{bands}-{image_size}',
        values=list(names),
    )
    return source(files, split_regions(list(regions), split_file))


def pairs(folder: pathlib.Path) -> dict[pathlib.Path, pathlib.Path]:
    """Returns {label image: its image} of a folder with the folders images and labels, sorted.

    Raises: UserError where there is none, or a label image has not one image of its name.
    """
    for part in (IMAGES, LABELS):
        if not (folder / part).is_dir():
            raise UserError(
                f'{shown(folder)}: no folder {part} in it, beside which {IMAGES} '
                f'and {LABELS} hold files of the same names'
            )
    found = {}
    for label in rasters(folder / LABELS, LABEL_ENDINGS):
        images = [path for path in rasters(folder / IMAGES) if path.stem == label.stem]
        if len(images) != 1:
            raise UserError(
                f'{shown(label)}: {len(images)} images of this name in {IMAGES}, not one'
            )
        found[label] = images[0]
    if not found:
        raise UserError(f'{shown(folder / LABELS)}: no label image, {" ".join(LABEL_ENDINGS)}')
    return found


def rasters(folder: pathlib.Path, endings: Iterable[str] = ENDINGS) -> list[pathlib.Path]:
    """Lists the files directly in a folder that end so, sorted."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in paths if path.suffix.lower() in endings and not is_hidden(path)]


def read_pair(
    label: pathlib.Path, image: pathlib.Path, bands: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (bands uint16 [height, width, bands] as of bands.py, values uint8 [height, width]).

    Raises: UserError where they cannot be read, or do not fit each other.
    """
    values, labels = read_bands(image, bands), read_labels(label)
    if values.shape[:2] != labels.shape:
        height, width = labels.shape
        raise UserError(
            f'{shown(label)}: {height}x{width}, and {image.name} is '
            f'{values.shape[0]}x{values.shape[1]}'
        )
    return values, labels


def read_bands(image: pathlib.Path, bands: str) -> np.ndarray:
    """Returns the bands of an image as uint16, see bands.py. Raises: UserError."""
    return bands_of(read_raster(image), image, bands)


def bands_of(values: np.ndarray, image: pathlib.Path, bands: str) -> np.ndarray:
    """Returns the same of what has been read. Raises: UserError that names the file."""
    try:
        return scales.of_file(values, bands)
    except UserError as error:
        raise UserError(f'{shown(image)}: {error}') from error


def read_labels(label: pathlib.Path) -> np.ndarray:
    """Returns the values of a label image, uint8 [height, width]. Raises: UserError."""
    labels = read_raster(label)
    if labels.shape[-1] != 1:
        raise UserError(
            f'{shown(label)}: {labels.shape[-1]} bands; a label image has one, the value of each '
            "pixel's class"
        )
    if not 0 <= labels.min() <= labels.max() <= MOST:
        reason = f'values from {labels.min()} to {labels.max()}; classes are 1 to {MOST}, 0 is none'
        raise UserError(f'{shown(label)}: {reason}')
    whole = labels[..., 0].astype(np.uint8)
    if (broken := labels[..., 0] != whole).any():
        reason = f'a value of {labels[broken].min():.6g}; classes are whole numbers'
        raise UserError(f'{shown(label)}: {reason}')
    return whole


def check_known(label: pathlib.Path, labels: np.ndarray, values: Iterable[int]) -> None:
    """Raises UserError for a label image with a value that no class has."""
    if unknown := set(np.unique(labels).tolist()) - {0, *values}:
        raise UserError(
            f'{shown(label)}: the value {min(unknown)} is not in {CLASSES}; name it there, or let '
            'such pixels be 0'
        )


def read_classes(folder: pathlib.Path, labels: Iterable[pathlib.Path]) -> dict[int, str]:
    """Returns {value: name} of classes.csv in a folder, sorted; without it of the values in labels.

    Raises: UserError that names the line.
    """
    path = folder / CLASSES
    if not path.exists():
        values = sorted(set().union(*(np.unique(read_labels(label)) for label in labels)) - {0})
        if not values:
            raise UserError(f'{shown(folder)}: no pixel of its label images has a class, all are 0')
        return {int(value): f'class {value}' for value in values}
    wrong = lambda reason: UserError(f'{shown(path)}: {reason}')
    try:
        check_is_file(path)
        header, *rows = [*csv.reader(path.read_text('utf-8-sig').splitlines())] or [[]]
    except (OSError, ValueError, csv.Error) as error:
        raise wrong(f'no csv file in UTF-8 ({described(error)})') from error
    if [cell.strip() for cell in header] != ['value', 'name']:
        raise wrong('the first line should be value,name')
    names = {}
    for number, row in enumerate(rows, start=2):
        if len(row) != 2 or not row[0].strip().isdecimal() or not 0 < int(row[0]) <= MOST:
            raise wrong(f'line {number} should be a value from 1 to {MOST} and a name')
        if int(row[0]) in names:
            raise wrong(f'line {number}: the value {row[0]} is there twice')
        names[int(row[0])] = row[1].strip()
    if not names:
        raise wrong('no class in it')
    return dict(sorted(names.items()))
