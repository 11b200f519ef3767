"""Image completion over any images, and CelebA through TFDS's own builder from raw files in the
real layout."""

import io
import math
import zipfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.datasets.celeba import celeba
from maml_tf.episodes.image_completion import ImageCompletion
from maml_tf.episodes.images import ClassImages, ImageClasses
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import UserError
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import metatrain_op
from maml_tf.training.outer_optimizers import adam

HEIGHT, WIDTH, CHANNELS = 5, 7, 3
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 5, HEIGHT, WIDTH, CHANNELS), np.uint8)
SPLITS = {'train': [0, 1, 2, 3], 'val': [4, 5], 'test': [6, 7]}
# A quarter turn of images that are not square would fail.
SOURCE = ImageClasses.from_arrays(IMAGES, SPLITS, 'per_class')
SPEC = EpisodeSpec(1, 6, 9)
VARIED = EpisodeSpec(1, 10, 8, least_shot=3)


def pixels_of(x, height=HEIGHT, width=WIDTH):
    """Positions [tasks, n, 2] -> (rows, columns)."""
    rows, columns = x.numpy()[..., 0] * (height - 1), x.numpy()[..., 1] * (width - 1)
    for numbers in (rows, columns):
        np.testing.assert_allclose(numbers, np.rint(numbers), atol=1e-4)
    return np.rint(rows).astype(int), np.rint(columns).astype(int)


def image_of(task, images):
    """For each task the number of the one image that all of its points are of."""
    numbers = []
    for i in range(len(task.support_x)):
        rows, columns = pixels_of(
            tf.concat([task.support_x[i], task.query_x[i]], 0), *images.shape[1:3]
        )
        y = np.concatenate([task.support_y[i], task.query_y[i]])
        agree = np.abs(images[:, rows, columns] / 255 - y).max((1, 2)) < 1e-6
        assert agree.sum() == 1
        numbers.append(int(agree.argmax()))
    return np.array(numbers)


def test_points_are_pixels_of_one_image():
    task = ImageCompletion(SOURCE).tasks('train', SPEC, 0)(0, 500)
    assert task.support_x.shape == (500, 6, 2) and task.query_y.shape == (500, 9, CHANNELS)
    assert task.support_mask is None and task.query_mask is None
    numbers = image_of(task, IMAGES[:4].reshape(-1, HEIGHT, WIDTH, CHANNELS))
    expected = 500 / 20
    assert np.abs(np.bincount(numbers, minlength=20) - expected).max() < 5 * math.sqrt(expected)
    rows, columns = pixels_of(tf.concat([task.support_x, task.query_x], 1))
    places = np.sort(rows * WIDTH + columns, axis=1)
    assert (np.diff(places, axis=1) > 0).all()
    expected = places.size / (HEIGHT * WIDTH)
    assert np.abs(np.bincount(places.ravel()) - expected).max() < 5 * math.sqrt(expected)


def test_query_contains_support():
    task = ImageCompletion(SOURCE, query_contains_support=True).tasks('val', VARIED, 0)(0, 4000)
    contexts, targets = (
        task.support_mask.numpy().sum(1).astype(int),
        task.query_mask.numpy().sum(1).astype(int),
    )
    for mask in (task.support_mask, task.query_mask):
        assert set(np.unique(mask)) == {0.0, 1.0} and (np.diff(mask) <= 0).all()
    assert contexts.min() == 3 and contexts.max() == 10
    assert np.abs(np.bincount(contexts)[3:] - 500).max() < 5 * math.sqrt(500)
    np.testing.assert_array_equal(targets, contexts + 8)
    np.testing.assert_array_equal(task.query_x[:, :10], task.support_x)
    np.testing.assert_array_equal(task.query_y[:, :10], task.support_y)
    image_of(task.map(lambda x: x[:100]), IMAGES[4:6].reshape(-1, HEIGHT, WIDTH, CHANNELS))


