"""Reading and writing rasters: GeoTIFF through rasterio, pictures through Pillow.

Imports no TensorFlow.
"""

import contextlib
import pathlib
import warnings
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from maml_tf.errors import UserError
from maml_tf.serialisation.files import check_is_file, replaced
from maml_tf.terminal.text import described, shown

GEOTIFF = ('.tif', '.tiff')
PICTURES = ('.png', '.jpg', '.jpeg')
ENDINGS = (*GEOTIFF, *PICTURES)
# What a map takes over from the raster that it is a map of.
GEOREFERENCE = ('crs', 'transform')


class Raster(NamedTuple):
    """Holds a raster and what its file says of it.

    values: [height, width, bands], of the file's type.
    georeference: {'crs', 'transform'}, {} where it has none.
    known: bool [height, width], False where a GeoTIFF has no data (its nodata value, or a mask).
    """

    values: np.ndarray
    georeference: dict[str, Any]
    known: np.ndarray


def read_raster(path: pathlib.Path) -> np.ndarray:
    """Reads a GeoTIFF or a picture: [height, width, bands], of the file's type.

    Raises: UserError where it is no whole raster, or rasterio is missing.
    """
    try:
        check_is_file(path)
        if path.suffix.lower() in GEOTIFF:
            with _rasterio() as rasterio, rasterio.open(path) as file:
                return np.moveaxis(file.read(), 0, -1)
        with Image.open(path) as image:
            if image.mode == 'P':  # The numbers of a palette are classes, in labels.
                return np.asarray(image)[..., np.newaxis]
            values = np.asarray(image)
        return values[..., np.newaxis] if values.ndim == 2 else values[..., :3]
    except UserError:
        raise
    except Exception as error:  # Pillow and rasterio raise many types on damaged files.
        raise _unreadable(path, error) from error


def read_with_georeference(path: pathlib.Path) -> Raster:
    """Reads what `read_raster` does, with where it lies and has data. Raises: the same."""
    values = read_raster(path)
    if path.suffix.lower() not in GEOTIFF:
        return Raster(values, {}, np.ones(values.shape[:2], bool))
    try:
        with _rasterio() as rasterio, rasterio.open(path) as file:
            place = {name: getattr(file, name) for name in GEOREFERENCE}
            return Raster(values, place if place['crs'] else {}, file.dataset_mask() > 0)
    except Exception as error:  # As above.
        raise _unreadable(path, error) from error


def read_corner(path: pathlib.Path) -> tuple[float, float] | None:
    """Returns where a GeoTIFF's first pixel lies, in pixels of its size to the right and down.

    It is counted from the origin of the file's coordinates; None: the file does not say.
    Raises: UserError where it is no raster, or rasterio is missing.
    """
    try:
        check_is_file(path)
        with _rasterio() as rasterio, rasterio.open(path) as file:
            place = file.transform
    except UserError:
        raise
    except Exception as error:  # As above.
        raise _unreadable(path, error) from error
    if place.is_identity:  # So rasterio says that there is none.
        return None
    return place.c / place.a, place.f / place.e


def write_labels(path: pathlib.Path, labels: np.ndarray, georeference: dict[str, Any]) -> None:
    """Writes uint8 [height, width] as a GeoTIFF of one band, in which 0 is no data.

    A run cut short leaves no part of it.

    georeference: as `read_with_georeference` gives it.
    Raises: UserError where it cannot be written.
    """
    height, width = labels.shape
    shape = {'driver': 'GTiff', 'height': height, 'width': width, 'count': 1, 'dtype': 'uint8'}
    with replaced(path) as temporary, _rasterio() as rasterio:
        try:
            with rasterio.open(
                temporary, 'w', **shape, nodata=0, compress='deflate', **georeference
            ) as file:
                file.write(labels[np.newaxis])
        except Exception as error:  # Rasterio's own, of which some name the temporary file.
            reason = described(error).replace(str(temporary), str(path))
            raise UserError(f'{shown(path)}: could not be written ({reason})') from error


def write_picture(path: pathlib.Path, labels: np.ndarray) -> None:
    """Writes uint8 [height, width] as a grey PNG. A run cut short leaves no part of it."""
    with replaced(path) as temporary:
        Image.fromarray(labels).save(temporary, format='PNG')


def _unreadable(path, error):
    return UserError(f'{shown(path)}: no raster that can be read ({described(error)})')


@contextlib.contextmanager
def _rasterio():
    try:
        import rasterio
    except ImportError as error:
        raise UserError("GeoTIFF is read by rasterio: pip install '.[landcover]'") from error
    with warnings.catch_warnings():
        # A tile need not say where it lies.
        warnings.simplefilter('ignore', rasterio.errors.NotGeoreferencedWarning)
        yield rasterio
