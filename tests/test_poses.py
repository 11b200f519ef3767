"""Poses of objects: those that are drawn, and those of files as the released code writes them."""

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from command import ROOT, run_maml
from PIL import Image
from raw_files import dump
from test_bad_input import refused_here

from maml_tf.datasets.objects import pose_files
from maml_tf.datasets.objects.pose import pose
from maml_tf.datasets.objects.rendered_pose import (
    BLOBS,
    ELEVATION,
    TURN,
    RenderedPose,
    Shapes,
    pictures,
    shapes,
)
from maml_tf.episodes.random_bits import KEYS, Stream
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import ArgumentError, UserError
from maml_tf.networks.encoded import NOISE, EncodedNetwork

SPEC = EpisodeSpec(1, 3, 4)

# Drawn objects


def one_blob(place, zero=0.0):
    """An object of one blob that is to be seen."""
    places = np.zeros([1, BLOBS, 3], np.float32)
    places[0, 0] = place
    brightness = np.eye(1, BLOBS, dtype=np.float32)
    return Shapes(*map(tf.constant, (places, brightness, np.float32([zero]))))


def centre(picture):
    """(row, column) of the middle of a picture's light, in units of the scene."""
    grid = np.linspace(-1.2, 1.2, len(picture))
    total = picture.sum()
    return (picture.sum(1) * grid).sum() / total, (picture.sum(0) * grid).sum() / total


@pytest.mark.parametrize('degrees', [0, 40, 90, 215])
def test_a_blob_lies_where_the_rays_fall(degrees):
    angle = np.float32(np.radians(degrees))
    x, y, z = place = 0.5, -0.2, 0.3
    (picture,) = pictures(one_blob(place), tf.constant([[angle]]), 61).numpy()[0, ..., 0]
    # Turned about the upright axis, then looked at from above.
    across = x * np.cos(angle) - y * np.sin(angle)
    away = x * np.sin(angle) + y * np.cos(angle)
    up = z * np.cos(ELEVATION) + away * np.sin(ELEVATION)
    np.testing.assert_allclose(centre(picture), (-up, across), atol=5e-3)
    near = z * np.sin(ELEVATION) - away * np.cos(ELEVATION)
    light = 1 / (1 + np.exp(-2 * near))
    assert picture.max() == pytest.approx(1 - np.exp(-light), abs=5e-3)


def test_a_picture_in_numpy():
    """The sum over all blobs, pixel by pixel."""
    drawn = shapes(Stream(0, 'train', 6), 0, 2)
    turned = tf.constant([[0.1, 2.0], [3.0, 5.0]])
    found = pictures(drawn, turned, 9).numpy()
    grid = np.linspace(-1.2, 1.2, 9)
    for i in range(2):
        for view in range(2):
            light = np.zeros([9, 9])
            angle = float(turned[i, view])
            for (x, y, z), bright in zip(drawn.places[i].numpy(), drawn.brightness[i].numpy()):
                across = x * np.cos(angle) - y * np.sin(angle)
                away = x * np.sin(angle) + y * np.cos(angle)
                up = z * np.cos(ELEVATION) + away * np.sin(ELEVATION)
                near = z * np.sin(ELEVATION) - away * np.cos(ELEVATION)
                squares = (grid[:, None] + up) ** 2 + (grid[None] - across) ** 2
                light += bright / (1 + np.exp(-2 * near)) * np.exp(-squares / (2 * 0.16**2))
            np.testing.assert_allclose(found[i, view, ..., 0], 1 - np.exp(-light), atol=1e-5)


def test_the_label_is_the_angle_from_the_object_s_own_zero():
    source = RenderedPose(objects=0, side=8)
    task = source.tasks('test', SPEC, 5)(7, 2)
    drawn = shapes(Stream(5, 'test', 6), 7, 2)
    turned = drawn.zero[:, None] + task.support_y[..., 0] * (TURN / 10)
    np.testing.assert_allclose(task.support_x, pictures(drawn, turned, 8), atol=1e-5)
    labels = np.concatenate([task.support_y, task.query_y], 1)
    assert labels.shape == (2, 7, 1) and labels.min() >= 0 and labels.max() < 10
    assert len(np.unique(labels)) == labels.size


def owners(source, split, seed, known, count=30):
    """Of which of some objects the pictures of each task are; -1: of none."""
    task = source.tasks(split, SPEC, seed)(0, count)
    numbers = []
    for x, y in zip(task.support_x, task.support_y[..., 0]):
        turned = known.zero[:, None] + y[None] * (TURN / 10)
        far = np.abs(pictures(known, turned, source.side) - x[None]).max((1, 2, 3, 4))
        numbers.append(int(np.argmin(far)) if far.min() < 1e-5 else -1)
    return numbers


