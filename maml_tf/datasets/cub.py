"""CUB-200-2011 (Wah et al. 2011), 200 species of birds, through TensorFlow Datasets; and its
attributes."""

import concurrent.futures
import io
import pathlib

import numpy as np
from PIL import Image

from maml_tf.datasets.raw.memory_map import gathered
from maml_tf.datasets.raw.prepared import prepared
from maml_tf.datasets.splits import class_names
from maml_tf.episodes.images import ClassImages, ImageClasses
from maml_tf.errors import UserError

ATTRIBUTES = 312
BATCH = 64  # images decoded at a time


def cub(data_dir=None, side=84, class_split='cub'):
    """CUB's training and test images together, 41 to 60 of each class, as ImageClasses.

    The whole image is resized to side x side with Lanczos, whatever its proportions; grey becomes
    RGB. Neither bounding boxes nor segmentations are used. The images of a class are sorted by file
    name. Where the whole set is larger than 1 GB (1.8 at 224x224), each split is written into a
    .npy file beside the prepared set, once, and streams from there.

    Args:
      data_dir: a TensorFlow Datasets directory; None: TFDS's own default, downloaded to where it is
        missing.
      class_split: 'cub' (100 / 50 / 50; Chen et al. 2019, "A closer look at few-shot
        classification") or 'cub_meta_dataset' (140 / 30 / 30; Triantafillou et al. 2020).
    Raises:
      UserError: `data_dir` holds no prepared caltech_birds2011, or an image in it is damaged.
    """
    builder = prepared(
        'caltech_birds2011', data_dir, 'CUB', needs=('cv2', 'opencv-python-headless')
    )
    paths = []

    def load(split):
        if not paths:  # One reading of the names serves all splits.
            batches = _features(builder, 'image/filename').batch(1000).as_numpy_iterator()
            paths.extend(
                sorted(_path(name) for batch in batches for name in batch['image/filename'])
            )
        names = class_names(class_split)[split]
        of_class = {name: [path for path in paths if path[0] == name] for name in names}
        listed = sum(of_class.values(), [])
        cache = pathlib.Path(builder.data_dir, 'maml_tf', f'{class_split}-{split}-{side}.npy')
        images = gathered(
            cache, len(listed), (side, side, 3), _resized(builder, names, listed, side), len(paths)
        )
        return ClassImages(
            images, [len(of_class[name]) for name in names], names, [file for _, file in listed]
        )

    return ImageClasses(load, (side, side, 3))


def _features(builder, *names):
    """A tf.data.Dataset of all examples, these features of theirs alone; images are left
    encoded."""
    import tensorflow_datasets as tfds

    decoders = tfds.decode.PartialDecoding(
        dict.fromkeys(names, True),
        {'image': tfds.decode.SkipDecoding()} if 'image' in names else None,
    )
    return builder.as_dataset(
        split='train+test', decoders=decoders, read_config=tfds.ReadConfig(try_autocache=False)
    )


def _path(name):
    """(class name, file name): TFDS has b'CUB_200_2011/images/<class>/<file>', and its labels have
    no such names."""
    return tuple(name.decode().split('/')[-2:])


def _resized(builder, names, listed, side):
    """Yields (numbers into `listed`, uint8 images of that side), of the classes `names` and no
    other."""
    import tensorflow as tf

    numbers = {path: i for i, path in enumerate(listed)}
    is_wanted = tf.constant(
        np.isin(
            np.arange(builder.info.features['label'].num_classes),
            [int(name.split('.')[0]) - 1 for name in names],
        )
    )
    examples = _features(builder, 'image', 'image/filename', 'label').filter(
        lambda example: tf.gather(is_wanted, example['label'])
    )
    with (
        concurrent.futures.ThreadPoolExecutor() as threads
    ):  # Pillow lets others run while it decodes.
        for batch in examples.batch(BATCH).as_numpy_iterator():
            paths = [_path(name) for name in batch['image/filename']]
            yield (
                [numbers[path] for path in paths],
                list(
                    threads.map(
                        lambda path, encoded: _decoded(path, encoded, side), paths, batch['image']
                    )
                ),
            )


def _decoded(path, encoded, side):
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return np.asarray(image.convert('RGB').resize((side, side), Image.Resampling.LANCZOS))
    except Exception as error:  # Pillow's plug-ins raise many types on damaged files.
        raise UserError(
            f'CUB: {"/".join(path)} is not a whole image ({type(error).__name__}: {error}); '
            'prepare it '
            'anew'
        ) from error


def attributes(manual_dir):
    """{class name: float32 [312]}, how often each attribute was seen in images of the class, in
    percent, unnormalised.

    TFDS's set lacks them; they come from the archive that it is made of, for zero-shot learning.

    Args:
      manual_dir: the folder that holds CUB_200_2011/, with classes.txt and
        attributes/class_attribute_labels_continuous.txt in it.
    Raises:
      UserError: one of them is missing or not what CUB's looks like.
    """
    folder = pathlib.Path(manual_dir, 'CUB_200_2011').expanduser()
    expected = sorted(name for names in class_names('cub').values() for name in names)
    classes, table = (
        folder / 'classes.txt',
        folder / 'attributes' / 'class_attribute_labels_continuous.txt',
    )
    rows = [line.split() for line in _lines(classes)]
    if rows != [[str(i), name] for i, name in enumerate(expected, start=1)]:
        raise UserError(
            f'{classes}: not the {len(expected)} lines of CUB-200-2011, "1 {expected[0]}" and so on'
        )
    values = []
    for number, line in enumerate(_lines(table), start=1):
        try:
            values.append(np.array(line.split(), np.float32))
        except ValueError:
            raise UserError(f'{table}: line {number} is not {ATTRIBUTES} numbers') from None
        if len(values[-1]) != ATTRIBUTES or not ((values[-1] >= 0) & (values[-1] <= 100)).all():
            raise UserError(f'{table}: line {number} is not {ATTRIBUTES} numbers from 0 to 100')
    if len(values) != len(expected):
        raise UserError(
            f'{table}: {len(values)} lines, not one for each of the {len(expected)} classes'
        )
    return dict(zip(expected, values))


def _lines(path):
    try:
        return path.read_text('utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f'--manual_dir: {path} cannot be read ({error}); CUB_200_2011.tgz holds it, and '
            'data/README.md '
            'says where that is'
        ) from None
