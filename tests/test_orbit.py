"""ORBIT: its layout, tasks of one user, and whole videos; of files that the test writes."""

import csv
import json

import numpy as np
import pytest
import tensorflow as tf
from command import run_here
from PIL import Image
from test_bad_input import refused_here

from maml_tf.algorithms.metric.prototypical import Prototypical
from maml_tf.datasets.objects import orbit_files
from maml_tf.datasets.objects.orbit import orbit
from maml_tf.datasets.objects.sampling import UserSampler, VideoSizes
from maml_tf.datasets.raw import memory_map
from maml_tf.episodes.task import BatchSpec, EpisodeSpec, SequenceSpec
from maml_tf.errors import UserError
from maml_tf.evaluation.videos import metrics, scores
from maml_tf.networks.encoders import conv4
from maml_tf.objectives.classification import MeanClassification

SIDE = 16
USERS = {'train': 3, 'validation': 2, 'test': 3}
CLEAN, CLUTTER = (7, 4, 5), (6, 9)  # frames of each object's videos


def write(folder, users=USERS, objects=lambda user: 3 + user % 2, noise=True):
    """The layout; a frame's green is its object, its red the kind and video, its blue the time."""
    rng = np.random.default_rng(0)
    for split, number in users.items():
        for user in range(number):
            for thing in range(objects(user)):
                for kind, counts in (('clean', CLEAN), ('clutter', CLUTTER)):
                    for video, frames in enumerate(counts):
                        name = f'P{user}--thing{thing}--{kind}--{video}'
                        path = folder / split / f'P{user}' / f'thing {thing}' / kind / name
                        path.mkdir(parents=True)
                        for frame in range(frames):
                            image = np.zeros([SIDE, SIDE, 3], np.uint8)
                            image[..., 0] = 100 * (kind == 'clutter') + 10 * video
                            image[..., 1] = 60 * thing + 30
                            image[..., 2] = 20 * frame
                            if noise:
                                image[: SIDE // 2, :, 1] += rng.integers(0, 8, [8, SIDE], np.uint8)
                            Image.fromarray(image).save(path / f'{name}-{frame + 1:05}.png')
    return folder


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp('data') / 'orbit_benchmark_224', noise=False)


def described(x):
    """(kind, video, thing, frame) of images [..., side, side, 3], each an array."""
    red, green, blue = np.moveaxis(np.round(255 * np.array(x)[..., SIDE - 1, 0, :]), -1, 0)
    return red >= 100, red % 100 / 10, (green - 30) / 60, blue / 20


# Files


def test_listing(folder):
    assert orbit_files.find(folder) == orbit_files.find(folder.parent) == folder
    assert orbit_files.splits_of(folder) == ('train', 'val', 'test')
    videos = orbit_files.list_videos(folder, 'val')
    assert len(videos) == (3 + 4) * 5 and videos[0].of_object == 'P0/thing 0'
    assert [video.kind for video in videos[:5]] == ['clean'] * 3 + ['clutter'] * 2
    assert [len(video.frames) for video in videos[:5]] == [*CLEAN, *CLUTTER]
    assert [len(v.frames) for v in orbit_files.list_videos(folder, 'val', 3)[:3]] == [3, 2, 2]