def test_training_objects_are_few_and_the_same_for_every_seed():
    source, endless = RenderedPose(objects=3, side=12), RenderedPose(objects=0, side=12)
    known = shapes(Stream(0, 'train', 6), 0, 3)
    first, other = owners(source, 'train', 0, known), owners(source, 'train', 1, known)
    assert {*first} == {*other} == {0, 1, 2} and first != other
    assert {*owners(source, 'test', 0, known)} == {-1}
    of_stream = shapes(Stream(4, 'train', 6), 0, 30)
    assert owners(endless, 'train', 4, of_stream) == [*range(30)]
    # The same tasks of evaluation, however many objects were trained on.
    for split in ('val', 'test'):
        one, same = (s.tasks(split, SPEC, 1)(0, 3) for s in (source, endless))
        assert endless.side == source.side
        np.testing.assert_array_equal(one.query_x, same.query_x)


def test_tasks_are_functions_of_their_number():
    source = RenderedPose(objects=4, side=6)
    for split in ('train', 'val'):
        draw = source.tasks(split, SPEC, 3)
        several, later = draw(0, 5), draw(tf.constant(3, tf.int64), 2)
        for part, same in zip(several[:4], later[:4]):
            np.testing.assert_allclose(part[3:], same, atol=1e-6)
        np.testing.assert_array_equal(several.key, Stream(3, split, KEYS).bits(0, 5, 2))
        compiled = tf.function(draw, jit_compile=True)(tf.constant(0, tf.int64), 5)
        for part, same in zip(several[:4], compiled[:4]):
            np.testing.assert_allclose(part, same, atol=2e-6)
    masked = source.tasks('train', EpisodeSpec(1, 3, 4, least_shot=1), 3)(0, 20)
    assert {*masked.support_mask.numpy().sum(1)} == {1, 2, 3}


def test_arguments():
    for arguments, name in (({'objects': -1}, 'objects'), ({'side': 4}, 'image_size')):
        with pytest.raises(ArgumentError) as error:
            RenderedPose(**arguments)
        assert error.value.argument == name


# The network


def test_the_network_in_numpy():
    network = EncodedNetwork((4,), 1, norm='None', conv=False, code=3, bottleneck=True)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=w.shape) for name, w in network.construct_weights(0).items()}
    x, noise = rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 5, 3))
    relu = lambda a: np.maximum(a, 0)
    hidden = relu(x @ weights['encoder_w1'] + weights['encoder_b1'])
    both = hidden @ weights['encoder_w2'] + weights['encoder_b2']
    mean, deviation = both[..., :3], np.log1p(np.exp(both[..., 3:]))

    def head(code):
        for i in (1, 2):
            code = relu(code @ weights[f'w{i}'] + weights[f'b{i}'])
        return code @ weights['w3'] + weights['b3']

    tensors = {name: tf.constant(w) for name, w in weights.items()}
    np.testing.assert_allclose(network.forward(tf.constant(x), tensors), head(mean), rtol=1e-9)
    drawn = network.forward(tf.constant(x), tensors | {NOISE: tf.constant(noise)})
    np.testing.assert_allclose(drawn, head(mean + deviation * noise), rtol=1e-9)


def test_the_published_network_s_sizes():
    network = EncodedNetwork((128, 128, 1), 1)
    shapes_of = {name: w.shape for name, w in network.construct_weights(0).items()}
    assert shapes_of['encoder_conv3'] == (3, 3, 48, 64) and shapes_of['encoder_w1'] == (4096, 196)
    assert shapes_of['conv1'] == (3, 3, 1, 64) and shapes_of['w5'] == (64, 1)
    assert {n for n in shapes_of if network.is_head(n)} == {'w5', 'b5'}
    x = tf.constant(np.random.default_rng(0).uniform(size=(1, 2, 128, 128, 1)), tf.float32)
    outputs = network.forward(
        x, {n: tf.constant(w) for n, w in network.construct_weights(0).items()}
    )
    assert outputs.shape == (1, 2, 1) and np.all(np.isfinite(outputs))
    for arguments in ({'code': 10}, {'joined': 3}):
        with pytest.raises(ArgumentError):
            EncodedNetwork((8, 8, 1), 1, **arguments)
    with pytest.raises(ArgumentError, match='5 pixels'):
        EncodedNetwork((4, 4, 1), 1)


# Files


