"""CelebA (Liu et al. 2015), aligned faces, through TensorFlow Datasets: small images without
classes."""

import numpy as np
import tensorflow as tf

from maml_tf.episodes.images import ClassImages, ImageClasses
from maml_tf.terminal import progress

HEIGHT, WIDTH = 218, 178
SPLITS = {'train': 'train', 'val': 'validation', 'test': 'test'}


def celeba(data_dir=None, side=32):
    """The 162,770 / 19,867 / 19,962 images of train / val / test as ImageClasses, all of a split
    one class.

    The central 178x178 of 218x178 pixels, resized bilinearly with antialiasing. This crop is
    common, but whether that of Garnelo et al. 2018 is the same was not verified. A split is read
    once, when it is first needed; at 32x32 the largest takes 500 MB.

    Args:
      data_dir: a TensorFlow Datasets directory; None: TFDS's own default, downloaded to where it is
        missing.
    Raises:
      UserError: `data_dir` holds no prepared celeb_a.
    """
    import tensorflow_datasets as tfds

    from maml_tf.datasets.raw.prepared import prepared

    builder = prepared('celeb_a', data_dir, 'CelebA')

    def shrink(example):
        top = (HEIGHT - WIDTH) // 2
        square = tf.image.decode_and_crop_jpeg(
            example['image'], [top, 0, WIDTH, WIDTH], channels=3, dct_method='INTEGER_ACCURATE'
        )
        return tf.cast(tf.round(tf.image.resize(square, (side, side), antialias=True)), tf.uint8)

    def load(split):
        total = builder.info.splits[SPLITS[split]].num_examples
        examples = builder.as_dataset(
            split=SPLITS[split],
            read_config=tfds.ReadConfig(try_autocache=False),
            decoders=tfds.decode.PartialDecoding(
                {'image': True}, {'image': tfds.decode.SkipDecoding()}
            ),
        )
        batches = examples.map(shrink, num_parallel_calls=tf.data.AUTOTUNE).batch(500).prefetch(2)
        images, end = np.empty([total, side, side, 3], np.uint8), 0
        batches = progress.bar(
            batches.as_numpy_iterator(),
            f'reading CelebA {split}',
            total=-(-total // 500),
            delay=3,
            leave=False,
        )
        for pixels in batches:
            start, end = end, end + len(pixels)
            images[start:end] = pixels
        return ClassImages(images, np.array([total]))

    return ImageClasses(load, (side, side, 3))
