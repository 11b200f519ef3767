"""Rotations, groups, tasks of varying size, streamed images, manifests: by brute force on made-up
images."""

import json

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.commands.views import contact_sheet
from maml_tf.episodes import manifest
from maml_tf.episodes.images import ClassImages, ImageClasses
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import UserError
from maml_tf.evaluation import evaluate
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.classification import Classification
from maml_tf.training.distribution import distribute
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import metatrain_op
from maml_tf.training.outer_optimizers import adam

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 6, 5, 5, 1), np.uint8)
SPLITS = {'train': list(range(8)), 'val': [8, 9], 'test': [10, 11]}
GROUPS = np.array([0, 0, 0, 1, 1, 2, 2, 2])


def where(image):
    """(class, image, quarter turns) of a task's image."""
    for turn in range(4):
        match = np.argwhere(
            (np.rot90(IMAGES, turn, axes=(2, 3)) * np.float32(1 / 255) == image).all((2, 3, 4))
        )
        if len(match):
            return *match[0].tolist(), turn
    raise AssertionError('an image that is not in the data')


def classes_and_turns(task):
    """For each task the set of (class, turn) behind each label."""
    for x, y in zip(np.concatenate(task[0::2][:2], 1), np.concatenate(task[1::2][:2], 1)):
        found = [where(image)[::2] for image in x]
        yield [{pair for pair, row in zip(found, y) if row[label]} for label in range(y.shape[1])]


def test_turned_classes_are_classes_of_their_own():
    source = ImageClasses.from_arrays(IMAGES, SPLITS, 'classes')
    seen, together = set(), False
    for labels in classes_and_turns(source.tasks('train', EpisodeSpec(12, 1, 1), 0)(0, 20)):
        drawn = [pair for label in labels for pair in label]
        assert len(drawn) == len(set(drawn)) == 12, 'one (class, turn) per label, and none twice'
        seen |= set(drawn)
        together |= len({c for c, _ in drawn}) < 12
    assert len(seen) == 4 * 8 and together, 'two turns of one class can meet'
    with pytest.raises(UserError, match='^way=33: the train split has 32 classes'):
        source.tasks('train', EpisodeSpec(33, 1, 1), 0)


def test_one_turn_for_a_whole_task():
    tasks = ImageClasses.from_arrays(IMAGES, SPLITS, 'per_task').tasks(
        'train', EpisodeSpec(4, 1, 1), 0
    )(0, 30)
    turns = [{turn for label in labels for _, turn in label} for labels in classes_and_turns(tasks)]
    assert all(len(turn) == 1 for turn in turns) and set().union(*turns) == {0, 1, 2, 3}


def test_rotations_differ_between_training_and_test():
    source = ImageClasses.from_arrays(
        IMAGES, SPLITS, {'train': 'per_class', 'val': 'none', 'test': 'none'}
    )
    turns = lambda split: {
        turn
        for labels in classes_and_turns(source.tasks(split, EpisodeSpec(2, 1, 1), 0)(0, 20))
        for label in labels
        for _, turn in label
    }
    assert turns('train') == {0, 1, 2, 3} and turns('test') == {0}


def grouped():
    return ImageClasses(
        lambda split: ClassImages(IMAGES[:8].reshape(-1, 5, 5, 1), np.full(8, 6), groups=GROUPS),
        (5, 5, 1),
        splits=('train',),
    )


def test_all_classes_from_one_group():
    tasks = grouped().tasks('train', EpisodeSpec(3, 1, 1, within_groups=True), 0)
    classes = np.array(tasks.pick(0, 200).classes)
    groups = GROUPS[classes]
    assert (groups == groups[:, :1]).all() and set(groups[:, 0]) == {0, 2}, (
        'group 1 has too few classes'
    )
    assert abs((groups[:, 0] == 0).sum() - 100) < 5 * 7.1
    assert all(len(set(row)) == 3 for row in classes)
    with pytest.raises(UserError, match='^way=4: the largest group of the train split has 3'):
        grouped().tasks('train', EpisodeSpec(4, 1, 1, within_groups=True), 0)
    with pytest.raises(
        UserError, match='^within_groups: the classes of the train split have no groups'
    ):
        ImageClasses.from_arrays(IMAGES, SPLITS).tasks(
            'train', EpisodeSpec(2, 1, 1, within_groups=True), 0
        )


def test_one_group_whose_turned_classes_are_classes():
    """A class is the same however it is turned: its group, too."""
    source = ImageClasses(
        lambda split: ClassImages(IMAGES[:8].reshape(-1, 5, 5, 1), np.full(8, 6), groups=GROUPS),
        (5, 5, 1),
        splits=('train',),
        rotations='classes',
    )
    picks = source.tasks('train', EpisodeSpec(6, 1, 1, within_groups=True), 0).pick(0, 100)
    groups = GROUPS[picks.classes]
    assert (groups == groups[:, :1]).all() and set(groups[:, 0]) == {0, 1, 2}
    assert all(
        len(set(zip(*task))) == 6 for task in zip(picks.classes.numpy(), picks.turns.numpy())
    )
    assert set(picks.classes.numpy().ravel()) == set(range(8)) and set(
        picks.turns.numpy().ravel()
    ) == set(range(4))


