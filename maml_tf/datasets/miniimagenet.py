"""miniImageNet with the classes of Ravi and Larochelle 2017, prepared from raw files."""

import pathlib

import numpy as np
import tensorflow_datasets as tfds

from maml_tf.datasets.raw import miniimagenet as raw_miniimagenet
from maml_tf.datasets.raw.images import SIDE
from maml_tf.datasets.raw.manual_builder import ManualBuilder, batches, prepared_builder
from maml_tf.datasets.raw.prepared import check_count, whole
from maml_tf.datasets.raw.splits import class_names
from maml_tf.episodes.class_images import ClassImages
from maml_tf.episodes.images import ImageClasses

LISTS = raw_miniimagenet.LISTS


class MiniImagenet(ManualBuilder):
    """100 classes of ImageNet at 84x84, 64 / 16 / 20 for training, validation and test.

    The split is that of Ravi and Larochelle 2017. `index` numbers the images of a split class by
    class, so that their order does not depend on that of the files.
    """

    VERSION = tfds.core.Version('1.0.0')
    TITLE = 'miniImageNet'
    find = staticmethod(raw_miniimagenet.find)

    def _info(self):
        names = [name for split in class_names(LISTS).values() for name in split]
        return self._image_info(
            tfds.features.ClassLabel(names=names),
            homepage='https://openreview.net/forum?id=rJY0-Kcll',
        )


def miniimagenet(
    data_dir: str | pathlib.Path | None = None, manual_dir: str | pathlib.Path | None = None
) -> ImageClasses:
    """Returns miniImageNet, prepared once from `manual_dir`; a split is read when it is needed.

    Classes are named by their WordNet ids, images by their numbers.

    Args:
      data_dir: the TensorFlow Datasets directory that holds the prepared set or receives it; None:
        TFDS's own.
      manual_dir: the folder with the raw files, in one of the layouts of raw/miniimagenet.py; None:
        TFDS's `downloads/manual` in the data directory.
    Raises:
      ArgumentError: neither the prepared set nor the raw files are there.
      UserError: a raw file is bad.
    """
    builder = prepared_builder(MiniImagenet, data_dir, manual_dir)

    def load(split):
        images = np.empty([builder.info.splits[split].num_examples, SIDE, SIDE, 3], np.uint8)
        labels = np.empty(len(images), int)
        read = 0
        for batch in batches(builder, split):
            images[batch['index']] = batch['image']
            labels[batch['index']] = batch['label']
            read += len(batch['index'])
        check_count(read, len(images))
        sizes = np.unique(labels, return_counts=True)[1]
        return ClassImages(images, sizes, class_names(LISTS)[split])

    return ImageClasses(whole(builder.data_path, builder.TITLE, load), (SIDE, SIDE, 3))
