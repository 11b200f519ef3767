"""CelebA (Liu et al. 2015): small images of aligned faces, without classes."""

import pathlib

import numpy as np
import tensorflow as tf

from maml_tf.datasets.raw.prepared import check_count, prepared, whole
from maml_tf.episodes.class_images import ClassImages
from maml_tf.episodes.images import ImageClasses
from maml_tf.terminal import progress

HEIGHT, WIDTH = 218, 178
SPLITS = {'train': 'train', 'val': 'validation', 'test': 'test'}
BATCH = 500  # images


def celeba(data_dir: str | pathlib.Path | None = None, image_size: int = 32) -> ImageClasses:
    """Returns the 162,770 / 19,867 / 19,962 images of train / val / test, all of a split one class.

    The central 178x178 of 218x178 pixels, resized bilinearly with antialiasing. This crop is
    common, but whether that of Garnelo et al. 2018 is the same was not verified. A split is read
    once, when it is first needed; at 32x32 the largest takes 500 MB.

    Args:
      data_dir: a TensorFlow Datasets directory; None: TFDS's own default, downloaded to where it is
        missing.
      image_size: side of the images in pixels.
    Raises: ArgumentError where `data_dir` holds no prepared celeb_a.
    """
    import tensorflow_datasets as tfds

    builder = prepared('celeb_a', data_dir, 'CelebA')

    def load(split):
        total = builder.info.splits[SPLITS[split]].num_examples
        examples = builder.as_dataset(
            split=SPLITS[split],
            read_config=tfds.ReadConfig(try_autocache=False),
            decoders=tfds.decode.PartialDecoding(
                {'image': True}, {'image': tfds.decode.SkipDecoding()}
            ),
        )
        squares = examples.map(
            lambda example: _square(example['image'], image_size),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        batches = progress.bar(
            squares.batch(BATCH).prefetch(2).as_numpy_iterator(),
            f'reading CelebA {split}',
            total=-(-total // BATCH),
            delay=3,
            leave=False,
        )
        images = np.empty([total, image_size, image_size, 3], np.uint8)
        read = 0
        for pixels in batches:
            images[read : read + len(pixels)] = pixels
            read += len(pixels)
        check_count(read, total)
        return ClassImages(images, np.array([total]))

    return ImageClasses(whole(builder.data_path, 'CelebA', load), (image_size, image_size, 3))


def _square(jpeg, size):
    """Decodes the central square of an image as uint8 [size, size, 3]."""
    top = (HEIGHT - WIDTH) // 2
    square = tf.image.decode_and_crop_jpeg(
        jpeg, [top, 0, WIDTH, WIDTH], channels=3, dct_method='INTEGER_ACCURATE'
    )
    return tf.cast(tf.round(tf.image.resize(square, (size, size), antialias=True)), tf.uint8)