def test_frames_without_the_object_are_left_out(tmp_path, capsys):
    folder = write(tmp_path, {'test': 2})
    name = 'P0--thing1--clutter--1'
    annotations = tmp_path / 'annotations' / 'test'
    annotations.mkdir(parents=True)
    content = {f'{name}-{i + 1:05}.png': {orbit_files.ABSENT: i < 4} for i in range(9)}
    (annotations / f'{name}.json').write_text(json.dumps(content))
    frames = {video.name: video.frames for video in orbit_files.list_videos(folder, 'test')}
    assert [path.stem[-1] for path in frames[name]] == ['5', '6', '7', '8', '9']
    assert len(frames['P0--thing0--clutter--1']) == 9
    # Without any frame there is no video, and without a video in clutter no object.
    for video in (0, 1):
        name = f'P1--thing2--clutter--{video}'
        content = {f'{name}-{i + 1:05}.png': {orbit_files.ABSENT: True} for i in range(9)}
        (annotations / f'{name}.json').write_text(json.dumps(content))
    objects = {video.of_object for video in orbit_files.list_videos(folder, 'test')}
    assert 'P1/thing 2' not in objects and len(objects) == 6
    assert '1 object without frames of both kinds: P1/thing 2' in capsys.readouterr().out
    (annotations / f'{name}.json').write_text('{"a": [')
    with pytest.raises(UserError, match=f'{name}.json: no annotations'):
        orbit_files.list_videos(folder, 'test')


def test_folders_that_are_not_orbit(tmp_path):
    with pytest.raises(UserError, match='data_dir.*train, validation and test'):
        orbit(None)
    with pytest.raises(UserError, match='no such folder in it'):
        orbit(tmp_path)
    (tmp_path / 'train' / 'P0' / 'mug').mkdir(parents=True)
    with pytest.raises(UserError, match='no object in it; the layout is'):
        orbit(tmp_path)


def test_damaged_frames(tmp_path, capsys):
    folder = write(tmp_path, {'test': 1})
    video = folder / 'test/P0/thing 1/clutter/P0--thing1--clutter--0'
    for path in video.iterdir():
        path.write_bytes(path.read_bytes()[:50])
    source = orbit(folder, SIDE)
    classes = source.split('test')
    assert 'left out 6 frames' in capsys.readouterr().out
    assert classes.sizes.tolist() == [31, 25, 31] and len(classes.image_names) == 87
    (task,) = source.videos('test', 2, 0)
    assert len(task.videos) == 5


@pytest.mark.parametrize('kinds', [['clean'], ['clutter'], ['clean', 'clutter']], ids=' '.join)
def test_an_object_without_a_readable_frame_of_a_kind(tmp_path, kinds):
    folder = write(tmp_path, {'test': 1})
    for kind in kinds:
        for path in (folder / 'test/P0/thing 1' / kind).rglob('*.png'):
            path.write_bytes(b'')
    message = f'thing 1: no frame of its {" or ".join(kinds)} videos can be read'
    with pytest.raises(UserError, match=message):
        orbit(folder, SIDE).split('test')


# Tasks


@pytest.mark.parametrize('streams', [False, True])
def test_tasks_are_of_one_user(folder, monkeypatch, streams):
    if streams:
        monkeypatch.setattr(memory_map, 'IN_MEMORY', 1000)
    source = orbit(folder, SIDE)
    tasks = source.tasks('test', EpisodeSpec(3, 4, 5), 0)
    assert tasks.streams == streams
    picks, task = tasks.pick(0, 60), tasks(0, 60)
    users = np.array(source.split('test').groups)[picks.classes]
    assert (users == users[:, :1]).all() and set(users[:, 0]) == {'P0', 'P1', 'P2'}
    for x, y, kind, n in (
        (task.support_x, task.support_y, 0, 4),
        (task.query_x, task.query_y, 1, 5),
    ):
        kinds, videos, things, frames = (part.reshape(60, 3, n) for part in described(x))
        assert (kinds == kind).all()
        np.testing.assert_array_equal(np.argmax(y, -1).reshape(60, 3, n)[7, 1], 1)
        assert (things == things[:, :, :1]).all()
        assert all(len(set(row)) == 3 for row in things[:, :, 0])
        counts = (CLEAN, CLUTTER)[kind]
        for task_videos, task_frames in zip(videos.reshape(-1, n), frames.reshape(-1, n)):
            pairs = {*zip(task_videos, task_frames)}
            assert len(pairs) == n, 'no frame twice'
            visits = np.bincount(task_videos.astype(int), minlength=len(counts))
            assert (
                visits.max() - visits.min() <= 1
                and (task_frames < np.take(counts, task_videos.astype(int))).all()
            )
        # Every frame of every video comes.
        seen = {*zip(videos.ravel(), frames.ravel())}
        assert seen == {(v, f) for v, count in enumerate(counts) for f in range(count)}


