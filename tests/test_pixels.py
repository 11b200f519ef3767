"""Segmentation: its loss and metrics against brute force, and tasks of label images."""

import json

import numpy as np
import pytest
import tensorflow as tf
from precision import in_float64

from maml_tf.algorithms.baselines.from_scratch import FromScratch
from maml_tf.algorithms.baselines.pixel_fine_tuning import PixelFineTuning
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.episodes import manifest
from maml_tf.episodes.segmentation.label_images import packed, unpacked
from maml_tf.episodes.segmentation.sampling import LEAST_SHARE
from maml_tf.episodes.segmentation.source import LabelledRegions
from maml_tf.episodes.segmentation.values import UNLABELLED
from maml_tf.episodes.task import BatchSpec, EpisodeSpec
from maml_tf.errors import ArgumentError
from maml_tf.evaluation.evaluate import evaluator
from maml_tf.networks.unet import UNet
from maml_tf.objectives.pixels import Segmentation, confusion
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import op_of
from maml_tf.training.phases import OuterLoop

WAY, SHAPE = 3, (2, 3, 4, 5)  # tasks, examples, height, width


def random_labels(seed=0, unlabelled=0.3):
    """(one-hot labels, numbers with -1 where there is none)."""
    rng = np.random.default_rng(seed)
    numbers = np.where(rng.random(SHAPE) < unlabelled, -1, rng.integers(0, WAY, SHAPE))
    return np.eye(WAY)[numbers] * (numbers >= 0)[..., None], numbers


def random_outputs(seed=1):
    return np.random.default_rng(seed).normal(size=(*SHAPE, WAY))


def brute(numbers, outputs):
    """{name: a list of one number a task}, pixel by pixel."""
    found = {'loss': [], 'accuracy': [], 'mean_iou': [], 'kappa': []}
    for truth, logits in zip(numbers.reshape(len(numbers), -1), outputs):
        logits, loss, pairs = logits.reshape(-1, WAY), [], []
        for pixel, row in zip(truth, logits):
            if pixel >= 0:
                loss.append(np.log(np.exp(row).sum()) - row[pixel])
                pairs.append((pixel, int(row.argmax())))
        found['loss'].append(np.mean(loss))
        accuracy = np.mean([a == b for a, b in pairs])
        found['accuracy'].append(accuracy)
        overlaps = []
        for c in range(WAY):
            union = [pair for pair in pairs if c in pair]
            if union:
                overlaps.append(np.mean([a == b for a, b in union]))
        found['mean_iou'].append(np.mean(overlaps))
        truths, said = (np.bincount(column, minlength=WAY) / len(pairs) for column in zip(*pairs))
        chance = truths @ said
        found['kappa'].append(0 if chance == 1 else (accuracy - chance) / (1 - chance))
    return found


@pytest.mark.parametrize('seed', range(3))
def test_loss_and_metrics(seed):
    labels, numbers = random_labels(seed)
    outputs = random_outputs(seed)
    if seed == 1:  # a class that is nowhere
        numbers[numbers == 2] = 1
        labels = np.eye(WAY)[numbers] * (numbers >= 0)[..., None]
        outputs[..., 2] = -9
    expected, objective = brute(numbers, outputs), Segmentation()
    np.testing.assert_allclose(objective.loss(labels, outputs), expected['loss'])
    np.testing.assert_allclose(objective.score(labels, outputs), expected['accuracy'])
    further = objective.further_scores(labels, outputs)
    np.testing.assert_allclose(further, [expected['mean_iou'], expected['kappa']])
    # Entries of an evaluation stand in front.
    entries = np.stack([outputs, -outputs, 2 * outputs])
    for several, one in (
        (objective.loss(labels, entries), expected['loss']),
        (objective.score(labels, entries), expected['accuracy']),
        (objective.further_scores(labels, entries)[1], expected['kappa']),
    ):
        assert several.shape == (3, SHAPE[0])
        np.testing.assert_allclose(several[0], one)


