"""A folder of class folders: which images there are, in an order that is the same on every system,
and reading one.

Imports no TensorFlow, so that a command that only looks at files starts at once.
"""

import concurrent.futures
import contextlib
import os
import pathlib
import unicodedata
from typing import NamedTuple

import numpy as np
from PIL import Image

from maml_tf.errors import UserError

ENDINGS = ('.jpg', '.jpeg', '.jfif', '.png', '.bmp', '.gif', '.webp')
# Folders that unpackers and network drives leave, with second or smaller copies of the files in
# them.
LEFT_BEHIND = ('__MACOSX', '@eaDir')
# JPEG decoding and box averaging may shrink a photo to this many times the wanted side, before
# Lanczos does the rest: a 12-megapixel photo is read several times as fast, and differs by about a
# grey level.
GAP = 3
# What turns a picture upright, by EXIF's orientation.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Listing(NamedTuple):
    """What is in a folder of class folders.

    classes: {class name: [paths]}, sorted by name; a class folder without images has an empty list
    loose:   [paths] of images in the folder itself, which belong to no class
    skipped: [paths] of what is neither an image nor a class: hidden files and folders, files with
      other endings
    """

    classes: dict
    loose: list
    skipped: list


def class_folders(folder):
    """{class name: [paths of its images]}, both sorted; a class folder without images has an empty
    list.

    A class is a folder directly in `folder`; images in its sub-folders, however deep, are images of
    the class (links to other folders are followed for classes, not inside them). Images end in one
    of ENDINGS, in either case. What is hidden (a leading dot) and LEFT_BEHIND is skipped. Names are
    in Unicode's composed form (NFC) and in order of its code points, so that they are the same on
    every system.

    Raises: UserError, where there is no such folder, or no class folder in it, or two are named
      alike.
    """
    return list_folder(folder).classes


def list_folder(folder):
    """The Listing of `folder`; see class_folders."""
    folder, classes, loose, skipped = pathlib.Path(folder).expanduser(), {}, [], []
    for path in _in_order(_entries(folder), folder):
        if is_hidden(path):
            skipped.append(path)
        elif not path.is_dir():
            (loose if is_image(path) else skipped).append(path)
        elif (name := composed(path.name)) in classes:
            raise UserError(
                f'{shown(folder)}: two folders are named {shown(name)}, which differ only in how '
                'Unicode '
                'writes an accent; merge or rename them'
            )
        else:
            classes[name], others = images_below(path)
            skipped += others
    if not classes:
        found = f'{len(loose)} images, but no folder' if loose else 'no folder'
        raise UserError(
            f'{shown(folder)}: {found} in it; the images of each class belong in a folder named '
            'after it'
        )
    return Listing(classes, loose, skipped)


def visible_folders(folder):
    """The paths of the folders directly in `folder`, sorted. Raises UserError, where there is no
    such folder."""
    return [
        path
        for path in _in_order(_entries(folder), folder)
        if path.is_dir() and not is_hidden(path)
    ]


def read_image(path, side, channels=3):
    """An image file as uint8 [side, side, channels]; channels: 3 (RGB; grey is repeated) or 1
    (grey).

    The square in the centre is cut out and resized with Lanczos (the filter looks past the cut),
    unless it has that size already. It is turned upright as the EXIF orientation says; what is
    transparent becomes white; of 16 bits the upper 8 stay; an animation gives its first picture.

    Raises: UserError, where the file cannot be read as a whole image.
    """
    try:
        with Image.open(path) as image:
            # A JPEG is decoded at a half, a quarter or an eighth, and its true size may then end
            # within a pixel.
            drafted = image.draft(None, (GAP * side, GAP * side))
            width, height = drafted[1][2:] if drafted else image.size
            image.load()
            turn = TURNS.get(orientation(image))
            image = _opaque(image).convert('RGB' if channels == 3 else 'L')
    except Exception as error:  # Pillow's plug-ins raise many types on damaged files.
        raise UserError(
            f'{shown(path)}: not a whole image ({type(error).__name__}: {shown(error)}); '
            'replace it or remove it'
        ) from error
    edge = min(width, height)
    left, top = (width - edge) / 2, (height - edge) / 2
    box = left, top, left + edge, top + edge
    square = (
        image.crop([int(value) for value in box])
        if edge == side
        else image.resize((side, side), Image.LANCZOS, box, reducing_gap=GAP)
    )
    return np.asarray(square if turn is None else square.transpose(turn)).reshape(
        side, side, channels
    )


def orientation(image):
    """How the camera was held, as EXIF numbers it: 1 is upright, and so is what has no such
    entry."""
    with contextlib.suppress(
        Exception
    ):  # Cameras and editors write damaged EXIF data around whole pictures.
        return image.getexif().get(0x0112, 1)
    return 1


def each(function, paths):
    """Yields function(path) for each path, in order; threads work ahead of it."""
    with concurrent.futures.ThreadPoolExecutor(min(16, os.cpu_count())) as pool:
        # Some at a time, so that neither results nor, on Ctrl-C, work piles up.
        for first in range(0, len(paths), 256):
            yield from pool.map(function, paths[first : first + 256])


def is_image(path):
    """Whether a file is named as an image."""
    return path.suffix.lower() in ENDINGS


def is_hidden(path):
    """Whether a file or folder is not the user's own."""
    return path.name.startswith('.') or path.name in LEFT_BEHIND


def composed(name):
    """A name in Unicode's composed form: some systems list é as one character, others as e and an
    accent."""
    return unicodedata.normalize('NFC', name)


def name_in(path, folder):
    """The path of a file from `folder` on, composed and with forward slashes."""
    return composed(path.relative_to(folder).as_posix())


def shown(text):
    """str(text) on one line, and printable whatever bytes a file's name is made of."""
    return ' '.join(str(text).splitlines()).encode('utf-8', 'backslashreplace').decode()


def _entries(folder):
    if not folder.is_dir():
        raise UserError(
            f'{shown(folder)}: {"not a folder" if folder.exists() else "no such folder"}'
        )
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UserError(f'{shown(folder)}: cannot be listed ({error.strerror})') from error


def _in_order(paths, folder):
    # Names that differ only in Unicode form are told apart by the bare path.
    return sorted(paths, key=lambda path: (name_in(path, folder), str(path)))


def images_below(folder):
    """(images, other files), each sorted. Links to folders are not followed: they can lead in
    circles."""
    images, others, folders = [], [], [folder]
    while folders:
        for path in _entries(folders.pop()):
            if is_hidden(path):
                others.append(path)
            elif path.is_dir():
                (others if path.is_symlink() else folders).append(path)
            else:
                (images if is_image(path) else others).append(path)
    return _in_order(images, folder), _in_order(others, folder)


def _opaque(image):
    """8 bits per channel, and no transparency."""
    if image.mode.startswith('I'):  # Pillow's own conversion clips 16 bits to 8.
        return Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image
    image = image.convert('RGBA')
    return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
