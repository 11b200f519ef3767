"""CIFAR-FS and FC100: two splits into classes of CIFAR-100 (Krizhevsky 2009)."""

import functools
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from maml_tf.datasets.raw.prepared import check_records, prepared, whole
from maml_tf.datasets.raw.splits import class_names
from maml_tf.episodes.class_images import ClassImages
from maml_tf.episodes.images import ImageClasses

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

SHAPE = (32, 32, 3)


def cifar_fs(data_dir: str | pathlib.Path | None = None) -> ImageClasses:
    """Returns CIFAR-FS: 64 / 16 / 20 classes, whatever their super-class (Bertinetto et al. 2019).

    Args:
      data_dir: a TensorFlow Datasets directory; None: TFDS's own default, downloaded to where it is
        missing.
    Raises: ArgumentError where `data_dir` holds no prepared cifar100.
    """
    return _source(data_dir, 'cifar_fs', 'label', 'CIFAR-100 (of which CIFAR-FS is made)')


def fc100(data_dir: str | pathlib.Path | None = None) -> ImageClasses:
    """Returns FC100: the 60 / 20 / 20 classes of 12 / 4 / 4 super-classes (Oreshkin et al. 2018).

    Args:
      data_dir: a TensorFlow Datasets directory; None: TFDS's own default, downloaded to where it is
        missing.
    Raises: ArgumentError where `data_dir` holds no prepared cifar100.
    """
    return _source(data_dir, 'fc100', 'coarse_label', 'CIFAR-100 (of which FC100 is made)')


def _source(data_dir, lists, listed, title):
    """Returns 600 images of each class, CIFAR-100's training and test images together.

    Classes are in the order of the list, those of a super-class in that of their labels; groups are
    the super-classes' numbers. The images of a class are sorted by their TFDS id, so nothing
    depends on the order of the prepared files.

    Args:
      lists: folder of the published split under data/.
      listed: what it lists, 'label' or 'coarse_label'.
    """
    builder = prepared('cifar100', data_dir, title)

    @functools.cache
    def check():
        """Checks what all splits are read from, once."""
        _check_names(builder)
        check_records(builder, ('train', 'test'))

    def load(split):
        check()
        wanted = [
            builder.info.features[listed].names.index(name) for name in class_names(lists)[split]
        ]
        examples = _read(builder, listed, wanted)
        ids = np.char.decode(examples['id'].astype(bytes))
        place = [wanted.index(number) for number in examples[listed]]
        order = np.lexsort([ids, examples['label'], place])
        labels, groups = examples['label'][order], examples['coarse_label'][order]
        firsts = np.flatnonzero(np.diff(labels, prepend=-1))
        names = builder.info.features['label'].names
        return ClassImages(
            examples['image'][order],
            np.diff(firsts, append=len(labels)),
            [names[label] for label in labels[firsts]],
            ids[order].tolist(),
            groups[firsts],
        )

    return ImageClasses(whole(builder.data_path, title, load), SHAPE)


def _check_names(builder: 'tfds.core.DatasetBuilder') -> None:
    """Raises ValueError where the names of the labels, which no checksum guards, are damaged."""
    for feature, lists in (('label', 'cifar_fs'), ('coarse_label', 'fc100')):
        known = sorted(name for names in class_names(lists).values() for name in names)
        if list(builder.info.features[feature].names) != known:
            raise ValueError(f'{feature}.labels.txt does not list the {len(known)} classes')


def _read(
    builder: 'tfds.core.DatasetBuilder', listed: str, wanted: list[int]
) -> dict[str, np.ndarray]:
    """Reads the examples whose `listed` is in `wanted`; no other image is decoded."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    is_wanted = tf.constant(np.isin(np.arange(builder.info.features[listed].num_classes), wanted))
    examples = builder.as_dataset(
        split='train+test',
        decoders={'image': tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    decoded = examples.filter(lambda example: tf.gather(is_wanted, example[listed])).map(
        lambda example: (
            example | {'image': tf.ensure_shape(tf.image.decode_png(example['image']), SHAPE)}
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    batches = list(decoded.batch(1000).as_numpy_iterator())
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