@pytest.mark.parametrize('query_contains_support', [False, True])
def test_whole_image(query_contains_support):
    source = ImageCompletion(SOURCE, query_contains_support)
    spec = EpisodeSpec(1, HEIGHT * WIDTH, HEIGHT * WIDTH, least_shot=1)
    task = source.tasks('test', spec, 0)(0, 30)
    images = IMAGES[6:].reshape(-1, HEIGHT, WIDTH, CHANNELS)
    numbers = image_of(task, images)
    query_y = tf.reshape(task.query_y, [30, HEIGHT, WIDTH, CHANNELS])
    np.testing.assert_allclose(query_y, images[numbers] / 255, atol=1e-6)
    rows, columns = pixels_of(task.query_x)
    assert (rows == np.repeat(np.arange(HEIGHT), WIDTH)).all() and (
        columns == np.tile(np.arange(WIDTH), HEIGHT)
    ).all()
    assert task.query_x.numpy().min() == 0 and task.query_x.numpy().max() == 1
    assert (task.query_mask.numpy() == 1).all() and task.support_mask.shape == (30, HEIGHT * WIDTH)


@pytest.mark.parametrize('spec', [VARIED, EpisodeSpec(1, 10, HEIGHT * WIDTH, least_shot=3)])
def test_a_task_is_a_function_of_its_index(spec):
    draw = ImageCompletion(SOURCE, query_contains_support=True).tasks('val', spec, 3)
    batch, part = draw(0, 9), draw(4, 3)
    compiled = tf.function(draw, jit_compile=True)(tf.constant(4, tf.int64), 3)
    for whole, few, xla in zip(batch, part, compiled):
        if whole is not None:
            np.testing.assert_array_equal(whole[4:7], few)
            np.testing.assert_allclose(few, xla, atol=1e-6)


def test_too_few_pixels():
    with pytest.raises(UserError, match='^shot=20: 20 support . 16 query pixels.*5x7'):
        ImageCompletion(SOURCE).tasks('train', EpisodeSpec(1, 20, 16), 0)
    with pytest.raises(UserError, match='36 support'):
        ImageCompletion(SOURCE).tasks('train', EpisodeSpec(1, 36, 35), 0)


def streamed(path):
    """The training images of SOURCE, left in a file."""
    images = IMAGES[:4].reshape(-1, HEIGHT, WIDTH, CHANNELS)
    np.save(path, images)
    return ImageClasses(
        lambda split: ClassImages(np.load(path, mmap_mode='r'), [5] * 4),
        images.shape[1:],
        ('train',),
    )


def test_streamed_images_make_the_same_tasks(tmp_path):
    sources = SOURCE, streamed(tmp_path / 'images.npy')
    draws = [ImageCompletion(source, True).tasks('train', VARIED, 0) for source in sources]
    assert [draw.streams for draw in draws] == [False, True]
    for in_memory, from_file in zip(*(draw(2, 5) for draw in draws)):
        np.testing.assert_array_equal(in_memory, from_file)


def test_maml_learns(tmp_path):
    source = ImageCompletion(streamed(tmp_path / 'images.npy'))
    learner = MAML(FullyConnected((2,), CHANNELS, (20,)), source.objective, inner_lr=0.05)
    run = iterate(metatrain_op(learner, adam(0.02)), source.tasks('train', SPEC, 0), 8)
    first, last = (float(run(start, 100)['post_loss']) for start in (0, 100))
    assert (
        last < first and last < 0.25
    )  # The values are uniform: of mean square 1/3, of variance 1/12.


# CelebA

PARTITION = [0] * 9 + [1] * 4 + [2] * 3
LANDMARKS = [
    'lefteye_x',
    'lefteye_y',
    'righteye_x',
    'righteye_y',
    'nose_x',
    'nose_y',
    'leftmouth_x',
    'leftmouth_y',
    'rightmouth_x',
    'rightmouth_y',
]
ATTRIBUTES = [
    '5_o_Clock_Shadow',
    'Arched_Eyebrows',
    'Attractive',
    'Bags_Under_Eyes',
    'Bald',
    'Bangs',
    'Big_Lips',
    'Big_Nose',
    'Black_Hair',
    'Blond_Hair',
    'Blurry',
    'Brown_Hair',
    'Bushy_Eyebrows',
    'Chubby',
    'Double_Chin',
    'Eyeglasses',
    'Goatee',
    'Gray_Hair',
    'Heavy_Makeup',
    'High_Cheekbones',
    'Male',
    'Mouth_Slightly_Open',
    'Mustache',
    'Narrow_Eyes',
    'No_Beard',
    'Oval_Face',
    'Pale_Skin',
    'Pointy_Nose',
    'Receding_Hairline',
    'Rosy_Cheeks',
    'Sideburns',
    'Smiling',
    'Straight_Hair',
    'Wavy_Hair',
    'Wearing_Earrings',
    'Wearing_Hat',
    'Wearing_Lipstick',
    'Wearing_Necklace',
    'Wearing_Necktie',
    'Young',
]


