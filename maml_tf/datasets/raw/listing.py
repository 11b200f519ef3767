"""Listing a folder of class folders: which images there are, in the same order on every system.

    photos/cat/*.jpg, photos/dog/*.jpg, ...             classes that are yet to be split
    photos/train/cat/*.jpg, photos/val/..., photos/test/...   the folders are the split

Imports no TensorFlow, so that a command that only looks at files starts at once.
"""

import collections
import pathlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from maml_tf.errors import UserError
from maml_tf.terminal.text import counted, listed, shown

SPLITS = ('train', 'val', 'test')
LOOK_LIKE_SPLITS = {*SPLITS, 'training', 'valid', 'validation', 'dev', 'testing'}
ENDINGS = ('.jpg', '.jpeg', '.jfif', '.png', '.bmp', '.gif', '.webp')
# Folders that unpackers and network drives leave, with second or smaller copies of the files in
# them.
LEFT_BEHIND = ('__MACOSX', '@eaDir')


class Listing(NamedTuple):
    """Holds what is in a folder of class folders.

    classes: {class name: [paths]}, sorted by name; a class folder without images has an empty list
    loose:   [paths] of images in the folder itself, which belong to no class
    skipped: [paths] of what is neither an image nor a class: hidden files and folders, files with
      other endings
    """

    classes: dict[str, list[pathlib.Path]]
    loose: list[pathlib.Path]
    skipped: list[pathlib.Path]


def list_folder(folder: str | pathlib.Path) -> Listing:
    """Lists the classes of a folder and the images of each, both sorted.

    A class is a folder directly in `folder`; images in its sub-folders, however deep, are images of
    the class (links to other folders are followed for classes, not inside them). Images end in one
    of ENDINGS, in either case. What is hidden (a leading dot) and LEFT_BEHIND is skipped. Names are
    in Unicode's composed form (NFC) and in order of its code points, so that they are the same on
    every system.

    Raises: UserError where there is no such folder, or no class folder in it, or two are named
      alike.
    """
    folder = pathlib.Path(folder).expanduser()
    listing = Listing({}, [], [])
    for path in _in_order(_entries(folder), folder):
        if is_hidden(path):
            listing.skipped.append(path)
        elif not path.is_dir():
            (listing.loose if is_image(path) else listing.skipped).append(path)
        elif (name := composed(path.name)) in listing.classes:
            raise UserError(
                f'{shown(folder)}: two folders are named {shown(name)}, which differ only in how '
                'Unicode writes an accent; merge or rename them'
            )
        else:
            listing.classes[name], others = images_below(path)
            listing.skipped.extend(others)
    if not listing.classes:
        found = f'{len(listing.loose)} images, but no folder' if listing.loose else 'no folder'
        raise UserError(
            f'{shown(folder)}: {found} in it; the images of each class belong in a folder named '
            'after it'
        )
    return listing


def list_splits(folder: pathlib.Path) -> dict[str, Listing]:
    """Lists a folder that may be split: {'train', 'val', 'test': Listing}, or else {'': Listing}.

    Raises: UserError where the folder cannot be listed (see list_folder), looks like an incomplete
      split, or has a class in more than one split.
    """
    names = {composed(path.name) for path in visible_folders(folder)}
    if names.issuperset(SPLITS):
        listings = {split: list_folder(folder / split) for split in SPLITS}
        _check_apart(folder, listings)
        return listings
    if names and {name.lower() for name in names} <= LOOK_LIKE_SPLITS:
        raise UserError(
            f'{shown(folder)}: {" and ".join(sorted(names))} look like a split, which needs the '
            'folders train, val and test, with a folder per class in each; or name one of them '
            'instead, and its classes are split'
        )
    return {'': list_folder(folder)}


def left_out(folder: pathlib.Path, listings: Mapping[str, Listing]) -> Iterator[str]:
    """Yields what belongs to no class, or holds no image, as 'what: names'."""
    if '' not in listings and (
        others := [path.name for path in visible_folders(folder) if path.name not in SPLITS]
    ):
        yield f'{counted(len(others), "folder")} beside train, val and test: {listed(others)}'
    if loose := [path.name for listing in listings.values() for path in listing.loose]:
        yield f'{counted(len(loose), "image")} in no class folder: {listed(loose)}'
    if empty := [
        name
        for listing in listings.values()
        for name, paths in listing.classes.items()
        if not paths
    ]:
        yield f'{counted(len(empty), "class")} without images: {listed(empty)}'


def visible_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """Lists the folders directly in `folder`, sorted.

    Raises: UserError where there is no such folder.
    """
    return [
        path
        for path in _in_order(_entries(folder), folder)
        if path.is_dir() and not is_hidden(path)
    ]


def images_below(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Lists (images, other files) of a folder, however deep, each sorted.

    Links to folders are not followed: they can lead in circles.

    Raises: UserError where there is no such folder.
    """
    images, others = [], []
    folders = [folder]
    while folders:
        for path in _entries(folders.pop()):
            if is_hidden(path):
                others.append(path)
            elif path.is_dir():
                (others if path.is_symlink() else folders).append(path)
            else:
                (images if is_image(path) else others).append(path)
    return _in_order(images, folder), _in_order(others, folder)


def is_image(path: pathlib.Path) -> bool:
    """Whether a file is named as an image."""
    return path.suffix.lower() in ENDINGS


def is_hidden(path: pathlib.Path) -> bool:
    """Whether a file or folder is not the user's own."""
    return path.name.startswith('.') or path.name in LEFT_BEHIND


def composed(name: str) -> str:
    """Returns a name in Unicode's composed form: systems list é as one character or as two."""
    return unicodedata.normalize('NFC', name)


def name_in(path: pathlib.Path, folder: pathlib.Path) -> str:
    """Returns the path of a file from `folder` on, composed and with forward slashes."""
    return composed(path.relative_to(folder).as_posix())


def _check_apart(folder, listings):
    splits = collections.defaultdict(list)
    for split, listing in listings.items():
        for name in listing.classes:
            splits[name].append(split)
    if twice := {name: of for name, of in splits.items() if len(of) > 1}:
        name, of = next(iter(twice.items()))
        raise UserError(
            f'{shown(folder)}: {counted(len(twice), "class")} in more than one split, such as '
            f'{shown(name)} in {" and ".join(of)}; few-shot learners are tested on classes they '
            f'never saw. Keep each class in one, or name {shown(folder / "train")} instead, and '
            'its classes are split'
        )


def _entries(folder):
    if not folder.is_dir():
        reason = 'not a folder' if folder.exists() else 'no such folder'
        raise UserError(f'{shown(folder)}: {reason}')
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UserError(f'{shown(folder)}: cannot be listed ({error.strerror})') from error


def _in_order(paths: Iterable[pathlib.Path], folder: pathlib.Path) -> list[pathlib.Path]:
    # Names that differ only in Unicode form are told apart by the bare path.
    return sorted(paths, key=lambda path: (name_in(path, folder), str(path)))
