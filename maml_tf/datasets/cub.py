"""CUB-200-2011 (Wah et al. 2011): images of 200 species of birds, and the species' attributes."""

import concurrent.futures
import io
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from maml_tf.datasets.raw.memory_map import gathered
from maml_tf.datasets.raw.prepared import prepared, whole
from maml_tf.datasets.raw.splits import class_names
from maml_tf.episodes.class_images import ClassImages
from maml_tf.episodes.images import ImageClasses
from maml_tf.errors import ArgumentError, UserError
from maml_tf.terminal.text import described

if TYPE_CHECKING:
    import tensorflow as tf
    import tensorflow_datasets as tfds

CLASS_SPLITS = ('cub', 'cub_meta_dataset')
ATTRIBUTES = 312
BATCH = 64  # images decoded at a time


def cub(
    data_dir: str | pathlib.Path | None = None, image_size: int = 84, class_split: str = 'cub'
) -> ImageClasses:
    """Returns CUB's training and test images together, 41 to 60 of each class.

    The whole image is resized to a square with Lanczos, whatever its proportions; grey becomes RGB.
    Neither bounding boxes nor segmentations are used. The images of a class are sorted by file
    name. Where the whole set is larger than 1 GB (1.8 at 224x224), each split is written into a
    .npy file beside the prepared set, once, and streams from there.

    Args:
      data_dir: a TensorFlow Datasets directory; None: TFDS's own default, downloaded to where it is
        missing.
      image_size: side of the images in pixels.
      class_split: 'cub' (100 / 50 / 50; Chen et al. 2019, "A closer look at few-shot
        classification") or 'cub_meta_dataset' (140 / 30 / 30; Triantafillou et al. 2020).
    Raises:
      ArgumentError: `data_dir` holds no prepared caltech_birds2011, or there is no such split.
      UserError: an image of the prepared set is damaged.
    """
    if class_split not in CLASS_SPLITS:
        raise ArgumentError('class_split', class_split, f'CUB has {" and ".join(CLASS_SPLITS)}')
    builder = prepared(
        'caltech_birds2011', data_dir, 'CUB', needs=('cv2', 'opencv-python-headless')
    )
    shape = (image_size, image_size, 3)
    paths = []

    def load(split):
        if not paths:  # One reading of the names serves all splits.
            batches = _features(builder, 'image/filename').batch(1000).as_numpy_iterator()
            paths.extend(
                sorted(_path(name) for batch in batches for name in batch['image/filename'])
            )
        names = class_names(class_split)[split]
        of_class = {name: [path for path in paths if path[0] == name] for name in names}
        chosen = sum(of_class.values(), [])
        images = gathered(
            pathlib.Path(builder.data_dir, 'maml_tf', f'{class_split}-{split}-{image_size}.npy'),
            len(chosen),
            shape,
            _resized(builder, names, chosen, image_size),
            len(paths),
        )
        sizes = np.array([len(of_class[name]) for name in names])
        return ClassImages(images, sizes, names, [file for _, file in chosen])

    return ImageClasses(whole(builder.data_path, 'CUB', load), shape)


def _features(builder: 'tfds.core.DatasetBuilder', *names: str) -> 'tf.data.Dataset':
    """Returns these features of all examples; images are left encoded."""
    import tensorflow_datasets as tfds

    decoders = tfds.decode.PartialDecoding(
        dict.fromkeys(names, True),
        {'image': tfds.decode.SkipDecoding()} if 'image' in names else None,
    )
    return builder.as_dataset(
        split='train+test', decoders=decoders, read_config=tfds.ReadConfig(try_autocache=False)
    )


def _path(name):
    """Returns (class name, file name) of TFDS's b'CUB_200_2011/images/<class>/<file>'.

    TFDS's labels have no such names.
    """
    return tuple(name.decode().split('/')[-2:])


def _resized(builder, names, chosen, size) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """Yields (numbers into `chosen`, uint8 images of that size), of the classes `names` alone."""
    import tensorflow as tf

    numbers = {path: i for i, path in enumerate(chosen)}
    labels = [int(name.split('.')[0]) - 1 for name in names]
    is_wanted = tf.constant(np.isin(np.arange(builder.info.features['label'].num_classes), labels))
    examples = _features(builder, 'image', 'image/filename', 'label').filter(
        lambda example: tf.gather(is_wanted, example['label'])
    )
    decoded = lambda path, encoded: _decoded(path, encoded, size)
    # Pillow lets others run while it decodes.
    with concurrent.futures.ThreadPoolExecutor() as threads:
        for batch in examples.batch(BATCH).as_numpy_iterator():
            paths = [_path(name) for name in batch['image/filename']]
            images = list(threads.map(decoded, paths, batch['image']))
            yield [numbers[path] for path in paths], images


def _decoded(path, encoded, size):
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return np.asarray(image.convert('RGB').resize((size, size), Image.Resampling.LANCZOS))
    except Exception as error:  # Pillow's plug-ins raise many types on damaged files.
        raise UserError(
            f'CUB: {"/".join(path)} is not a whole image ({described(error)}); prepare it anew'
        ) from error


def attributes(manual_dir: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Reads how often each attribute was seen in images of each class, for zero-shot learning.

    TFDS's set lacks the attributes; they come from the archive that it is made of.

    Args:
      manual_dir: the folder that holds CUB_200_2011/, with classes.txt and
        attributes/class_attribute_labels_continuous.txt in it.
    Returns: {class name: float32 [312]}, in percent, unnormalised.
    Raises:
      ArgumentError: one of the files is not in `manual_dir`.
      UserError: one of them is not what CUB's looks like.
    """
    folder = pathlib.Path(manual_dir, 'CUB_200_2011').expanduser()
    expected = sorted(name for names in class_names('cub').values() for name in names)
    classes = folder / 'classes.txt'
    rows = [line.split() for line in _lines(classes, manual_dir)]
    if rows != [[str(i), name] for i, name in enumerate(expected, start=1)]:
        raise UserError(
            f'{classes}: not the {len(expected)} lines of CUB-200-2011, "1 {expected[0]}" and so on'
        )
    table = folder / 'attributes' / 'class_attribute_labels_continuous.txt'
    values = [
        _percentages(line, f'{table}: line {number}')
        for number, line in enumerate(_lines(table, manual_dir), start=1)
    ]
    if len(values) != len(expected):
        raise UserError(
            f'{table}: {len(values)} lines, not one for each of the {len(expected)} classes'
        )
    return dict(zip(expected, values))


def _percentages(line, place):
    try:
        values = np.array(line.split(), np.float32)
    except ValueError:
        raise UserError(f'{place} is not {ATTRIBUTES} numbers') from None
    if len(values) != ATTRIBUTES or not ((values >= 0) & (values <= 100)).all():
        raise UserError(f'{place} is not {ATTRIBUTES} numbers from 0 to 100')
    return values


def _lines(path, manual_dir):
    try:
        return path.read_text('utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(
            'manual_dir',
            manual_dir,
            f'{path} cannot be read ({error}); CUB_200_2011.tgz holds it, and data/README.md says '
            'where that is',
        ) from None
