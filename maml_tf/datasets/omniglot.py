"""Omniglot (Lake et al. 2015), handwritten characters, in each of the conventions of the papers."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from maml_tf.datasets.raw.image_files import FILTERS, INKS, Preparation
from maml_tf.datasets.raw.prepared import check_count, prepared, whole
from maml_tf.datasets.raw.splits import class_names
from maml_tf.episodes.class_images import ClassImages
from maml_tf.episodes.images import ImageClasses
from maml_tf.episodes.sampling import ROTATIONS
from maml_tf.errors import ArgumentError
from maml_tf.terminal import progress

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

# The rotations that go with each split unless told otherwise: the reference's, Vinyals', Lake's
# own.
CLASS_SPLITS = {'cbfinn': 'per_class', 'vinyals': 'classes', 'lake': 'none'}
DRAWN = 105  # side of the drawings
SIZES = (20, 28, DRAWN)
BATCH = 500  # drawings
TITLE = 'Omniglot'
DRAWINGS = 20  # of each character


@dataclasses.dataclass(frozen=True)
class Convention:
    """Describes how a paper uses the drawings; the defaults are the MAML reference's.

    Args:
      class_split: 'cbfinn' (1100 / 100 / 423 characters at random; the reference's depends on the
        order of a directory listing, here the list under data/ is fixed), 'vinyals' (1028 / 172 /
        423, whole alphabets but one, the lists of the Prototypical Networks' authors) or 'lake'
        (964 / none / 659, the background and evaluation alphabets).
      rotations, test_rotations: in training, and in validation and test; see sampling.ROTATIONS.
        None: the split's own, and the same as in training.
      image_size: side in pixels: 28, 20 (Santoro et al. 2016) or 105 (as drawn; Koch et al. 2015).
      ink: 'bright', ink 1 on background 0; 'dark', ink 0 on 1 (Reptile, iMAML, Relation Network).
      resize: the filter. Papers that name Lanczos on the 1-bit files got 'nearest', to which Pillow
        falls back.
    Raises: ArgumentError where there is no such split, size, ink or filter.
    """

    class_split: str = 'cbfinn'
    rotations: str | None = None
    test_rotations: str | None = None
    image_size: int = 28
    ink: str = 'bright'
    resize: str = 'nearest'

    def __post_init__(self):
        for name, value, choices in (
            ('class_split', self.class_split, CLASS_SPLITS),
            ('image_size', self.image_size, SIZES),
            ('ink', self.ink, INKS),
            ('resize', self.resize, FILTERS),
        ):
            if value not in choices:
                raise ArgumentError(name, value, f'Omniglot has {", ".join(map(str, choices))}')


def omniglot(
    data_dir: str | pathlib.Path | None = None, convention: Convention = Convention()
) -> ImageClasses:
    """Returns 1623 characters with 20 drawings of each; groups are the alphabets.

    Args:
      data_dir: a TensorFlow Datasets directory; None: TFDS's own default, downloaded to where it is
        missing.
    Raises:
      ArgumentError: `data_dir` holds no prepared omniglot.
      UserError: it is damaged, which may show when a split is read.
    """
    builder = prepared('omniglot', data_dir, TITLE)
    training = convention.rotations or CLASS_SPLITS[convention.class_split]
    splits = tuple(whole(builder.data_path, TITLE, characters)(builder, convention.class_split))
    rotations = {
        split: training if split == 'train' else convention.test_rotations or training
        for split in splits
    }
    drawings = []

    def load(split):
        if not drawings:  # One reading serves all splits.
            drawings.append(_drawings(builder, convention))
        numbers = characters(builder, convention.class_split)[split]
        names = _names(builder)
        alphabets = sorted({name.split('/')[0] for name in names})
        images = drawings[0][numbers]
        chosen = [names[number] for number in numbers]
        return ClassImages(
            images.reshape(-1, *images.shape[2:]),
            np.full(len(images), images.shape[1]),
            chosen,
            groups=np.array([alphabets.index(name.split('/')[0]) for name in chosen]),
        )

    shape = (convention.image_size, convention.image_size, 1)
    return ImageClasses(whole(builder.data_path, TITLE, load), shape, splits, rotations)


def characters(builder: 'tfds.core.DatasetBuilder', class_split: str) -> dict[str, list[int]]:
    """Returns {'train', ...: numbers of the characters} of a split, a label being a number."""
    numbers = {name: i for i, name in enumerate(_names(builder))}
    return {
        part: [numbers[name] for name in listed]
        for part, listed in class_names(f'omniglot_{class_split}').items()
    }


def _names(builder):
    """Returns Alphabet/characterNN by label, as in the original folders.

    TFDS names its labels Alphabet_number, from 0.
    """
    for_label = (label.rsplit('_', 1) for label in builder.info.features['label'].names)
    return [f'{alphabet}/character{int(number) + 1:02d}' for alphabet, number in for_label]


def _drawings(builder, convention):
    """Reads uint8 [1623, 20, size, size, 1].

    They are in the order of the labels, and of the prepared files within a character.
    """
    from PIL import Image

    size = (convention.image_size, convention.image_size)
    names = _names(builder)
    total = sum(builder.info.splits[split].num_examples for split in ('train', 'test'))
    check_count(total, DRAWINGS * len(names))
    images = np.empty([total, *size], np.uint8)
    labels = np.full(total, -1)
    batches = progress.bar(
        _batches(builder), 'reading Omniglot', total=-(-total // BATCH), delay=3, leave=False
    )
    for number, (drawings, of_drawings) in enumerate(batches):
        batch = slice(number * BATCH, number * BATCH + len(drawings))
        images[batch] = [
            Image.fromarray(drawing).resize(size, Image.Resampling[convention.resize.upper()])
            for drawing in drawings
        ]
        labels[batch] = of_drawings
    check_count(np.count_nonzero(labels >= 0), total)
    if convention.ink == 'bright':
        images = 255 - images
    return images[np.argsort(labels, kind='stable')].reshape(len(names), DRAWINGS, *size, 1)


def _batches(builder):
    """Yields (drawings uint8 [n, 105, 105], labels [n]) of the whole set."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    examples = builder.as_dataset(
        split='train+test', decoders={'image': tfds.decode.SkipDecoding()}
    )
    grey = lambda example: (
        tf.image.decode_png(example['image'], channels=1)[..., 0],
        example['label'],
    )
    decoded = examples.map(grey, num_parallel_calls=tf.data.AUTOTUNE)
    return decoded.batch(BATCH).prefetch(2).as_numpy_iterator()


