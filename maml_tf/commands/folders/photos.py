"""The photos that a learner is adapted to, and the images to classify, as it is to see them."""

import pathlib
from collections.abc import Sequence

import numpy as np

from maml_tf.commands.folders.rows import by_ending
from maml_tf.datasets.raw import listing
from maml_tf.datasets.raw.image_files import Preparation, read_prepared
from maml_tf.errors import ArgumentError, UserError
from maml_tf.terminal import progress
from maml_tf.terminal.text import counted, listed, shown

LOOKED_FOR = f'looked for {" ".join(listing.ENDINGS)}'


def photos_by_class(support: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Lists {class name: [paths]} of the folder to adapt to, and prints what is left out.

    Raises:
      UserError: there is no such folder, or no folder in it.
      ArgumentError: a class is empty, or there is only one.
    """
    folder = listing.list_folder(support)
    _print_left_out(support, folder.skipped)
    if folder.loose:
        names = listed([path.name for path in folder.loose])
        print(f'Left out {counted(len(folder.loose), "image")} in no class folder: {names}')
    for name, paths in folder.classes.items():
        if not paths:
            raise ArgumentError(
                'support',
                shown(support),
                f'no image in {shown(name)}, {LOOKED_FOR}; add photos of it or remove the folder',
            )
    if len(folder.classes) == 1:
        raise ArgumentError(
            'support',
            shown(support),
            f'one class only, {shown(*folder.classes)}; a classifier needs two',
        )
    return folder.classes


def images_to_classify(classify: pathlib.Path) -> list[pathlib.Path]:
    """Lists the paths of all images in a folder, however deep, and prints what is left out.

    Raises: ArgumentError where there is none.
    """
    if not classify.is_dir():
        raise ArgumentError('classify', shown(classify), 'not a folder')
    paths, others = listing.images_below(classify)
    _print_left_out(classify, others)
    if not paths:
        raise ArgumentError('classify', shown(classify), f'no image in it, {LOOKED_FOR}')
    return paths


def _print_left_out(folder, others):
    # What is hidden is the system's, and nobody misses it.
    if others := [path for path in others if not listing.is_hidden(path)]:
        print(f'Left out of {shown(folder)} {by_ending(others, "file")}')


class Reader:
    """Reads image files as the pixels that a learner was trained on.

    Attributes:
      read, inverted: how many images were read, and how many of them inverted.
    """

    def __init__(self, preparation: Preparation):
        self._preparation = preparation
        self.read = 0
        self.inverted = 0

    def support(
        self, folder: pathlib.Path, classes: dict[str, list[pathlib.Path]]
    ) -> dict[str, np.ndarray]:
        """Returns {class name: float32 [n, side, side, channels]} of photos, from 0 to 1.

        What cannot be read is left out, and all of it is printed.

        Raises: ArgumentError where that leaves nothing of a class.
        """
        photos, unreadable = {}, []
        for name, paths in classes.items():
            _, photos[name], errors = self(paths)
            unreadable += errors
        _print_unreadable('photo', unreadable)
        if empty := [name for name, images in photos.items() if not len(images)]:
            reason = f'no photo of {listed(empty)} can be read; add some or remove the folder'
            raise ArgumentError('support', shown(folder), reason)
        return photos

    def queries(
        self, folder: pathlib.Path, paths: Sequence[pathlib.Path]
    ) -> tuple[list[pathlib.Path], np.ndarray]:
        """Returns (the paths that can be read, their images [n, side, side, channels]).

        What cannot be read is left out, and all of it is printed.

        Raises: ArgumentError where that leaves nothing.
        """
        kept, images, unreadable = self(paths)
        _print_unreadable('image', unreadable)
        if not kept:
            raise ArgumentError('classify', shown(folder), 'no image in it can be read')
        return kept, images

    def __call__(
        self, paths: Sequence[pathlib.Path]
    ) -> tuple[list[pathlib.Path], np.ndarray, list[str]]:
        """Returns (the paths that can be read, float32 [n, side, side, channels] from 0 to 1, a
        message for each that cannot)."""
        bar = progress.bar(paths, 'reading', unit=' images', delay=3, leave=False)
        results = [(path, self._read(path)) for path in bar]
        good = [(path, image) for path, image in results if not isinstance(image, UserError)]
        side, channels = self._preparation.side, self._preparation.channels
        images = np.empty([len(good), side, side, channels], np.float32)
        for number, (_, image) in enumerate(good):
            self.read += 1
            if self._preparation.inverts(image):
                self.inverted += 1
                image = 255 - image
            images[number] = image / np.float32(255)
        unreadable = [str(error) for _, error in results if isinstance(error, UserError)]
        return [path for path, _ in good], images, unreadable

    def _read(self, path):
        try:
            return read_prepared(path, self._preparation)
        except UserError as error:
            return error


def _print_unreadable(noun, errors):
    """Prints all that is left out: one file a run would take as many runs as files."""
    if errors:
        print(f'Left out {counted(len(errors), noun)} that cannot be read:')
        for error in errors:
            print(f'  {error}')