def written(folder, objects=(11, 4), pictures_of=9, side=8, names=pose_files.PICKLES[1], **how):
    """Pickles as the released code writes them; returns what they hold, of training and test."""
    rng, held = np.random.default_rng(0), []
    for name, count in zip(names, objects):
        images = [
            [rng.integers(0, 256, (side, side), np.uint8) for _ in range(pictures_of)]
            for _ in range(count)
        ]
        labels = rng.uniform(size=(count, pictures_of, 3))
        # Every picture tells its own angle: its first pixel, of 256 parts of a turn.
        for i in range(count):
            for j in range(pictures_of):
                labels[i, j, 2] = images[i][j][0, 0] / 256
        dump([images, labels.tolist()], folder / name, **how)
        held.append((np.array(images), labels))
    return held


@pytest.mark.parametrize('how', [{}, {'python': 2, 'protocol': 2}])
@pytest.mark.parametrize('names', pose_files.PICKLES)
def test_pickles_as_the_released_code_writes_them(tmp_path, names, how):
    (images, labels), (test_images, _) = written(tmp_path, names=names, **how)
    source = pose(tmp_path, 8)
    assert set(source.splits) == {'train', 'val', 'test'}
    for split, of_split in (
        ('train', images[:10]),
        ('val', images[10:]),
        ('trainval', images),
        ('test', test_images),
    ):
        task = source.tasks(split, SPEC, 0)(0, 120)
        assert task.support_x.shape == (120, 3, 8, 8, 1)
        x = np.concatenate([task.support_x, task.query_x], 1)
        y = np.concatenate([task.support_y, task.query_y], 1)
        np.testing.assert_allclose(y[..., 0] / 10, np.round(x[..., 0, 0, 0] * 255) / 256, atol=1e-6)
        found = set()
        for of_task in np.round(x[..., 0] * 255).astype(np.uint8):
            owners = {
                i for p in of_task for i, o in enumerate(of_split) if (o == p).all((1, 2)).any()
            }
            assert len(owners) == 1 and len({p.tobytes() for p in of_task}) == 7
            found |= owners
        assert found == set(range(len(of_split)))


def test_flat_pictures_and_one_label(tmp_path):
    for name in pose_files.PICKLES[1]:
        images = np.arange(3 * 8 * 64, dtype=np.uint8).reshape(3, 8, 64)
        dump((images, np.full([3, 8, 1], 0.25)), tmp_path / name)
    task = pose(tmp_path, 8).tasks('test', SPEC, 0)(0, 2)
    assert task.support_x.shape == (2, 3, 8, 8, 1) and np.all(task.support_y.numpy() == 2.5)


def test_folders(tmp_path):
    for split, count in (('train', 3), ('test', 1)):
        for number in range(count):
            (folder := tmp_path / split / f'chair {number}').mkdir(parents=True)
            for degrees in (0, 36, 90, 180.5, 270, 350, -90):
                pixels = np.full([10, 10], degrees % 360 / 360 * 255)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f'{degrees}.png')
    source = pose(tmp_path, 10)
    assert set(source.splits) == {'train', 'val', 'test'}
    task = source.tasks('test', SPEC, 0)(0, 3)
    np.testing.assert_allclose(task.query_x[:, :, 0, 0] * 10, task.query_y, atol=0.05)
    (tmp_path / 'train' / 'chair 0' / '0.png').rename(tmp_path / 'train' / 'chair 0' / 'front.png')
    with pytest.raises(UserError, match='front.png.*degrees'):
        pose(tmp_path, 10)


def test_objects_that_do_not_fit(tmp_path):
    with pytest.raises(ArgumentError) as error:
        pose(tmp_path)
    assert error.value.argument == 'data_dir' and 'train_data.pkl' in str(error.value)
    with pytest.raises(ArgumentError, match='name the folder'):
        pose(None)
    written(tmp_path)
    with pytest.raises(UserError, match='not uint8 of 16x16'):
        pose(tmp_path, 16)
    with pytest.raises(ArgumentError) as error:
        pose(tmp_path, 8).tasks('train', EpisodeSpec(1, 5, 5), 0)
    assert error.value.argument == 'shot'


class Bomb:
    def __reduce__(self):
        return os.system, ('touch exploded',)


IMAGES, LABELS = np.zeros([2, 4, 8, 8], np.uint8), np.full([2, 4, 3], 0.5)


@pytest.mark.parametrize(
    'content, words',
    [
        (7, 'expected a pair'),
        ([IMAGES], 'expected a pair'),
        ((IMAGES, LABELS[:1]), 'labels of 1'),
        ((IMAGES.astype(float), LABELS), 'not uint8'),
        ((IMAGES, LABELS[:, :3]), 'labels are'),
        ((IMAGES, LABELS * 20), 'a full turn being 1'),
        ((IMAGES, LABELS * np.nan), 'a full turn being 1'),
        ((IMAGES, [['x'] * 4] * 2), 'expected a pair'),
        (Bomb(), 'refused'),
        (([], []), 'pictures of 0 objects'),
    ],
)
def test_pickles_of_something_else(tmp_path, monkeypatch, content, words):
    monkeypatch.chdir(tmp_path)
    for name in pose_files.PICKLES[0]:
        (tmp_path / name).write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=words):
        pose(tmp_path, 8)
    assert not (tmp_path / 'exploded').exists()


