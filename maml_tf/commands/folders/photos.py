"""The photos that a learner is adapted to, and the images to classify, as it is to see them."""

import pathlib
from collections.abc import Sequence

import numpy as np

from maml_tf.datasets.raw import listing
from maml_tf.datasets.raw.image_files import read_image
from maml_tf.errors import ArgumentError
from maml_tf.terminal import progress
from maml_tf.terminal.text import shown

MIDDLE = 127.5  # grey, between dark and bright
LOOKED_FOR = f'looked for {" ".join(listing.ENDINGS)}'


def photos_by_class(support: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Lists {class name: [paths]} of the folder to adapt to, and prints what is left out.

    Raises:
      UserError: there is no such folder, or no folder in it.
      ArgumentError: a class is empty, or there is only one.
    """
    folder = listing.list_folder(support)
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
    left_out = [path for path in folder.loose + folder.skipped if not path.name.startswith('.')]
    if left_out:
        print(
            f'Left out: {len(left_out)} files that are in no class or no image, such as '
            f'{shown(left_out[0])}'
        )
    return folder.classes


def images_to_classify(classify: pathlib.Path) -> list[pathlib.Path]:
    """Lists the paths of all images in a folder, however deep.

    Raises: ArgumentError where there is none.
    """
    if not classify.is_dir():
        raise ArgumentError('classify', shown(classify), 'not a folder')
    paths, _ = listing.images_below(classify)
    if not paths:
        raise ArgumentError('classify', shown(classify), f'no image in it, {LOOKED_FOR}')
    return paths


class Reader:
    """Reads image files as the pixels that a learner was trained on.

    Args:
      input_shape: (side, side, channels) of its images.
      ink: 'bright' or 'dark', where it was trained on drawings; None: it was trained on others.
      invert: 'true' or 'false': exchange black and white; 'auto': of images whose paper is not that
        of the learner's drawings.
    Attributes:
      read, inverted: how many images were read, and how many of them inverted.
    """

    def __init__(self, input_shape: tuple[int, int, int], ink: str | None, invert: str):
        self._side, _, self._channels = input_shape
        self._ink = ink
        self._invert = invert
        self.read = 0
        self.inverted = 0

    def __call__(self, paths: Sequence[pathlib.Path]) -> np.ndarray:
        """Returns float32 [n, side, side, channels] from 0 to 1.

        Raises: UserError that names a file that is not a whole image.
        """
        images = np.empty([len(paths), self._side, self._side, self._channels], np.float32)
        bar = progress.bar(paths, 'reading', unit='image', delay=3, leave=False)
        for number, path in enumerate(bar):
            image = read_image(path, self._side, self._channels)
            self.read += 1
            if self._is_inverted(image):
                self.inverted += 1
                image = 255 - image
            images[number] = image / np.float32(255)
        return images

    def _is_inverted(self, image):
        if self._invert != 'auto':
            return self._invert == 'true'
        if self._channels == 3 or self._ink is None:
            return False
        # Most of a drawing is paper.
        return bool(image.mean() > MIDDLE) == (self._ink == 'bright')