def test_agrees_with_scikit_learn():
    metrics = pytest.importorskip('sklearn.metrics')
    labels, numbers = random_labels()
    outputs = random_outputs()
    mean_iou, kappa = Segmentation().further_scores(labels, outputs)
    for i in range(SHAPE[0]):
        counted = numbers[i] >= 0
        truth, said = numbers[i][counted], outputs[i].argmax(-1)[counted]
        matrix = metrics.confusion_matrix(truth, said)
        np.testing.assert_array_equal(confusion(labels, outputs)[i], matrix)
        np.testing.assert_allclose(kappa[i], metrics.cohen_kappa_score(truth, said))
        jaccard = metrics.jaccard_score(truth, said, average='macro')
        np.testing.assert_allclose(mean_iou[i], jaccard)


def test_nothing_to_count_and_one_class():
    labels, outputs = np.zeros((*SHAPE, WAY)), random_outputs()
    objective = Segmentation()
    for value in (objective.loss(labels, outputs), objective.score(labels, outputs)):
        np.testing.assert_array_equal(value, [0, 0])
    np.testing.assert_array_equal(objective.further_scores(labels, outputs), np.zeros((2, 2)))
    labels[..., 1] = 1
    mean_iou, kappa = objective.further_scores(labels, labels)
    np.testing.assert_array_equal(mean_iou, [1, 1])
    np.testing.assert_array_equal(kappa, [0, 0])
    assert objective.further[0].show(0.5) == '50.00%' and objective.further[1].show(0.5) == '0.5000'


# Tasks

SIDE, BANDS, CLASSES = 6, 2, ['wood', 'sea', 'town', 'ice']
SPLITS = {'train': ['a', 'b', 'c'], 'val': ['d'], 'test': ['e', 'tiny']}