def test_random_shots_and_ways():
    spec = EpisodeSpec(way=5, shot=3, query=2, least_way=2, least_shot=1)
    source = ImageClasses.from_arrays(IMAGES, SPLITS)
    draw = source.tasks('train', spec, 0)
    task, ways, shots = draw(0, 400), [], []
    for support_y, query_y, support_mask, query_mask in zip(
        *(np.array(x) for x in (task.support_y, task.query_y, task.support_mask, task.query_mask))
    ):
        np.testing.assert_array_equal(support_y.sum(-1), support_mask)
        np.testing.assert_array_equal(query_y.sum(-1), query_mask)
        per_class = support_y.sum(0)
        present = per_class > 0
        assert (
            len(set(per_class[present])) == 1
            and (query_y.sum(0)[present] == 2).all()
            and not query_y.sum(0)[~present].any()
        )
        ways.append(present.sum())
        shots.append(per_class.max())
    for drawn, low, high in [(ways, 2, 5), (shots, 1, 3)]:
        counts = np.bincount(np.array(drawn, int), minlength=high + 1)[low:]
        expected = 400 / (high - low + 1)
        assert counts.sum() == 400 and np.abs(counts - expected).max() < 5 * expected**0.5
    # The classes and the images are those of a task of the full size.
    full = source.tasks('train', EpisodeSpec(5, 3, 2), 0)(0, 400)
    np.testing.assert_array_equal(task.support_x, full.support_x)
    xla = tf.function(draw, jit_compile=True)(tf.constant(3, tf.int64), 4)
    for compiled, eager in zip(xla, draw(3, 4)):
        np.testing.assert_array_equal(compiled, eager)


def test_what_the_shots_leave_is_queried():
    """R2-D2: images per class stay the same, whatever the shots."""
    spec = EpisodeSpec(way=3, shot=4, query=2, least_shot=1, leave_to_query=True)
    task = ImageClasses.from_arrays(IMAGES, SPLITS).tasks('train', spec, 0)(0, 50)
    for support_x, support_mask, query_x, query_mask in zip(
        *(np.array(x) for x in (task.support_x, task.support_mask, task.query_x, task.query_mask))
    ):
        support = [where(x)[:2] for x, there in zip(support_x, support_mask) if there]
        query = [where(x)[:2] for x, there in zip(query_x, query_mask) if there]
        assert len(support) + len(query) == 3 * 6 and not set(support) & set(query)
    assert len(set(np.sum(task.support_mask, 1))) == 4


def test_bad_ranges():
    source = ImageClasses.from_arrays(IMAGES, SPLITS)
    with pytest.raises(UserError, match='^least_shot=3: at least 1 and at most 2'):
        source.tasks('train', EpisodeSpec(2, 2, 1, least_shot=3), 0)


def test_train_and_validation_together():
    source = ImageClasses.from_arrays(IMAGES, SPLITS)
    assert source.count_classes('trainval') == 10
    joined = source.split('trainval')
    np.testing.assert_array_equal(joined.images, IMAGES[:10].reshape(-1, 5, 5, 1))
    assert joined.class_names == [str(i) for i in range(10)]


@pytest.fixture
def streamed(tmp_path):
    """The training images as a file."""
    np.save(tmp_path / 'pixels.npy', IMAGES[:8].reshape(-1, 5, 5, 1))
    pixels = np.load(tmp_path / 'pixels.npy', mmap_mode='r')
    return ImageClasses(
        lambda split: ClassImages(pixels, np.full(8, 6)),
        (5, 5, 1),
        splits=('train',),
        rotations='per_class',
    )


SPEC = EpisodeSpec(3, 2, 2)


def learner():
    return MAML(FullyConnected((5, 5, 1), 3, (8,)), Classification(), inner_lr=0.1)


@pytest.mark.slow
def test_streaming_draws_trains_and_evaluates_alike(streamed):
    in_memory = ImageClasses.from_arrays(IMAGES, SPLITS, 'per_class')
    draws = [source.tasks('train', SPEC, 0) for source in (in_memory, streamed)]
    assert [draw.streams for draw in draws] == [False, True]
    for ours, theirs in zip(draws[0](5, 4)[:4], draws[1](5, 4)[:4]):
        np.testing.assert_array_equal(ours, theirs)
    weights, scores = [], []
    for draw in draws:
        maml = learner()
        run = iterate(metatrain_op(maml, adam(1e-2)), draw, 4)
        run(0, 3)
        run(3, 2)
        weights.append([variable.numpy() for variable in maml.trainable_variables])
        scores.append(evaluate.evaluator(maml, draw, 2, chunk=5)(10))
        mirrored = learner()
        update = distribute._weighted_update(metatrain_op(mirrored, adam(1e-2)), draw, 2, 0.5, 1)
        zero = tf.constant(0, tf.int64)
        assert len(update(zero, zero).gradients) == len(weights[0])
    for ours, theirs in zip(*weights):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(*scores)


