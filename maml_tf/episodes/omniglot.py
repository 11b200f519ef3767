"""Omniglot (Lake et al. 2015) through TensorFlow Datasets, with the conventions of the MAML reference."""
import pathlib

import numpy as np
import tensorflow as tf

from maml_tf.episodes.images import ImageClasses
from maml_tf.episodes.splits import class_names
from maml_tf.errors import UserError

SIDE = 28


def omniglot(data_dir=None):
    """All 1623 characters x 20 drawings as 28x28, ink 1 on background 0, split 1100 / 100 / 423 at random.

    The pixels are the reference's: it names Lanczos, but Pillow resizes its 1-bit images by nearest neighbour,
    which `tf.image.resize` repeats exactly. Its split depends on the order of a directory listing; here the
    list under data/omniglot_cbfinn is fixed. One quarter turn per class and task, in every split.

    Args:
      data_dir: a TensorFlow Datasets directory; None: TFDS's own default, downloaded to where it is missing.
    Raises:
      UserError: `data_dir` holds no prepared omniglot.
    """
    import tensorflow_datasets as tfds  # Here, since the import takes seconds and the sinusoid needs none of it.
    builder = _builder(tfds, data_dir)
    names = [f'{alphabet}/character{number + 1:02d}' for alphabet, number in _characters(builder)]
    return ImageClasses.from_arrays(_images(tfds, builder), split_numbers(names), rotate=True)


def split_numbers(names):
    """The cbfinn split as numbers into `names`, those of all characters."""
    numbers = {name: i for i, name in enumerate(names)}
    return {split: [numbers[name] for name in listed] for split, listed in class_names('omniglot_cbfinn').items()}


def _builder(tfds, data_dir):
    builder = tfds.builder('omniglot', data_dir=data_dir)
    if not builder.is_prepared():
        # With a wrong directory TFDS would retry a download for minutes and leave debris in it.
        if data_dir is not None:
            raise UserError(
                f'--data_dir={data_dir}: no prepared Omniglot, looked for {pathlib.Path(builder.data_path)}. '
                "Get it with  python -c \"import tensorflow_datasets as tfds; tfds.load('omniglot')\"  on a machine "
                'with network access, and name the directory it reports')
        builder.download_and_prepare()
    return builder


def _characters(builder):
    """(alphabet, number within the alphabet) by label: TFDS names its labels Alphabet_number."""
    for label in builder.info.features['label'].names:
        alphabet, number = label.rsplit('_', 1)
        yield alphabet, int(number)


def _images(tfds, builder):
    """uint8 [1623, 20, 28, 28, 1], ink 255, in the order of the labels."""
    def small(example):
        image = tf.image.decode_png(example['image'], channels=1)
        return tf.image.resize(image, (SIDE, SIDE), method='nearest'), example['label']
    examples = builder.as_dataset(split='train+test', decoders={'image': tfds.decode.SkipDecoding()})
    batches = examples.map(small, num_parallel_calls=tf.data.AUTOTUNE).batch(1000).as_numpy_iterator()
    images, labels = (np.concatenate(parts) for parts in zip(*batches))
    characters = len(builder.info.features['label'].names)
    by_label = images[np.argsort(labels, kind='stable')]
    return 255 - by_label.reshape(characters, -1, SIDE, SIDE, 1)
