"""tieredImageNet (Ren et al. 2018), prepared from raw files."""

import pathlib

import numpy as np
import tensorflow_datasets as tfds

from maml_tf.datasets.raw import tieredimagenet as raw_tieredimagenet
from maml_tf.datasets.raw.images import SIDE
from maml_tf.datasets.raw.manual_builder import ManualBuilder, batches, prepared_builder
from maml_tf.datasets.raw.memory_map import memory_mapped
from maml_tf.datasets.raw.prepared import whole
from maml_tf.episodes.class_images import ClassImages
from maml_tf.episodes.images import ImageClasses


class TieredImagenet(ManualBuilder):
    """608 classes of ImageNet at 84x84, 351 / 97 / 160 for training, validation and test.

    No super-category has classes in two splits. `index` numbers the images of a split class by
    class, so that their order does not depend on that of the files. The metadata name the classes
    of each split, and give their sizes and super-categories.
    """

    VERSION = tfds.core.Version('1.0.0')
    TITLE = 'tieredImageNet'
    find = staticmethod(raw_tieredimagenet.find)

    def _info(self):
        return self._image_info(
            tfds.features.ClassLabel(num_classes=608),
            metadata=tfds.core.MetadataDict(),
            homepage='https://arxiv.org/abs/1803.00676',
        )

    def _raw_splits(self, manual_dir):
        splits = super()._raw_splits(manual_dir)
        for split, raw in splits.items():
            sizes = dict.fromkeys(raw.class_names, 0)
            for image in raw.images:
                sizes[image.label] += 1
            self.info.metadata[split] = {
                'class_names': raw.class_names,
                'sizes': list(sizes.values()),
                'groups': raw.groups,
            }
        return splits


def tieredimagenet(
    data_dir: str | pathlib.Path | None = None, manual_dir: str | pathlib.Path | None = None
) -> ImageClasses:
    """Returns tieredImageNet, whose images stream from a file: a split can take 9.5 GB.

    The raw files are prepared once, as PNGs; when a split is first needed its pixels are written
    beside them, once. Classes are named by their WordNet ids, or as the raw files name them where
    they have no ids; groups are the super-categories, or None where the raw files do not tell them
    (raw/tieredimagenet.py). Which task has which index depends on the order of the classes, and so
    on which of the two the set was prepared from.

    Args:
      data_dir: the TensorFlow Datasets directory that holds the prepared set or receives it; None:
        TFDS's own.
      manual_dir: the folder with the raw files, in one of the layouts of raw/tieredimagenet.py;
        None: TFDS's `downloads/manual` in the data directory.
    Raises:
      ArgumentError: neither the prepared set nor the raw files are there.
      UserError: a raw file is bad.
    """
    builder = prepared_builder(TieredImagenet, data_dir, manual_dir)

    def load(split):
        classes = builder.info.metadata[split]
        pixels = memory_mapped(
            builder.data_path / f'{split}.npy',
            builder.info.splits[split].num_examples,
            (SIDE, SIDE, 3),
            ((batch['index'], batch['image']) for batch in batches(builder, split)),
        )
        groups = classes['groups']
        return ClassImages(
            pixels,
            np.array(classes['sizes']),
            classes['class_names'],
            groups=None if groups is None else np.array(groups),
        )

    return ImageClasses(whole(builder.data_path, builder.TITLE, load), (SIDE, SIDE, 3))
