"""miniImageNet with Ravi and Larochelle's classes, as a TensorFlow Datasets builder with a manual directory."""
import contextlib
import io
import pathlib
import sys
import tempfile

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from maml_tf.episodes.images import ClassImages, ImageClasses
from maml_tf.episodes.raw_miniimagenet import SIDE, find
from maml_tf.episodes.splits import class_names
from maml_tf.errors import UserError

LISTS = 'miniimagenet_ravi'


class MiniImagenet(tfds.core.GeneratorBasedBuilder):
    """100 classes of ImageNet at 84x84, 64 / 16 / 20 for train / val / test (Ravi and Larochelle 2017).

    `index` numbers the images of a split class by class, so that their order does not hang on that of the files.
    """
    VERSION = tfds.core.Version('1.0.0')
    MANUAL_DOWNLOAD_INSTRUCTIONS = 'miniImageNet cannot be downloaded: name the folder that holds it'

    def _info(self):
        names = [name for split in class_names(LISTS).values() for name in split]
        return tfds.core.DatasetInfo(
            builder=self, description=self.__doc__, homepage='https://openreview.net/forum?id=rJY0-Kcll',
            supervised_keys=('image', 'label'), features=tfds.features.FeaturesDict({
                'image': tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format='png'),
                'label': tfds.features.ClassLabel(names=names), 'index': np.int64}))

    def _split_generators(self, dl_manager):
        # Everything that can be seen without reading an image is checked for all splits before the first is read.
        images = {split: _checked(split, path, list_images(path))
                  for split, (path, list_images) in find(dl_manager.manual_dir).items()}
        return {split: self._generate_examples(split, images[split]) for split in images}

    def _generate_examples(self, split, images):
        interval = .1 if sys.stderr.isatty() else 30  # as in training: a log file wants a line now and then
        in_order = sorted(images, key=lambda image: (image.label, image.name))
        for index, image in enumerate(tqdm(in_order, desc=split, unit=' images', mininterval=interval)):
            yield image.name, {'image': image.read(), 'label': image.label, 'index': index}


def _checked(split, path, images):
    """The images, if they are of this split's classes, all of them, and each there once."""
    expected, names = dict.fromkeys(class_names(LISTS)[split], 0), set()
    for image in images:
        if image.label not in expected:
            raise UserError(f'{path}: {image.name} is of class {image.label}, which is not among the {len(expected)} '
                            f'{split} classes of Ravi and Larochelle (data/{LISTS}/{split}.txt)')
        if image.name in names:
            raise UserError(f'{path}: {image.name} is there twice')
        expected[image.label] += 1
        names.add(image.name)
    if missing := [label for label, count in expected.items() if not count]:
        raise UserError(f'{path}: no image of class {missing[0]}; {len(missing)} of the {len(expected)} {split} '
                        f'classes are missing (data/{LISTS}/{split}.txt)')
    return images


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
    if not _is_prepared(builder):
        _prepare(builder, manual_dir)
        builder = MiniImagenet(data_dir=data_dir)

    def load(split):
        images = np.empty([builder.info.splits[split].num_examples, SIDE, SIDE, 3], np.uint8)
        labels = np.empty(len(images), int)
        examples = builder.as_dataset(split=split, read_config=tfds.ReadConfig(try_autocache=False)).batch(500)
        for batch in examples.as_numpy_iterator():
            images[batch['index']], labels[batch['index']] = batch['image'], batch['label']
        return ClassImages(images, np.unique(labels, return_counts=True)[1])
    return ImageClasses(load, (SIDE, SIDE, 3))


def _is_prepared(builder):
    return (builder.data_path / 'dataset_info.json').exists()  # builder.is_prepared() logs a warning if not.


def _prepare(builder, manual_dir):
    """Writes the TFDS set, or leaves nothing behind. Of two processes that do so at once, one's set stays."""
    if builder.data_path.exists():
        raise UserError(f'{builder.data_dir}: a prepared miniImageNet without its dataset_info.json; remove it')
    folder = pathlib.Path(manual_dir or builder.data_dir_root / 'downloads/manual').expanduser()
    try:
        find(folder)  # TFDS would ask for the directory in many lines and make others.
    except UserError as error:
        raise UserError(f'{error}. Nor is it prepared in {builder.data_dir} (--data_dir)') from None
    print(f'Preparing miniImageNet from {folder} in {builder.data_dir}, once')
    tfds.display_progress_bar(False)  # It knows no total and shows long paths.
    try:
        # What TFDS prints says less. Its download directory stays empty.
        with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as downloads:
            builder.download_and_prepare(
                download_dir=downloads, download_config=tfds.download.DownloadConfig(manual_dir=folder))
    except OSError:
        if not _is_prepared(builder):  # else another process was faster, and this one's set was in the way
            raise
    finally:
        tfds.display_progress_bar(True)
        with contextlib.suppress(OSError):  # TFDS removes its incomplete directory, but not an empty one above it.
            pathlib.Path(builder.data_dir).parent.rmdir()