def from_flags(flags) -> Convention:
    """Returns the Convention of the command line.

    Raises: ArgumentError where Omniglot has no such split or size.
    """
    return Convention(
        flags.class_split or Convention.class_split,
        flags.rotations,
        flags.test_rotations,
        flags.image_size or Convention.image_size,
        flags.ink,
        flags.resize,
    )


def inputs(flags) -> str:
    """Returns what an exported model is to be fed, in words."""
    convention = from_flags(flags)
    ink = 'ink 1 on background 0' if convention.ink == 'bright' else 'ink 0 on background 1'
    return f'{convention.image_size}x{convention.image_size} images, {ink}'


def preparation(flags) -> Preparation:
    """Returns how a drawing becomes an input: of the size of Omniglot's own, then as in training.

    Raises: ArgumentError where Omniglot has no such split or size.
    """
    convention = from_flags(flags)
    size, ink = convention.image_size, convention.ink
    return Preparation(size, 1, 'centre', convention.resize, DRAWN, ink)


def define_flags(flags) -> None:
    """Defines the flags of Omniglot's conventions."""
    flags.DEFINE_enum(
        'rotations',
        None,
        ROTATIONS,
        'Omniglot: quarter turns in training; classes: each is a class of its own; per_class: one '
        'for each class of a task; per_task: one for all (default: that of --class_split: cbfinn '
        'per_class, vinyals classes, lake none)',
    )
    flags.DEFINE_enum(
        'test_rotations',
        None,
        ROTATIONS,
        'Omniglot: as --rotations, in validation and test (default: as in training)',
    )
    flags.DEFINE_enum('ink', 'bright', INKS, 'Omniglot: bright ink on 0, or dark ink on 1')
    flags.DEFINE_enum(
        'resize', 'nearest', FILTERS, 'Omniglot: filter that makes the 105x105 drawings smaller'
    )