def test_frames_are_uniform_over_a_video_s_parts(folder):
    """Of one visit every frame has the same chance; of two, each half its own."""
    sizes = VideoSizes.of([((7,), (6,))] * 2)
    pick = UserSampler(sizes, ['a', 'a'], EpisodeSpec(2, 2, 1), (0, 'train'))
    images = pick(0, 4000).images.numpy()
    first, second = (np.bincount(images[:, 0, i], minlength=7) / 4000 for i in (0, 1))
    np.testing.assert_allclose(first, [2 / 7] * 3 + [1 / 7] + [0] * 3, atol=0.03)
    np.testing.assert_allclose(second, [0] * 3 + [1 / 7] + [2 / 7] * 3, atol=0.03)
    np.testing.assert_allclose(np.bincount(images[:, 1, 2] - 7) / 4000, 1 / 6, atol=0.03)


def test_fewer_shots_come_from_the_whole_video():
    """The parts of a video are laid out for the most shots; fewer begin at any of them."""
    sizes = VideoSizes.of([((100,), (6,))] * 2)
    pick = UserSampler(sizes, ['a', 'a'], EpisodeSpec(2, 10, 1, least_shot=1), (0, 'train'))
    picks = pick(0, 2000)
    images, shots = picks.images.numpy()[:, 0, :10], picks.shots.numpy()
    first = images[shots == 1, 0]
    np.testing.assert_allclose(np.bincount(first // 10, minlength=10) / len(first), 0.1, atol=0.08)
    assert first.max() > 90
    # All ten are still spread evenly, at the same place of each part.
    assert (np.diff(np.sort(images, 1), axis=1) == 10).all()


def test_a_way_that_differs(folder):
    source = orbit(folder, SIDE)
    spec = EpisodeSpec(4, 2, 2, least_way=2, least_shot=1)
    users = {'P0': 3, 'P1': 4, 'P2': 3}
    for split, all_objects in (('train', False), ('test', True)):
        tasks = source.tasks(split, spec, 0)
        picks, task = tasks.pick(0, 80), tasks(0, 80)
        names = np.array(source.split(split).groups)[picks.classes[:, 0]]
        most = np.array([users[name] for name in names])
        ways = task.query_mask.numpy().reshape(80, 4, 2)[..., 0].sum(1)
        np.testing.assert_array_equal(np.sum(task.query_y, (1, 2)), 2 * ways)
        if all_objects:
            np.testing.assert_array_equal(ways, most)
        else:
            assert (ways <= most).all() and {*zip(most, ways)} == {
                (a, b) for a in (3, 4) for b in range(2, a + 1)
            }
        assert {*task.support_mask.numpy().reshape(80, 4, 2)[:, 0].sum(1)} == {1, 2}
        # Those that count are different objects of the user.
        for row, way in zip(picks.classes.numpy(), ways.astype(int)):
            assert len({*row[:way]}) == way
    with pytest.raises(UserError, match='way=5: no user of the test split has more than 4'):
        source.tasks('test', EpisodeSpec(5, 1, 1), 0)
    with pytest.raises(UserError, match='leave_to_query'):
        source.tasks('test', EpisodeSpec(2, 2, 1, least_shot=1, leave_to_query=True), 0)
    with pytest.raises(UserError, match='no sequences'):
        source.tasks('test', SequenceSpec(2, 4), 0)
    assert source.tasks('trainval', BatchSpec(4), 0)(0, 1).y.shape[1] == 17


def test_a_task_is_a_function_of_its_number_compiled_or_not(folder):
    tasks = orbit(folder, SIDE).tasks('train', EpisodeSpec(3, 4, 5, least_way=2), 3)
    whole = tasks(0, 5)
    compiled = tf.function(lambda start: tasks(start, 2), jit_compile=True)(
        tf.constant(2, tf.int64)
    )
    for one, other in zip(whole, compiled):
        np.testing.assert_array_equal(one[2:4], other)


# Whole videos


def brute_force(label, predicted):
    """The three metrics by counting."""
    right = [one == label for one in predicted]
    first = next((i for i, one in enumerate(right) if one), len(right))
    votes = {one: list(predicted).count(one) for one in sorted(set(predicted))}
    best = max(votes, key=lambda one: (votes[one], -one))
    return sum(right) / len(right), first / len(right), float(best == label)


def test_metrics_against_counting():
    rng = np.random.default_rng(0)
    for _ in range(300):
        predicted = rng.integers(0, rng.integers(1, 5), rng.integers(1, 12))
        label = int(rng.integers(0, 5))
        np.testing.assert_allclose(metrics.scores(label, predicted), brute_force(label, predicted))
    assert metrics.scores(1, np.array([0, 0, 1, 1])) == (0.5, 0.5, 0.0)
    assert metrics.scores(2, np.array([0, 1])) == (0.0, 1.0, 0.0)


def test_whole_videos(folder):
    source = orbit(folder, SIDE)
    tasks = [*source.videos('test', 2, 1, repeats=2, frames=5)]
    assert [(task.user, task.repeat) for task in tasks] == [
        (f'P{u}', r) for u in range(3) for r in (0, 1)
    ]
    task = tasks[2]
    assert task.objects == [f'P1/thing {i}' for i in range(4)]
    kinds, _, things, _ = described(task.support_x[0])
    assert not kinds.any()
    np.testing.assert_array_equal(things, np.argmax(task.support_y[0], -1))
    assert task.support_x.shape == (1, 8, SIDE, SIDE, 3) and len(task.videos) == 8
    for number, video in enumerate(task.videos):
        kinds, videos, things, frames = described(video.frames()[0])
        assert kinds.all() and (videos == number % 2).all() and (things == video.label).all()
        assert len(frames) == 5 and (np.diff(frames) > 0).all(), 'in time'
        assert (
            video.name
            == f'P1/thing {video.label}/clutter/P1--thing{video.label}--clutter--{number % 2}'
        )
    assert (tasks[2].support_x.numpy() != tasks[3].support_x.numpy()).any()
    again = [*source.videos('test', 2, 1, repeats=2, frames=5)][2]
    np.testing.assert_array_equal(again.support_x, task.support_x)
    np.testing.assert_array_equal(again.videos[3].frames(), task.videos[3].frames())
    every = [*source.videos('test', 2, 1)][0].videos[1].frames()
    np.testing.assert_array_equal(described(every[0])[3], range(9))
    assert [len(task.objects) for task in source.videos('test', 2, 1, way=4)] == [4]
    with pytest.raises(UserError, match='way=5: no user'):
        [*source.videos('test', 2, 1, way=5)]


def test_scores_of_videos_are_those_of_the_learner(folder):
    source = orbit(folder, SIDE)
    learner = Prototypical(conv4((SIDE, SIDE, 3), filters=4), MeanClassification())
    scored = scores.score(learner, source.videos('test', 2, 1))
    assert len(scored) == (3 + 4 + 3) * 2
    (task,) = [task for task in source.videos('test', 2, 1) if task.user == 'P1']
    own = [one for one in scored if one.user == 'P1']
    state = learner.adapt(task.support_x, task.support_y)
    for one, video in zip(own, task.videos, strict=True):
        predicted = np.argmax(learner.predict_query(state, video.frames())[0], -1)
        assert (one.video, one.objects, one.frames) == (video.name, 4, len(predicted))
        np.testing.assert_allclose(one.scores, brute_force(video.label, predicted))
    content = scores.results(scored)
    values = np.array([one.scores for one in scored])
    assert content['videos'] == 20 and [*content['users']] == ['P0', 'P1', 'P2']
    assert content['users']['P1']['videos'] == 8
    np.testing.assert_allclose(content['video_accuracy']['mean'], values[:, 2].mean())
    np.testing.assert_allclose(
        content['frame_accuracy']['ci95'], 1.96 * values[:, 0].std() / np.sqrt(20)
    )
    shown = scores.text(scored, 'a heading').splitlines()
    assert shown[0] == 'a heading' and len(shown) == 4 and 'Frames to recognition' in shown[2]


def test_tasks_and_videos_share_their_programs(folder):
    """Python runs where a program is traced: for two sizes, and not for every task."""
    calls = {'adapt': 0, 'predict': 0}

    class Counted(Prototypical):
        def adapt(self, *args, **kwargs):
            calls['adapt'] += 1
            return super().adapt(*args, **kwargs)

        def predict_query(self, *args, **kwargs):
            calls['predict'] += 1
            return super().predict_query(*args, **kwargs)

    learner = Counted(conv4((SIDE, SIDE, 3), filters=4), MeanClassification())
    tasks = orbit(folder, SIDE).videos('test', 2, 1, repeats=4)
    assert len(scores.score(learner, tasks)) == 4 * (3 + 4 + 3) * 2
    assert calls['adapt'] <= 2 and calls['predict'] <= 3


# The command line

HERE = ('--datasource=orbit', '--num_filters=4', '--update_batch_size=2', f'--image_size={SIDE}')
SMALL = (
    '--meta_batch_size=2',
    '--train_query=3',
    '--test_tasks=4',
    '--metatrain_iterations=4',
    '--logdir=logs',
)


@pytest.mark.parametrize(
    'arguments, way',
    [
        (
            (
                '--algorithm=prototypical',
                '--num_classes=4',
                '--train_num_classes=3',
                '--all_objects',
            ),
            None,
        ),
        pytest.param(
            ('--algorithm=maml', '--num_classes=3', '--norm=None', '--frame_every=2'),
            3,
            marks=pytest.mark.slow,
        ),
    ],
    ids=['prototypical', 'maml'],
)
def test_a_run(folder, tmp_path, arguments, way):
    said = run_here(
        *HERE,
        *SMALL,
        *arguments,
        f'--data_dir={folder}',
        '--test_set',
        '--video_frames=4',
        cwd=tmp_path,
    ).stdout
    users = 3
    assert f'videos in clutter of {users} users, 2-shot' in said and 'Video accuracy' in said
    (results,) = tmp_path.rglob('results.json')
    content = json.loads(results.read_text())
    assert content['metric'] == 'accuracy' and content['videos']['way'] == way
    number = 20 if way is None else 18
    assert content['videos']['videos'] == number and len(content['videos']['users']) == users
    rows = [*csv.reader((results.parent / 'videos.csv').open())]
    assert len(rows) == 1 + number and rows[0][-1] == 'video_accuracy'
    accuracy = np.mean([float(row[-1]) for row in rows[1:]])
    np.testing.assert_allclose(content['videos']['video_accuracy']['mean'], accuracy)
    assert (results.parent / 'users.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(
    'arguments, words',
    [
        ([], ['--data_dir', 'train, validation and test']),
        (['--data_dir=.', '--num_classes=5'], ['--data_dir=.', 'orbit_benchmark']),
        (['--datasource=omniglot', '--video_tasks=2'], ['--video_tasks=2', 'only to orbit']),
        (['--all_objects', '--write_tasks=a'], ['--all_objects', '--write_tasks']),
    ],
    ids=lambda value: str(value[-1:]),
)
def test_flags_that_are_refused(tmp_path, arguments, words):
    refused_here(tmp_path, [*HERE, *arguments], *words)


def test_masks_that_a_method_does_not_take(folder, tmp_path):
    arguments = [*HERE, f'--data_dir={folder}', '--num_classes=3', '--all_objects']
    refused_here(tmp_path, arguments, '--all_objects: maml with --norm=batch_norm')
