"""Images of a set, gathered once: in memory or, of a set too large for that, in a mapped file."""

import contextlib
import math
import os
import pathlib
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator

import numpy as np

from maml_tf.errors import UserError
from maml_tf.serialisation.files import check_is_file
from maml_tf.serialisation.lock import taken
from maml_tf.serialisation.tensorflow_errors import reason
from maml_tf.terminal import progress
from maml_tf.terminal.text import described

IN_MEMORY = 10**9  # bytes of a whole set; larger ones stream
# Seconds since a process last wrote to its file, where the file system has no locks; it writes many
# times a second.
ABANDONED = 600

# (number, uint8 image) or (numbers, uint8 images)
Numbered = Iterable[tuple[int | np.ndarray, np.ndarray]]


def gathered(
    path: str | pathlib.Path,
    count: int,
    image_shape: tuple[int, ...],
    images: Numbered,
    whole: int,
) -> np.ndarray:
    """Returns uint8 [count, *image_shape] from `images`, in memory where the set fits there.

    Args:
      path: the file of a set that does not fit.
      images: see `memory_mapped`.
      whole: images of the whole set, of which these are one split: all its splits are held alike.
    Raises: UserError, see `memory_mapped`.
    """
    if streams(whole, image_shape):
        return memory_mapped(path, count, image_shape, images)
    array = np.empty([count, *image_shape], np.uint8)
    for number, image in _one_by_one(images, count, pathlib.Path(path).stem, delay=3, leave=False):
        array[number] = image
    return array


def streams(images: int, image_shape: tuple[int, ...]) -> bool:
    """Whether a set of so many images is kept in a file."""
    return images * math.prod(image_shape) > IN_MEMORY


def memory_mapped(
    path: str | pathlib.Path, count: int, image_shape: tuple[int, ...], images: Numbered
) -> np.memmap:
    """Returns uint8 [count, *image_shape], read-only and left in the file `path`.

    The file is written first if it is missing, under another name, and renamed when it is whole, so
    that an interrupted run leaves nothing. Of two processes that write at once, one's file stays.

    Args:
      path: a name ending in .npy of which the content is a function: an existing file is used as it
        is.
      images: iterable of (number, uint8 image) or (numbers, uint8 images), every number from 0 to
        count - 1 once, in any order (a disk writes faster in ascending order); iterated only where
        the file is missing.
    Raises:
      UserError: the disk is too small or not writable, `images` leaves some out, or the existing
        file is another.
    """
    path = pathlib.Path(path)
    shape = (count, *image_shape)
    _remove_abandoned(path)
    if not path.exists():
        _write(path, shape, images)
    try:
        check_is_file(path)
        mapped = np.lib.format.open_memmap(path, mode='r')
    except Exception as error:  # A damaged header can raise anything.
        raise UserError(
            f'{path}: not a whole .npy file ({described(error)}); remove it, and it is written anew'
        ) from error
    if mapped.shape != shape or mapped.dtype != np.uint8:
        raise UserError(
            f'{path}: holds {mapped.dtype} {mapped.shape}, not uint8 {shape}; remove it, and it '
            'is written anew'
        )
    return mapped


def _remove_abandoned(path):
    """Removes what a killed process left: who writes a file has locked it."""
    for left in path.parent.glob(f'{path.name}.*.unfinished'):
        # Another process may remove it as well, or the directory be read-only.
        with contextlib.suppress(OSError), open(left, 'rb+') as file:
            locked = taken(file.fileno())
            if locked is None:
                locked = time.time() - left.stat().st_mtime > ABANDONED
            if locked:
                left.unlink()


def _write(path, shape, images):
    unfinished = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_space(path, math.prod(shape))
        print(f'Writing {path}, {math.prod(shape) / 1e9:.1f} GB, once')
        unfinished, file = _new(path)
        with file:
            np.lib.format.write_array_header_1_0(
                file, {'descr': '|u1', 'fortran_order': False, 'shape': shape}
            )
            start = file.tell()
            for number, image in _one_by_one(images, shape[0], path.stem):
                # Not through a mapping, which on a full disk would kill the process.
                file.seek(start + number * math.prod(shape[1:]))
                file.write(np.ascontiguousarray(image, np.uint8).reshape(shape[1:]))
            file.flush()
            os.fsync(file.fileno())
            unfinished.replace(path)  # While it is locked.
    except OSError as error:
        raise UserError(
            f'{path}: could not be written ({reason(error)}); a set of this size is kept on disk: '
            'make room and let its directory be writable, and the same command goes on'
        ) from error
    finally:
        with contextlib.suppress(OSError):
            if unfinished:
                unfinished.unlink()


def _new(path):
    """Returns (its path, the file) of a new file that this process alone writes."""
    while True:
        unfinished = path.with_name(f'{path.name}.{uuid.uuid4().hex}.unfinished')
        file = open(unfinished, 'xb')
        # Who finds it before it is locked takes it for abandoned.
        if taken(file.fileno()) is not False and unfinished.exists():
            return unfinished, file
        file.close()


def _check_space(path, needed):
    if needed > (free := shutil.disk_usage(path.parent).free):
        raise UserError(
            f'{path}: needs {needed / 1e9:.1f} GB, and its disk has {free / 1e9:.1f} GB free; '
            'make room or keep the set on another disk'
        )


def _one_by_one(images, count, title, **kwargs) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each (number, image), with a progress bar; then checks that all were there."""
    seen = np.zeros(count, bool)
    with progress.bar(None, title, total=count, unit=' images', **kwargs) as bar:
        for numbers, batch in images:
            if np.ndim(numbers) == 0:
                numbers, batch = [numbers], [batch]
            for number, image in zip(numbers, batch, strict=True):
                yield int(number), image
                seen[number] = True
            bar.update(len(numbers))
    if not seen.all():
        raise UserError(f'{title}: {seen.sum()} of {count} images are there; prepare the set anew')