def test_manifest_round_trip(tmp_path):
    source, spec = ImageClasses.from_arrays(IMAGES, SPLITS, 'per_class'), EpisodeSpec(2, 1, 3)
    tasks = source.tasks('test', spec, 1)
    manifest.write(tmp_path / 'lists' / 'tasks.jsonl', tasks, 9, {'datasource': 'made up'})
    header, *lines = map(json.loads, (tmp_path / 'lists' / 'tasks.jsonl').read_text().splitlines())
    assert header == {'datasource': 'made up', 'tasks': 9} and len(lines) == 9
    assert [len(row) for row in lines[0]['query']] == [3, 3] and lines[0]['support'][0][0].split(
        '/'
    )[0] in ('10', '11')
    again, count = manifest.read(tmp_path / 'lists' / 'tasks.jsonl', source, 'test', spec)
    assert count == 9
    for ours, theirs in zip(tasks(2, 5)[:4], again(2, 5)[:4]):
        np.testing.assert_array_equal(ours, theirs)
    assert (
        manifest.fingerprint(tasks, 9)
        == manifest.fingerprint(again, 9)
        != manifest.fingerprint(tasks, 8)
    )
    xla = tf.function(again, jit_compile=True)(tf.constant(8, tf.int64), 2)
    np.testing.assert_array_equal(xla.query_x[0], tasks(8, 1).query_x[0])
    np.testing.assert_array_equal(
        xla.query_x[1], tasks(0, 1).query_x[0], 'after the last comes the first'
    )


def test_a_manifest_of_named_images(tmp_path):
    names = [f'photo {number}\udce9.jpg' for number in range(48)]  # a name that is no UTF-8
    source = ImageClasses(
        lambda split: ClassImages(
            IMAGES[:8].reshape(-1, 5, 5, 1), np.full(8, 6), list('abcdefgh'), names
        ),
        (5, 5, 1),
        splits=('train',),
    )
    tasks = source.tasks('train', SPEC, 1)
    manifest.write(tmp_path / 'tasks.jsonl', tasks, 3, {})
    again, _ = manifest.read(tmp_path / 'tasks.jsonl', source, 'train', SPEC)
    np.testing.assert_array_equal(tasks(0, 3).query_x, again(0, 3).query_x)
    task = json.loads((tmp_path / 'tasks.jsonl').read_text().splitlines()[1])
    letter, name = task['support'][0][0].split('/')
    assert letter == task['classes'][0] and names.index(name) // 6 == 'abcdefgh'.index(letter)


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda text: '', 'no list|not a list of tasks'),
        (lambda text: text.replace('"10/', '"ten/'), 'line 2'),
        (
            lambda text: text.replace('"classes": ["10", "11"]', '"classes": ["7", "11"]'),
            'line . is no task of the test',
        ),
        (lambda text: text.replace('"turns": []', '"turns": [4, 0]'), 'line 2 is no task'),
        (lambda text: text.replace('"support": [[', '"support": [[7, '), 'line 2 is no task'),
        (lambda text: text.split('\n')[0] + '\n', 'no task in it'),
    ],
)
def test_bad_manifests(tmp_path, change, words):
    source, spec, path = (
        ImageClasses.from_arrays(IMAGES, SPLITS),
        EpisodeSpec(2, 1, 3),
        tmp_path / 'tasks.jsonl',
    )
    manifest.write(path, source.tasks('test', spec, 1), 9, {})
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=words):
        manifest.read(path, source, 'test', spec)


def test_a_manifest_of_other_sizes(tmp_path):
    source = ImageClasses.from_arrays(IMAGES, SPLITS)
    manifest.write(tmp_path / 'tasks.jsonl', source.tasks('test', EpisodeSpec(2, 1, 3), 1), 2, {})
    with pytest.raises(
        UserError, match='line 2 is not 2-way with 2 support and 3 query images per class'
    ):
        manifest.read(tmp_path / 'tasks.jsonl', source, 'test', EpisodeSpec(2, 2, 3))


def test_contact_sheet(tmp_path):
    """What is drawn is what the task holds: the picture's cells are the images, in their places."""
    tasks = ImageClasses.from_arrays(IMAGES, SPLITS, 'per_class').tasks(
        'train', EpisodeSpec(4, 2, 1), 0
    )
    contact_sheet.draw(tmp_path / 'episodes.png', tasks, 2, 'two tasks')
    assert (tmp_path / 'episodes.png').read_bytes().startswith(b'\x89PNG')
    rows = contact_sheet._rows(tasks(0, 1).support_x[0], 4)
    np.testing.assert_array_equal(rows[1, 2], tasks(0, 1).support_x[0, 2 * 2 + 1])
