"""Patches of a scene that were cut with an overlap: which of them show different ground.

Imports no TensorFlow.
"""

import pathlib
from collections.abc import Sequence

from maml_tf.datasets.landcover.rasters import read_corner
from maml_tf.datasets.raw.image_files import each


def apart(paths: Sequence[pathlib.Path], stride: int) -> list[pathlib.Path]:
    """Returns the patches of every second row and column of a scene.

    Where a patch lies, its GeoTIFF says; one that does not say it stays.

    Args:
      paths: of all patches of a scene, each as large as two strides.
      stride: pixels from one row or column to the next; the first ones are the scene's smallest.
    Raises: UserError where a file cannot be read.
    """
    corners = dict(zip(paths, each(read_corner, paths)))
    known = [corner for corner in corners.values() if corner]
    if not known:
        return list(paths)
    left, top = min(left for left, _ in known), min(top for _, top in known)

    def stays(corner):
        return not any(round((at - first) / stride) % 2 for at, first in zip(corner, (left, top)))

    return [path for path, corner in corners.items() if corner is None or stays(corner)]
