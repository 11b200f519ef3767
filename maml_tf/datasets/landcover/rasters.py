"""Reading and writing rasters: GeoTIFF through rasterio, pictures through Pillow.

Imports no TensorFlow.
"""

import contextlib
import pathlib
import warnings
from typing import Any

import numpy as np
from PIL import Image

from maml_tf.errors import UserError
from maml_tf.serialisation.files import check_is_file
from maml_tf.terminal.text import described, shown

GEOTIFF = ('.tif', '.tiff')
PICTURES = ('.png', '.jpg', '.jpeg')
ENDINGS = (*GEOTIFF, *PICTURES)
# What a map takes over from the raster that it is a map of.
GEOREFERENCE = ('crs', 'transform')


def read_raster(path: pathlib.Path) -> np.ndarray:
    """Reads a GeoTIFF or a picture: [height, width, bands], of the file's type.

    Raises: UserError where it is no whole raster, or rasterio is missing.
    """
    return read_with_georeference(path)[0]


def read_with_georeference(path: pathlib.Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Returns what `read_raster` does, and {'crs', 'transform'}, {} where it has none."""
    try:
        check_is_file(path)
        if path.suffix.lower() not in GEOTIFF:
            with Image.open(path) as image:
                if image.mode == 'P':  # The numbers of a palette are classes, in labels.
                    return np.asarray(image)[..., np.newaxis], {}
                values = np.asarray(image)
            return values[..., np.newaxis] if values.ndim == 2 else values[..., :3], {}
        with _rasterio() as rasterio, rasterio.open(path) as file:
            known = {name: getattr(file, name) for name in GEOREFERENCE}
            return np.moveaxis(file.read(), 0, -1), known if known['crs'] else {}
    except UserError:
        raise
    except Exception as error:  # Pillow and rasterio raise many types on damaged files.
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
    """Writes uint8 [height, width] as a GeoTIFF of one band.

    georeference: as `read_with_georeference` gives it.
    """
    height, width = labels.shape
    shape = {'driver': 'GTiff', 'height': height, 'width': width, 'count': 1, 'dtype': 'uint8'}
    with (
        _rasterio() as rasterio,
        rasterio.open(path, 'w', **shape, compress='deflate', **georeference) as file,
    ):
        file.write(labels[np.newaxis])


def write_picture(path: pathlib.Path, labels: np.ndarray) -> None:
    """Writes uint8 [height, width] as a grey PNG."""
    Image.fromarray(labels).save(path)


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
