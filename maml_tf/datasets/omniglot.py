"""Omniglot (Lake et al. 2015) through TensorFlow Datasets, in each of the conventions that papers
use."""

import dataclasses

import numpy as np

from maml_tf.datasets.splits import class_names
from maml_tf.episodes.images import ClassImages, ImageClasses
from maml_tf.episodes.sampling import ROTATIONS
from maml_tf.errors import UserError
from maml_tf.terminal import progress

# The rotations that go with each split unless told otherwise: the reference's, Vinyals', Lake's
# own.
SPLITS = {'cbfinn': 'per_class', 'vinyals': 'classes', 'lake': 'none'}
RESIZE = ('nearest', 'box', 'bilinear', 'bicubic', 'lanczos')
SIDES = (20, 28, 105)


@dataclasses.dataclass(frozen=True)
class Convention:
    """What papers do with the same drawings; the defaults are the MAML reference's.

    split: 'cbfinn' (1100 / 100 / 423 characters at random; the reference's depends on the order of
      a directory listing, here the list under data/ is fixed), 'vinyals' (1028 / 172 / 423, whole
      alphabets but one, the lists of the Prototypical Networks' authors) or 'lake' (964 / none /
      659, the background and evaluation alphabets).
    rotations, test_rotations: in training, and in validation and test; see sampling.ROTATIONS.
      None: the split's own, and the same as in training.
    side: 28, 20 (Santoro et al. 2016) or 105 (as drawn; Koch et al. 2015).
    ink: 'bright', ink 1 on background 0; 'dark', ink 0 on 1 (Reptile, iMAML, Relation Network).
    resize: the filter. Papers that name Lanczos on the 1-bit files got 'nearest', to which Pillow
      falls back.
    """

    split: str = 'cbfinn'
    rotations: str | None = None
    test_rotations: str | None = None
    side: int = 28
    ink: str = 'bright'
    resize: str = 'nearest'


def omniglot(data_dir=None, convention=Convention()):
    """1623 characters x 20 drawings, as ImageClasses; groups are the alphabets.

    Args:
      data_dir: a TensorFlow Datasets directory; None: TFDS's own default, downloaded to where it is
        missing.
    Raises:
      UserError: `data_dir` holds no prepared omniglot.
    """
    from maml_tf.datasets.raw.prepared import prepared

    builder = prepared('omniglot', data_dir, 'Omniglot')
    training = convention.rotations or SPLITS[convention.split]
    splits = tuple(characters(builder, convention.split))
    rotations = {
        split: training if split == 'train' else convention.test_rotations or training
        for split in splits
    }
    drawings = []

    def load(split):
        if not drawings:  # One reading serves all splits.
            drawings.append(_drawings(builder, convention))
        numbers = characters(builder, convention.split)[split]
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

    return ImageClasses(load, (convention.side, convention.side, 1), splits, rotations)


def characters(builder, split):
    """{'train', ...: numbers of the characters} of a split, a label being a number."""
    numbers = {name: i for i, name in enumerate(_names(builder))}
    return {
        part: [numbers[name] for name in listed]
        for part, listed in class_names(f'omniglot_{split}').items()
    }


def _names(builder):
    """Alphabet/characterNN by label, as in the original folders: TFDS names its labels
    Alphabet_number, from 0."""
    for_label = (label.rsplit('_', 1) for label in builder.info.features['label'].names)
    return [f'{alphabet}/character{int(number) + 1:02d}' for alphabet, number in for_label]


def _drawings(builder, convention):
    """uint8 [1623, 20, side, side, 1], in the order of the labels, and of the prepared files within
    a character."""
    import tensorflow as tf
    import tensorflow_datasets as tfds
    from PIL import Image

    size = (convention.side, convention.side)
    total = sum(builder.info.splits[split].num_examples for split in ('train', 'test'))
    grey = lambda example: (
        tf.image.decode_png(example['image'], channels=1)[..., 0],
        example['label'],
    )
    examples = builder.as_dataset(
        split='train+test', decoders={'image': tfds.decode.SkipDecoding()}
    )
    batches = (
        examples.map(grey, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(500)
        .prefetch(2)
        .as_numpy_iterator()
    )
    images, labels = np.empty([total, *size], np.uint8), np.empty(total, int)
    end = 0
    for pixels, numbers in progress.bar(
        batches, 'reading Omniglot', total=-(-total // 500), delay=3, leave=False
    ):
        start, end = end, end + len(numbers)
        images[start:end] = [
            Image.fromarray(image).resize(size, Image.Resampling[convention.resize.upper()])
            for image in pixels
        ]
        labels[start:end] = numbers
    if convention.ink == 'bright':
        images = 255 - images
    return images[np.argsort(labels, kind='stable')].reshape(len(_names(builder)), -1, *size, 1)


def from_flags(flags):
    """The Convention of the command line. Raises UserError where it has no such size or split."""
    split = flags.class_split or Convention.split
    if split not in SPLITS:
        raise UserError(f'--class_split={split}: Omniglot has {", ".join(SPLITS)}')
    side = flags.image_size or Convention.side
    if side not in SIDES:
        raise UserError(f'--image_size={side}: Omniglot is used at {", ".join(map(str, SIDES))}')
    return Convention(split, flags.rotations, flags.test_rotations, side, flags.ink, flags.resize)


def inputs(flags):
    """What an exported model is to be fed, in words."""
    convention = from_flags(flags)
    ink = 'ink 1 on background 0' if convention.ink == 'bright' else 'ink 0 on background 1'
    return f'{convention.side}x{convention.side} images, {ink}'


def define_flags(flags):
    """Flags of Omniglot's conventions."""
    flags.DEFINE_enum(
        'rotations',
        None,
        ROTATIONS,
        'Omniglot: quarter turns in training; classes: each is a class of '
        'its own; per_class: one for each class of a task; per_task: one for all (default: that of '
        '--class_split: cbfinn per_class, vinyals classes, lake none)',
    )
    flags.DEFINE_enum(
        'test_rotations',
        None,
        ROTATIONS,
        'Omniglot: as --rotations, in validation and test (default: as in training)',
    )
    flags.DEFINE_enum(
        'ink', 'bright', ['bright', 'dark'], 'Omniglot: bright ink on 0, or dark ink on 1'
    )
    flags.DEFINE_enum(
        'resize', 'nearest', RESIZE, 'Omniglot: filter that makes the 105x105 drawings smaller'
    )
