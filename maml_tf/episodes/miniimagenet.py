"""miniImageNet with Ravi and Larochelle's classes, as a TensorFlow Datasets builder with a manual directory."""
import pathlib

import numpy as np
import tensorflow_datasets as tfds

from maml_tf.episodes.images import ClassImages, ImageClasses
from maml_tf.episodes.raw_miniimagenet import SIDE, reader
from maml_tf.episodes.splits import class_names
from maml_tf.errors import UserError

SPLIT = 'miniimagenet_ravi'


class MiniImagenet(tfds.core.GeneratorBasedBuilder):
    """100 classes of ImageNet at 84x84, 64 / 16 / 20 for train / val / test (Ravi and Larochelle 2017)."""
    VERSION = tfds.core.Version('1.0.0')
    MANUAL_DOWNLOAD_INSTRUCTIONS = 'miniImageNet cannot be downloaded: name the folder that holds it'

    def _info(self):
        names = [name for split in class_names(SPLIT).values() for name in split]
        return tfds.core.DatasetInfo(
            builder=self, description=self.__doc__, homepage='https://openreview.net/forum?id=rJY0-Kcll',
            supervised_keys=('image', 'label'), features=tfds.features.FeaturesDict({
                'image': tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format='png'),
                'label': tfds.features.ClassLabel(names=names), 'name': tfds.features.Text()}))

    def _split_generators(self, dl_manager):
        examples = reader(dl_manager.manual_dir)
        return {split: self._generate_examples(split, examples) for split in class_names(SPLIT)}

    def _generate_examples(self, split, examples):
        expected, seen = set(class_names(SPLIT)[split]), set()
        for name, label, image in examples(split):
            if label not in expected:
                raise UserError(f'{name}: class {label} is not among the {split} classes of Ravi and Larochelle, '
                                f'listed in data/{SPLIT}/{split}.txt (the split of Vinyals et al. has other classes)')
            seen.add(label)
            yield name, {'image': image, 'label': label, 'name': name}
        if missing := sorted(expected - seen):
            raise UserError(f'{len(missing)} of the {len(expected)} {split} classes have no image: {missing[0]} ...')


def miniimagenet(data_dir=None, manual_dir=None):
    """miniImageNet as ImageClasses; prepared once from `manual_dir`, each split read when it is first needed.

    Args:
      data_dir: the TensorFlow Datasets directory that holds the prepared set or receives it; None: TFDS's own.
      manual_dir: the folder with the raw files, in one of the layouts of raw_miniimagenet.py; None: TFDS's
        `downloads/manual` in the data directory.
    Raises:
      UserError: neither the prepared set nor the raw files are there, or a raw file is bad.
    """
    builder = MiniImagenet(data_dir=data_dir)
    if not builder.is_prepared():
        _prepare(builder, manual_dir)

    def load(split):
        names = class_names(SPLIT)[split]
        numbers = builder.info.features['label'].str2int
        rank = {numbers(name): i for i, name in enumerate(names)}
        images = np.empty([builder.info.splits[split].num_examples, SIDE, SIDE, 3], np.uint8)
        labels = np.empty(len(images), int)
        for i, example in enumerate(tfds.as_numpy(builder.as_dataset(split=split))):
            images[i], labels[i] = example['image'], rank[int(example['label'])]
        return ClassImages(images[np.argsort(labels, kind='stable')], np.bincount(labels, minlength=len(names)))
    return ImageClasses(load, (SIDE, SIDE, 3))


def _prepare(builder, manual_dir):
    """Writes the TFDS set. What a failed attempt leaves behind TFDS removes itself."""
    folder = manual_dir or f'{pathlib.Path(builder.data_dir).parents[1]}/downloads/manual'
    reader(folder)  # TFDS would ask for the directory in a long message; ours is one line.
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=folder))