def test_a_file_cut_short(tmp_path):
    written(tmp_path)
    file = tmp_path / 'train_data.pkl'
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(UserError, match='not a whole pickle'):
        pose(tmp_path, 8)


def test_other_objects_are_another_run(tmp_path):
    identities = set()
    for objects in ((11, 4), (12, 4)):
        (folder := tmp_path / str(objects)).mkdir()
        written(folder, objects)
        identities |= {pose(folder, 8).identity, pose(folder, 8).identity}
    assert len(identities) == 2
    assert len(identities.pop()) == 12


# The command line


COMMAND = [
    *('--datasource=pose', '--data_dir=poses', '--image_size=8', '--num_filters=4'),
    *('--update_batch_size=3', '--meta_batch_size=2', '--update_lr=0.002', '--num_updates=2'),
    *('--test_num_updates=3', '--test_tasks=4', '--metatrain_iterations=3', '--logdir=logs'),
]


@pytest.mark.slow
@pytest.mark.parametrize('algorithm', ['maml', 'mr_maml'])
def test_the_command_line_on_pickles(tmp_path, algorithm):
    (tmp_path / 'poses').mkdir()
    written(tmp_path / 'poses')
    command = [*COMMAND, f'--algorithm={algorithm}', '--train_on=trainval', '--test_set=True']
    printed = run_maml(*command, cwd=tmp_path).stdout
    assert 'Mean squared error on 4 pose test tasks, 3-shot' in printed
    (run,) = (tmp_path / 'logs').iterdir()
    results = json.loads((run / 'results.json').read_text())
    assert len(results['mean']) == 4 and results['protocol']['split'] == 'test'


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--datasource=pose'], ['--data_dir', 'name the folder']),
        (['--datasource=pose', '--data_dir=here'], ['--data_dir=here', 'train_data.pkl']),
        (['--datasource=rendered_pose', '--algorithm=cavia'], ['--algorithm=cavia', 'mr_maml']),
        (['--datasource=sinusoid', '--task_count=9'], ['--task_count=9', 'rendered_pose']),
        (['--datasource=rendered_pose', '--image_size=3'], ['--image_size=3', '5 pixels']),
        (['--datasource=rendered_pose', '--task_count=100001'], ['--task_count=100001']),
    ],
)
def test_what_is_refused(tmp_path, arguments, words):
    refused_here(tmp_path, arguments, *words)


def memorisation(*arguments, cwd, expect=0):
    """Runs `python -m maml_tf.commands.memorisation`."""
    environment = os.environ | {'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, '-m', 'maml_tf.commands.memorisation', *arguments]
    result = subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True)
    assert result.returncode == expect, result.stdout + result.stderr
    return result


@pytest.mark.slow
def test_memorisation_of_runs(tmp_path):
    """On new tasks the command gives what the evaluation gave; on training tasks other numbers."""
    command = [
        *('--datasource=rendered_pose', '--norm=None', '--conv=False', '--image_size=8'),
        *('--task_count=2', '--update_batch_size=4', '--update_lr=0.01', '--test_num_updates=2'),
        *('--metatrain_iterations=30', '--test_tasks=30', '--test_set=True', '--logdir=logs'),
    ]
    run_maml(*command, cwd=tmp_path)
    (run,) = (tmp_path / 'logs').iterdir()
    ours = ['--tasks=30', '--picture=both.png', f'MAML={run}', f'{run}@1']
    lines = memorisation(*ours, cwd=tmp_path).stdout.splitlines()
    assert (tmp_path / 'both.png').stat().st_size > 10_000
    maml, once = (line.split() for line in lines[1:3])
    assert (maml[0], once[0]) == ('MAML', f'{run}@1')
    means = json.loads((run / 'results.json').read_text())['mean']
    found = [float(maml[i]) for i in (1, 4, 7, 10)]
    assert found[2:] == pytest.approx([means[0], means[-1]], abs=1e-4)
    assert found[:2] != found[2:] and float(once[10]) == pytest.approx(means[1], abs=1e-4)
    for arguments, words in (
        ([str(tmp_path)], 'no run directory'),
        (['--tasks=1', str(run)], '--tasks=1'),
        ([str(run), str(run)], 'two runs of this name'),
    ):
        assert words in memorisation(*arguments, cwd=tmp_path, expect=1).stderr