def world(seed=0, wide=True):
    """(bands, labels, the region of each tile): regions of other sizes, each with three classes."""
    rng, regions, labels = np.random.default_rng(seed), [], []
    for number, name in enumerate(['a', 'b', 'c', 'd', 'e', 'tiny']):
        count = 2 if name == 'tiny' else 20 + number
        there = rng.permutation(len(CLASSES))[:3]
        regions += [name] * count
        rows = rng.choice(there, [count, SIDE // 3, SIDE // 3]).repeat(3, 1).repeat(3, 2)
        rows[rng.random(rows.shape) < 0.1] = UNLABELLED
        labels.append(rows)
    labels = np.concatenate(labels).astype(np.uint8)
    top, dtype = (10_000, np.uint16) if wide else (255, np.uint8)
    bands = rng.integers(0, top + 1, (*labels.shape, BANDS)).astype(dtype)
    return bands, labels, regions


def source(**kwargs):
    bands, labels, regions = world(**kwargs)
    return LabelledRegions.from_arrays(bands, labels, regions, SPLITS, CLASSES)


@pytest.mark.parametrize('wide', [False, True])
def test_packed_and_unpacked(wide):
    bands, labels, _ = world(wide=wide)
    tiles = packed(bands, labels)
    assert tiles.dtype == np.uint8 and tiles.shape[-1] == (5 if wide else 3)
    x, y = tf.function(lambda: unpacked(tf.constant(tiles), BANDS), jit_compile=True)()
    np.testing.assert_array_equal(y, labels)
    np.testing.assert_allclose(x, bands / (10_000 if wide else 255), rtol=1e-6)
    above = packed(np.full([1, 1, 1], 20_000, np.uint16), np.zeros([1, 1], np.uint8))
    assert unpacked(tf.constant(above), 1)[0].numpy().item() == pytest.approx(1)


@pytest.mark.parametrize('way', [2, 3])
def test_a_task_is_of_one_region(way):
    spec, made = EpisodeSpec(way, shot=2, query=1), source()
    draw = made.tasks('train', spec, seed=5)
    count = 40
    picks, task = draw.pick(0, count), draw(0, count)
    images = made.split('train')
    tiles, labels = images.tiles, images.tiles.images[..., -1].numpy()
    region_of = np.repeat(np.arange(3), tiles.sizes)
    seen, orders = set(), set()
    for i in range(count):
        region, classes, numbers = (part[i].numpy() for part in picks[:3])
        assert set(region_of[numbers.ravel()]) == {region}
        assert len(set(numbers.ravel())) == numbers.size, 'no tile comes twice'
        assert len(set(classes)) == way
        for c, row in zip(classes, numbers):
            shares = (labels[row] == c).mean((1, 2))
            assert (shares >= LEAST_SHARE).all()
        seen.add(int(region))
        orders.add(tuple(classes.tolist()))
        for x, y, part in (
            (task.support_x, task.support_y, numbers[:, :2]),
            (task.query_x, task.query_y, numbers[:, 2:]),
        ):
            expected = labels[part.ravel()][..., None] == classes
            np.testing.assert_array_equal(y[i], expected)
            whole, _ = unpacked(tf.gather(tiles.images, part.ravel()), BANDS)
            np.testing.assert_array_equal(x[i], whole)
    assert seen == {0, 1, 2} and len(orders) >= way * (way - 1)


def test_a_task_is_a_function_of_its_number():
    spec = EpisodeSpec(3, shot=1, query=1)
    draw = source().tasks('train', spec, seed=5)
    together = draw(3, 4)
    compiled = tf.function(lambda start: draw(start, 4), jit_compile=True, autograph=False)
    for one, other in zip(together, compiled(tf.constant(3, tf.int64))):
        np.testing.assert_array_equal(one, other) if one is not None else None
    for i in range(4):
        np.testing.assert_array_equal(draw(3 + i, 1).query_x[0], together.query_x[i])
    other = source().tasks('train', spec, seed=6)(3, 4)
    assert np.any(other.query_x != together.query_x)


def test_rare_classes_are_served_or_left_out(capsys):
    """20 tiles of class 0 of which 4 show class 1, too, and 2 class 2: it cannot be served."""
    labels = np.zeros([20, 4, 4], np.uint8)
    labels[:4, :2], labels[:2, 2:] = 1, 2
    bands = np.zeros([20, 4, 4, 1], np.uint8)
    regions = ['a'] * 20
    made = LabelledRegions.from_arrays(bands, labels, regions, {'test': ['a']}, CLASSES)
    draw = made.tasks('test', EpisodeSpec(2, shot=2, query=1), 0)
    assert [c.tolist() for c in draw.pick.classes] == [[0, 1]]
    picks = draw.pick(0, 30)
    for classes, tiles in zip(picks.classes.numpy(), picks.tiles.numpy()):
        own = {int(c): set(row.tolist()) for c, row in zip(classes, tiles)}
        assert own[1] <= {0, 1, 2, 3} and not own[0] & own[1]
    with pytest.raises(ArgumentError, match='no region of the test split .* the best has 2'):
        made.tasks('test', EpisodeSpec(3, shot=2, query=1), 0)
    assert not capsys.readouterr().out


def test_small_regions_are_left_out_and_told(capsys):
    made = source()
    for _ in range(2):
        draw = made.tasks('test', EpisodeSpec(3, shot=1, query=1), 0)
    assert draw.pick.regions == [0]
    said = capsys.readouterr().out
    assert said == (
        'test: left out 1 region with fewer than 3 classes that have tiles enough for 1 support '
        'and 1 query tiles of each: tiny\n'
    )


def test_batches_tell_all_classes_apart():
    made = source()
    draw, count = made.tasks('train', BatchSpec(1), 0), sum(made.split('train').tiles.sizes)
    batch = draw(0, count)
    assert batch.y.shape == (count, SIDE, SIDE, len(CLASSES)) and made.count_classes('val') == 4
    bands, labels, _ = world()
    # A pass takes every tile once.
    expected = {(bands[i] / 10_000).astype(np.float32).round(4).tobytes(): i for i in range(count)}
    found = [expected[x.round(4).tobytes()] for x in batch.x.numpy()]
    assert sorted(found) == list(range(count))
    np.testing.assert_array_equal(batch.y, labels[found][..., None] == np.arange(4))


def test_trainval_and_missing_splits():
    made = source()
    sizes = [sum(made.split(split).tiles.sizes) for split in ('train', 'val', 'trainval')]
    assert sizes[2] == sizes[0] + sizes[1]
    assert made.split('trainval').tiles.class_names == ['a', 'b', 'c', 'd']
    draw = made.tasks('trainval', EpisodeSpec(3, 1, 1), 0)
    assert draw(0, 2).support_x.shape == (2, 3, SIDE, SIDE, BANDS)
    bands, labels, regions = world()
    alone = LabelledRegions.from_arrays(bands, labels, regions, {'test': ['a']}, CLASSES)
    with pytest.raises(ArgumentError, match='there are no train regions, only test'):
        alone.split('train')


def test_list_of_tasks(tmp_path):
    draw = source().tasks('val', EpisodeSpec(2, 1, 1), 0)
    manifest.write(tmp_path / 'tasks.jsonl', draw, 3, {'datasource': 'world'})
    header, *lines = map(json.loads, (tmp_path / 'tasks.jsonl').read_text().splitlines())
    assert header['tasks'] == 3 and len(lines) == 3
    assert set(lines[0]) == {'region', 'classes', 'support', 'query'}
    assert lines[0]['region'] == 'd' and set(lines[0]['classes']) <= set(CLASSES)
    assert len(lines[0]['support']) == 2 and len(lines[0]['support'][0]) == 1
    assert manifest.fingerprint(draw, 3) != manifest.fingerprint(draw, 2)


@pytest.mark.slow
@pytest.mark.usefixtures('float64')
def test_an_update_is_the_mean_over_the_tasks():
    """Compares tasks of unequal numbers of labelled pixels: shares and replicas change nothing."""
    network, spec = UNet((SIDE, SIDE, BANDS), 2, filters=3, depth=1), EpisodeSpec(2, 2, 2)
    learner = MAML(network, Segmentation(), inner_lr=0.1, inner_steps=1)
    phase = learner.phases(OuterLoop(0, 1, 1e-2, spec))[-1]
    draw, step = in_float64(source().tasks('train', spec, 0)), tf.constant(0, tf.int64)
    whole = phase.gradients(draw(0, 3), step)
    parts = [phase.gradients(draw(i, 1), step) for i in range(3)]
    mean = tf.nest.map_structure(lambda *values: np.mean(values, axis=0), *parts)
    assert max(np.abs(g).max() for g in whole.gradients) > 1e-3
    for ours, theirs in zip(tf.nest.flatten(whole), tf.nest.flatten(mean), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize('method', [MAML, FromScratch, PixelFineTuning])
def test_learns_an_easy_problem(method):
    """Classes of other brightness in each band: adaptation tells them apart."""
    _, labels, regions = world()
    rng = np.random.default_rng(1)
    looks = rng.integers(0, 10_000, (256, BANDS))
    bands = np.clip(looks[labels] + rng.normal(0, 300, (*labels.shape, BANDS)), 0, 10_000)
    made = LabelledRegions.from_arrays(bands.astype(np.uint16), labels, regions, SPLITS, CLASSES)
    network = UNet((SIDE, SIDE, BANDS), 2, filters=8, depth=1)
    spec, arguments = EpisodeSpec(2, 2, 2), {'inner_lr': 0.3, 'inner_steps': 2}
    if method is FromScratch:
        arguments = {'steps': 60}
    if method is PixelFineTuning:
        arguments = {'classes': len(CLASSES), 'updates': 20, 'rate': 0.3}
    learner = method(network, Segmentation(), **arguments)
    phases = [] if method is FromScratch else learner.phases(OuterLoop(0, 150, 1e-2, spec))[-1:]
    for phase in phases:
        batch = isinstance(phase.draws, BatchSpec)
        draw = made.tasks('train', BatchSpec(1) if batch else spec, 0)
        iterate(op_of(learner, phase), draw, 16 if batch else 4)(0, 150)
    test = made.tasks('test', spec, 1)
    scores = evaluator(learner, test, chunk=10, further=True)(40).mean(0)
    assert scores.shape[-1] == 3
    assert (scores[-1] > [0.7, 0.5, 0.4]).all(), scores  # Of chance they are 1/2, 1/3 and 0.