def write_celeba(folder):
    """The files that the set's authors distribute, with few images; returns what TFDS calls
    them."""
    rng, names = (
        np.random.default_rng(1),
        [f'{number + 1:06d}.jpg' for number in range(len(PARTITION))],
    )
    with zipfile.ZipFile(folder / 'img_align_celeba.zip', 'w') as archive:
        archive.writestr('img_align_celeba/', '')
        for name in names:
            coarse = Image.fromarray(rng.integers(0, 256, (11, 9, 3), np.uint8))
            file = io.BytesIO()
            coarse.resize((178, 218), Image.Resampling.BICUBIC).save(file, 'JPEG', quality=95)
            archive.writestr(f'img_align_celeba/{name}', file.getvalue())

    def write(name, rows, heading=None):
        lines = [f'{file}  {" ".join(map(str, row))}' for file, row in zip(names, rows)]
        if heading:
            lines = [str(len(names)), ' '.join(heading), *lines]
        (folder / name).write_text('\n'.join(lines) + '\n')

    write('list_eval_partition.txt', [[part] for part in PARTITION])
    write('list_attr_celeba.txt', rng.choice([-1, 1], (len(names), len(ATTRIBUTES))), ATTRIBUTES)
    write(
        'list_landmarks_align_celeba.txt',
        rng.integers(0, 178, (len(names), len(LANDMARKS))),
        LANDMARKS,
    )
    write('identity_CelebA.txt', [[number] for number in range(len(names))])
    return {
        'img_align_celeba': 'img_align_celeba.zip',
        'list_eval_partition': 'list_eval_partition.txt',
        'list_attr_celeba': 'list_attr_celeba.txt',
        'landmarks_celeba': 'list_landmarks_align_celeba.txt',
        'identity_celeba': 'identity_CelebA.txt',
    }


def shrunk(folder, part, side):
    """By Pillow: the images of a part of the raw files."""
    with zipfile.ZipFile(folder / 'img_align_celeba.zip') as archive:
        files = [
            archive.read(f'img_align_celeba/{number + 1:06d}.jpg')
            for number, of in enumerate(PARTITION)
            if of == part
        ]
    crop = lambda file: Image.open(io.BytesIO(file)).crop((0, 20, 178, 198))
    return np.stack(
        [
            np.asarray(crop(file).resize((side, side), Image.Resampling.BILINEAR), int)
            for file in files
        ]
    )


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """(raw folder, TFDS directory)"""
    raw, data_dir = tmp_path_factory.mktemp('raw'), tmp_path_factory.mktemp('tfds')
    files = write_celeba(raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            tfds.download.DownloadManager,
            'download',
            lambda manager, urls: {name: raw / files[name] for name in urls},
        )
        tfds.builder('celeb_a', data_dir=data_dir).download_and_prepare()
    return raw, data_dir


@pytest.mark.parametrize('side', [32, 16])
def test_celeba(prepared, side):
    raw, data_dir = prepared
    source = celeba(data_dir, side)
    assert source.input_shape == (side, side, 3)
    for part, split in enumerate(('train', 'val', 'test')):
        classes = source.split(split)
        images, expected = classes.images.numpy(), shrunk(raw, part, side)
        assert (
            images.dtype == np.uint8
            and images.shape == expected.shape
            and classes.sizes.tolist() == [len(images)]
        )
        distances = np.abs(images[:, None] - expected).max((2, 3, 4))
        # TFDS shuffles; every image is there once. One level: filters round differently.
        assert (
            sorted(distances.argmin(1)) == list(range(len(images))) and distances.min(1).max() <= 1
        )


def test_completion_of_celeba(prepared):
    source = ImageCompletion(celeba(prepared[1]))
    task = source.tasks('train', EpisodeSpec(1, 200, 32 * 32, least_shot=1), 0)(0, 12)
    assert source.output_dim == 3 and task.query_y.shape == (12, 1024, 3)
    assert len(set(image_of(task, source.images.split('train').images.numpy()))) > 3


def test_no_celeba(tmp_path):
    with pytest.raises(UserError, match='^data_dir=.*no prepared CelebA'):
        celeba(tmp_path / 'nowhere')
    assert not list(tmp_path.iterdir())
