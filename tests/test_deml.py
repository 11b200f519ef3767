"""DEML: its joint objective by hand and by finite differences, what adapts, what is refused."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from command import run_here, run_maml
from PIL import Image
from test_command_line import table, weights
from test_flagfiles import checked

from maml_tf.algorithms.metric.matching import Matching
from maml_tf.algorithms.optimisation.concept_learners import concept_network, meta_learner_of
from maml_tf.algorithms.optimisation.deml import DEML
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.algorithms.optimisation.meta_sgd import MetaSGD
from maml_tf.commands.command_line import parsed
from maml_tf.datasets import external
from maml_tf.episodes.class_images import ClassImages
from maml_tf.episodes.images import ImageClasses
from maml_tf.episodes.task import (
    Batch,
    BatchSpec,
    EpisodeSpec,
    Task,
    TaskAndBatch,
    TaskAndBatchSpec,
)
from maml_tf.errors import ArgumentError, UserError
from maml_tf.networks.encoders import BatchNorm
from maml_tf.networks.image_encoders.resnet50 import resnet50
from maml_tf.objectives.classification import MeanClassification
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import op_of
from maml_tf.training.phases import OuterLoop

SIDE, FEATURES, WAY, CLASSES = 6, 5, 3, 4
SPEC = EpisodeSpec(way=WAY, shot=1, query=2)
STEP = tf.constant(0, tf.int64)
LEARNERS = ('maml', 'meta_sgd', 'matching')


# The joint objective


def generator(seed=0):
    """A small G in float64, smooth but for batch norm's running averages."""
    keras.utils.set_random_seed(seed)
    float64 = {'dtype': 'float64'}
    layers = [
        keras.Input((SIDE, SIDE, 1), dtype='float64'),
        keras.layers.Conv2D(3, 3, strides=2, name='conv', **float64),
        BatchNorm(name='norm', **float64),
        keras.layers.Activation('tanh', **float64),
        keras.layers.Flatten(**float64),
        keras.layers.Dense(FEATURES, name='dense', **float64),
    ]
    return keras.Sequential(layers, name='encoder')


def concept_learner(kind, **kwargs):
    """M in float64, with weights far from where they start."""
    if kind == 'matching':
        layers = [keras.Input((FEATURES,), dtype='float64'), keras.layers.Identity(dtype='float64')]
        return Matching(keras.Sequential(layers), MeanClassification(), temperature=3.0)
    network, arguments = concept_network(FEATURES, WAY, 4), {'inner_steps': 2, 'dtype': 'float64'}
    if kind == 'maml':
        made = MAML(network, MeanClassification(), 0.3, **arguments | kwargs)
    else:
        made = MetaSGD(network, MeanClassification(), (0.1, 0.5), **arguments | kwargs)
    rng = np.random.default_rng(1)
    for variable in made.meta_weights.values():
        variable.assign(0.7 * rng.normal(size=variable.shape))
    return made


def learner(kind='maml', weight=0.8, **kwargs):
    classes = CLASSES if weight else None
    return DEML(generator(), concept_learner(kind, **kwargs), classes, weight, dtype='float64')


def drawn(tasks=2, seed=0):
    """Some tasks and external examples, in float64."""
    rng = np.random.default_rng(seed)

    def examples(count, classes):
        x = rng.random((tasks, count, SIDE, SIDE, 1))
        return x, np.eye(classes)[np.arange(tasks * count).reshape(tasks, -1) % classes]

    task = Task(*map(tf.constant, (*examples(WAY, WAY), *examples(2 * WAY, WAY))))
    return TaskAndBatch(task, Batch(*map(tf.constant, examples(7, CLASSES))))


@pytest.mark.parametrize('kind', LEARNERS)
def test_meta_gradients_are_the_finite_differences(kind):
    """Of G, D and M, second derivatives included, each along a direction drawn at random."""
    made, task = learner(kind), drawn()
    gradients = made.meta_gradients(task, STEP).gradients
    value = tf.function(lambda: made.meta_loss(task, STEP).value, autograph=False)
    rng, checked_ones = np.random.default_rng(2), set()
    for name, variable in made.named_variables().items():
        numbers = [i for i, v in enumerate(made.trainable_variables) if v.value is variable]
        if not numbers:
            continue
        before, direction = variable.numpy(), rng.normal(size=variable.shape)
        ends = []
        for sign in (1, -1):
            variable.assign(before + sign * 1e-5 * direction)
            ends.append(float(value()))
        variable.assign(before)
        slope = np.sum(gradients[numbers[0]] * direction)
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-5, 1e-5, 1e-8, err_msg=name)
        # A bias before batch norm is the one thing that changes nothing.
        assert abs(slope) > 1e-4 or name == 'encoder_conv_bias', name
        checked_ones.add(name.removeprefix('encoder_').split('_')[0])
    of_learner = {'maml': {'maml'}, 'meta_sgd': {'meta'}, 'matching': set()}[kind]
    assert checked_ones == {'discriminator', 'conv', 'norm', 'dense'} | of_learner


def test_the_gradient_reaches_the_generator_through_the_inner_steps():
    """Held constant, as first-order MAML does, they teach G something else."""
    whole, first_order = (learner(stop_grad=held).meta_gradients(drawn(), STEP) for held in (0, 1))
    pairs = zip(whole.gradients, first_order.gradients)
    assert max(np.abs(one - other).max() for one, other in pairs) > 1e-3


@pytest.mark.parametrize('kind', LEARNERS)
def test_the_joint_loss_by_its_parts(kind):
    """L_query(M; G(x)) + lambda CE(D(G(x)), y) of one task, and the running averages."""
    made, task = learner(kind), drawn(tasks=1)
    loss = made.meta_loss(task, STEP)
    # A copy, of which Keras itself moves the running averages.
    other, images = generator(), tf.concat([task.task.support_x, task.task.query_x], 1)[0]
    concepts = other(images, training=True)
    of_concepts = task.task._replace(
        support_x=concepts[np.newaxis, :WAY], query_x=concepts[np.newaxis, WAY:]
    )
    alone = concept_learner(kind).meta_loss(of_concepts, STEP)
    features = other(task.batch.x[0], training=True).numpy()
    kernel, bias = (variable.numpy() for variable in made.discriminator)
    logits = features @ kernel + bias
    labels = task.batch.y[0].numpy()
    likelihood = np.sum(np.exp(logits) * labels, -1) / np.exp(logits).sum(-1)
    of_external = -np.log(likelihood).mean()
    right = np.argmax(logits, -1) == np.argmax(labels, -1)
    np.testing.assert_allclose(loss.value, alone.value + 0.8 * of_external, rtol=1e-12)
    assert float(loss.log['external_loss']) == pytest.approx(of_external)
    assert float(loss.log['external_accuracy']) == pytest.approx(right.mean())
    assert float(loss.log['post_loss']) == pytest.approx(float(alone.log['post_loss']))
    names = ('encoder_norm_moving_mean', 'encoder_norm_moving_variance')
    averages = dict(zip(names, other.non_trainable_variables))
    assert loss.state.keys() == averages.keys()
    for name, average in averages.items():
        np.testing.assert_allclose(loss.state[name], average, rtol=1e-12)
        assert np.abs(average - made.named_variables()[name]).max() > 1e-3


@pytest.mark.parametrize('kind', LEARNERS)
def test_without_lambda_it_is_the_meta_learner_on_the_generator(kind):
    """In loss, gradients and running averages; and a small lambda tends to it."""
    nothing, task = learner(kind, weight=0), drawn()
    assert not nothing.discriminator
    loss, update = nothing.meta_loss(task.task, STEP), nothing.meta_gradients(task.task, STEP)
    almost = learner(kind, weight=1e-9).meta_gradients(task, STEP)
    *_, last = nothing.phases(OuterLoop(0, 1, 1e-3, SPEC))
    assert last.draws == SPEC
    others = [v for v in learner(kind).trainable_variables if 'discriminator' not in v.path]
    assert len(others) == len(nothing.trainable_variables)
    by_name = dict(zip([v.path.split('/', 1)[-1] for v in nothing.trainable_variables], update[0]))
    assert len(by_name) == len(update.gradients)
    for one, other in zip(update.gradients, almost.gradients[len(almost[0]) - len(update[0]) :]):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8)
    assert loss.log.keys() == learner(kind).meta_loss(task, STEP).log.keys() - {
        'external_loss',
        'external_accuracy',
    }


@pytest.mark.parametrize('kind', LEARNERS)
def test_only_the_meta_learner_adapts(kind):
    """G by its running averages, whatever the task; D plays no part."""
    made, task = learner(kind), drawn().task
    before = [np.array(variable) for variable in made.variables]
    state = made.adapt(task.support_x, task.support_y, 3)
    for old, variable in zip(before, made.variables):
        np.testing.assert_array_equal(old, variable)
    concepts = lambda x: tf.stack([made.encoder(one, training=False) for one in x])
    alone = concept_learner(kind)
    expected = alone.adapt(concepts(task.support_x), task.support_y, 3)
    assert state.keys() == expected.keys()
    if kind != 'matching':
        assert {*state} == {*made.meta_learner.meta_weights}
        assert made.axis(4).values == (0, 1, 2, 3) and made.fixed_way and made.takes_steps
    else:
        assert not made.fixed_way and not made.takes_steps
    outputs = alone.predict_query(expected, concepts(task.query_x))
    np.testing.assert_allclose(made.predict_query(state, task.query_x), outputs, rtol=1e-10)
    for variable in made.discriminator:
        variable.assign(variable + 1.0)
    np.testing.assert_allclose(made.query_outputs(task, 3)[-1], outputs, rtol=1e-10)
    in_tasks = {name for name in made.named_variables() if made.acts_in_tasks(name)}
    assert made.named_variables().keys() - in_tasks == {
        'discriminator_kernel',
        'discriminator_bias',
    }


def test_what_a_learner_is_not_made_of():
    encoder, meta_learner = generator(), concept_learner('maml')
    network = concept_network(FEATURES + 1, WAY, 4)
    others = {
        'weight=-1': {'classes': 2, 'weight': -1},
        'weight=nan': {'classes': 2, 'weight': float('nan')},
        'classes': {'weight': 1.0},
        'classes=2': {'classes': 2, 'weight': 0.0},
        'classes=0': {'classes': 0},
        'batch_size=0': {'classes': 2, 'batch_size': 0},
        r'MAML: takes \(6,\), and concepts are \(5,\)': {
            'classes': 2,
            'meta_learner': MAML(network, MeanClassification()),
        },
        'MAML: rematerialise=True would keep': {
            'classes': 2,
            'meta_learner': concept_learner('maml', rematerialise=True),
        },
    }
    for message, arguments in others.items():
        with pytest.raises(ArgumentError, match=message):
            DEML(encoder, **{'meta_learner': meta_learner} | arguments)
    with pytest.raises(ArgumentError, match='drawn=Task: draw by a TaskAndBatchSpec'):
        learner().meta_loss(drawn().task, STEP)
    with pytest.raises(ArgumentError, match='drawn=TaskAndBatch: .* weight=0'):
        learner(weight=0).meta_loss(drawn(), STEP)


@pytest.mark.slow
def test_fit_gives_the_numbers_of_the_command_line_s_loop():
    source, losses, ends = images(range(10)), [], []
    for by_fit in (True, False):
        keras.utils.set_random_seed(0)
        made, spec = DEML.tiny()
        spec = TaskAndBatchSpec(spec, made.batch_size)
        made = DEML(made.encoder, made.meta_learner, 6, batch_size=made.batch_size)
        if by_fit:
            made.compile(keras.optimizers.SGD(0.1))
            history = made.fit(source.dataset(spec, 2), steps_per_epoch=3, verbose=0).history
            losses.append(history['external_loss'][0])
        else:
            (phase,) = made.phases(OuterLoop(0, 3, 1e-3, spec.task))
            assert phase.draws == spec
            op = op_of(
                made,
                types.SimpleNamespace(**vars(phase) | {'optimizer': keras.optimizers.SGD(0.1)}),
            )
            run = iterate(op, source.tasks('train', spec, 0), 2, made.share(2, spec.task))
            losses.append(float(run(0, 3)['external_loss']))
        ends.append([variable.numpy() for variable in made.variables])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


# What is drawn beside tasks


def images(names, side=16, seed=0, path=None, groups=None, shape=None):
    """A source of classes of these names, the first six to train on; each of 8 images."""
    names = [str(name) for name in names]
    parts = {'train': names[:6], 'val': names[6:8], 'test': names[8:]}

    def load(split):
        rng = np.random.default_rng([seed, len(split)])
        pixels = rng.integers(
            0, 256, (8 * len(parts[split]), *(shape or (side, side, 1))), np.uint8
        )
        if path:
            np.save(path, pixels)
            pixels = np.load(path, mmap_mode='r')
        sizes = np.full(len(parts[split]), 8)
        return ClassImages(pixels, sizes, parts[split], groups=groups and np.array(groups))

    return ImageClasses(load, shape or (side, side, 1), [s for s in parts if parts[s]])


def test_tasks_beside_another_source():
    """The tasks are those without; beside them are passes over the other's training classes."""
    source, second = images(range(10)), images('abcdef', seed=1)
    beside, spec = source.beside(second), TaskAndBatchSpec(SPEC, 5)
    assert source.external_classes is None and beside.external_classes == 6
    draw = beside.tasks('train', spec, 7)
    both = draw(3, 2)
    alone = source.tasks('train', SPEC, 7)(3, 2)
    for one, other in zip(both.task, alone):
        assert one is other is None or np.array_equal(one, other)
    batch = second.tasks('train', BatchSpec(5), 7)(3, 2)
    np.testing.assert_array_equal(both.batch.x, tf.reshape(batch.x, [2, 5, 16, 16, 1]))
    np.testing.assert_array_equal(both.batch.y, tf.reshape(batch.y, [2, 5, 6]))
    np.testing.assert_array_equal(draw(4, 1).batch.x[0], both.batch.x[1])
    # Validation draws the same from its own classes alone.
    np.testing.assert_array_equal(
        beside.tasks('test', EpisodeSpec(2, 1, 2), 1)(0, 3).query_x,
        source.tasks('test', EpisodeSpec(2, 1, 2), 1)(0, 3).query_x,
    )


def test_groups_as_labels():
    other = images('abcdef', groups=[7, 2, 7, 2, 9, 9])
    beside = images(range(10)).beside(other, groups=True)
    assert beside.external_classes == 3
    both = beside.tasks('train', TaskAndBatchSpec(SPEC, 48), 0)(0, 1)
    classes = other.tasks('train', BatchSpec(48), 0)(0, 1)
    groups = np.array([1, 0, 1, 0, 2, 2])[np.argmax(classes.y, -1)]
    np.testing.assert_array_equal(both.batch.y[0], np.eye(3)[groups])
    with pytest.raises(ArgumentError, match='external_labels=groups: its classes have no groups'):
        images(range(10)).beside(images('abcdef'), groups=True)
    with pytest.raises(ArgumentError, match='external: its images are 8x8x1, of the tasks 16x16x1'):
        images(range(10)).beside(images('abcdef', side=8))


@pytest.mark.slow
def test_streamed_images_beside_tasks_are_learnt_from_alike(tmp_path):
    """Read from a file, on either side, and in shares."""
    results = []
    for path in (None, tmp_path / 'pixels.npy'):
        source = images(range(10)).beside(images('abcdef', seed=1, path=path))
        keras.utils.set_random_seed(0)
        made = DEML(DEML.tiny()[0].encoder, DEML.tiny()[0].meta_learner, 6, batch_size=4)
        (phase,) = made.phases(OuterLoop(0, 3, 1e-2, DEML.tiny()[1]))
        draw = source.tasks('train', phase.draws, 0)
        assert draw.streams == bool(path)
        log = iterate(op_of(made, phase), draw, 4, at_once=2)(0, 2)
        results.append({name: float(value) for name, value in log.items()})
    assert results[0].keys() == results[1].keys() >= {'external_loss', 'post_loss', 'pre_loss'}
    assert results[0]['external_loss'] == pytest.approx(results[1]['external_loss'], rel=1e-4)


@pytest.fixture
def beside(monkeypatch):
    """(source, *arguments, **others) -> what the command line makes of a source of made-up images
    that it takes for cub's, where `others` are those of other data sources."""
    rows = lambda source: types.SimpleNamespace(load=lambda flags: source, reads=())

    def made(source, *arguments, **others):
        flags = parsed('--algorithm=deml', '--datasource=cub', *arguments)
        with monkeypatch.context() as patched:
            patched.setattr(external, 'SOURCES', {name: rows(s) for name, s in others.items()})
            return external.beside_external(flags, source)

    return made


ANIMALS = ('cat', 'dog', 'cow', 'pig', 'hen', 'fox', 'sea lion', 'ray', 'bat', 'ant')


def test_external_classes_that_are_evaluated_on_are_refused(beside):
    source, named = images(ANIMALS), '--external=omniglot'
    of_val = images(['cat', 'lynx', 'Sea_Lion', 'yak', 'elk', 'emu', 'bat'])
    message = r'hold 1 of the 2 val classes of --datasource=cub \(sea lion\), which are to stay'
    with pytest.raises(UserError, match=message):
        beside(source, named, omniglot=of_val)
    # Trained on, it is no secret; bat is in the test classes of both.
    both = beside(source, named, '--train_on=trainval', omniglot=of_val)
    assert both.external_classes == 6
    of_test = images(['ant', 'lynx', 'hare', 'yak', 'elk', 'emu'])
    for split in ('train', 'trainval'):
        with pytest.raises(UserError, match=r'1 of the 2 test classes .*\(ant\)'):
            beside(source, named, f'--train_on={split}', omniglot=of_test)
    pixels, sizes = np.zeros((4, 16, 16, 1), np.uint8), np.array([2, 2])
    nameless = ImageClasses(lambda split: ClassImages(pixels, sizes), (16, 16, 1), ('train',))
    with pytest.raises(UserError, match='the classes of omniglot have no names'):
        beside(source, named, omniglot=nameless)
    numbered = images([str(i) for i in range(10)])
    with pytest.raises(UserError, match='the classes of omniglot have no names'):
        beside(source, named, omniglot=numbered)
    of_cub = images([f'{i:03d}.{name}' for i, name in enumerate(reversed(ANIMALS))])
    with pytest.raises(UserError, match='hold 2 of the 2 val classes'):
        beside(source, named, omniglot=of_cub)
    with pytest.raises(ArgumentError, match='external=omniglot: its images are 8x8x1'):
        beside(source, named, omniglot=images('abcdef', side=8))


def test_classes_of_imagenet_are_told_apart_by_their_ids(beside):
    ids, words = [f'n{i:08d}' for i in range(10)], images([f'animal {i}' for i in range(10)])
    arguments = '--datasource=miniimagenet', '--external=tieredimagenet'
    for source, other in ((images(ids), words), (words, images(ids))):
        with pytest.raises(UserError, match='only WordNet ids would tell'):
            beside(source, *arguments, tieredimagenet=other)
    of_others = images([f'n{i:08d}' for i in range(100, 110)])
    assert beside(images(ids), *arguments, tieredimagenet=of_others).external_classes == 6


def test_a_source_beside_itself_is_loaded_once(beside):
    source = images(range(10))
    both = beside(source, '--external=cub')  # There is nothing to be loaded.
    assert both.external_classes == 6 and both.split('val') is source.split('val')
    assert external.beside_external(parsed('--algorithm=maml'), source) is source


# The command line


@pytest.mark.parametrize(
    'arguments, message',
    [
        ([], '--external: --algorithm=deml learns concepts of labelled images'),
        (['--deml_weight=0', '--external=cub'], '--external=cub: means nothing with --deml_weight'),
        (['--deml_weight=0', '--deml_batch=3'], '--deml_batch=3: means nothing'),
        (
            ['--external=cub', '--num_filters=8'],
            'num_filters=8: means nothing .*resnet50, which is',
        ),
        (['--external=cub', '--dropout=0.1'], 'dropout=0.1: means nothing with --encoder=resnet50'),
        (['--external=cub', '--norm=None'], '--norm=None: means nothing to --algorithm=deml'),
        (['--external=cub', '--rematerialise'], '--rematerialise=True: means nothing'),
        (
            ['--external=cub', '--deml_learner=matching', '--num_updates=2'],
            '--num_updates=2: means nothing with --deml_learner=matching',
        ),
        (['--algorithm=maml', '--external=cub'], '--external=cub: means nothing to .*=maml'),
        (
            ['--datasource=sinusoid', '--external=cub'],
            'cub: means nothing to --datasource=sinusoid',
        ),
    ],
)
def test_flags_that_mean_nothing(arguments, message):
    with pytest.raises(UserError, match=message):
        checked('--datasource=cub', '--algorithm=deml', *arguments)


@pytest.mark.parametrize('kind, cls', zip(LEARNERS, (MAML, MetaSGD, Matching)))
def test_the_meta_learner_of_the_command_line(kind, cls):
    flags = parsed('--algorithm=deml', f'--deml_learner={kind}', '--update_lr=0.2')
    problem = types.SimpleNamespace(output_dim=4, evaluation_steps=None)
    made = meta_learner_of(flags, problem, 7, MeanClassification())
    assert type(made) is cls and made.example_shape == (7,)
    if kind == 'meta_sgd':
        assert {float(np.ptp(rate)) for rate in made.rates.values()} == {0.0}
        assert float(made.rates['b1'][0]) == pytest.approx(0.2) and made.evaluation_steps == 5
    if kind == 'maml':
        assert made.inner_lr == made.evaluation_lr == 0.2 and made.evaluation_steps == 10
        assert made.network.hidden == (64,) and made.inner_steps == 5


def photos(folder, names, seed, count=6, side=16):
    """Class folders of `count` noisy images; a class has a shade of its own."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 60, (side, side, 3)) + 190 * number // len(names)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f'{i}.png')


TINY = (
    *('--algorithm=deml', '--datasource=directory', '--data_dir=photos', '--image_size=16'),
    *('--num_classes=2', '--update_batch_size=1', '--train_query=2', '--test_query=2'),
    *('--encoder=conv4', '--num_filters=4', '--meta_batch_size=2', '--deml_batch=4'),
    *('--external=directory', '--external_dir=others', '--test_tasks=10', '--logdir=logs'),
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    cwd = tmp_path_factory.mktemp('deml')
    photos(cwd / 'photos', [f'animal {i}' for i in range(9)], 0)
    photos(cwd / 'others', [f'thing {i}' for i in range(7)], 1)
    return cwd


@pytest.mark.slow
def test_as_a_user_types_it(folder):
    """Trains, evaluates, exports; and photos are classified without the external set."""
    command = [*TINY, '--metatrain_iterations=100', '--export_dir=saved']
    printed = run_maml(*command, cwd=folder)
    assert len(table(printed)) == 11, printed.stdout
    (run,) = (folder / 'logs').iterdir()
    assert '.deml' in run.name and '.external_directory' in run.name
    header = (run / 'metrics.csv').read_text().splitlines()[0]
    assert 'external_loss' in header and 'post_accuracy' in header
    values = weights(run, 100)
    assert any('discriminator_kernel' in name for name in values)
    model = tf.saved_model.load(str(folder / 'saved'))
    assert not any('discriminator' in v.name for v in getattr(model, 'variables', []))
    support = np.random.default_rng(0).random((1, 2, 16, 16, 3), np.float32)
    inputs = {'support_x': support, 'support_y': np.eye(2, dtype=np.float32)[np.newaxis]}
    state = model.signatures['adapt'](**{name: tf.constant(x) for name, x in inputs.items()})
    answer = model.signatures['predict_query'](query_x=tf.constant(support), **state)
    assert answer['probabilities'].shape == (1, 2, 2)
    (folder / 'others').rename(folder / 'gone')
    try:
        from maml_tf.commands.folders import trained

        made = trained.load(run)
        assert made.way == 2 and made.input_shape == (16, 16, 3)
        gone = run_here(*command, '--train=False', cwd=folder, expect=1)
    finally:
        (folder / 'gone').rename(folder / 'others')
    assert 'error' in gone.stderr or '--external=directory' in gone.stderr


@pytest.mark.slow
def test_a_run_that_stops_goes_on_bit_by_bit(folder):
    ends = []
    for logdir, stops in {'straight': [4], 'resumed': [1, 4]}.items():
        for iterations in stops:
            run_here(
                *TINY, f'--logdir={logdir}', f'--metatrain_iterations={iterations}', cwd=folder
            )
        (run,) = (folder / logdir).iterdir()
        ends.append(weights(run, 4))
    assert ends[0].keys() == ends[1].keys()
    for name, value in ends[0].items():
        np.testing.assert_array_equal(ends[1][name], value, err_msg=name)


def test_an_external_folder_that_shares_a_class(folder):
    names = [path.name for path in (folder / 'photos').iterdir()]
    photos(folder / 'same', [name.upper().replace(' ', '-') for name in names], 2)
    result = run_here(
        *TINY, '--external_dir=same', '--metatrain_iterations=2', cwd=folder, expect=1
    )
    assert 'error: --external=directory: its training classes hold' in result.stderr
    assert 'classes of --datasource=directory (animal ' in result.stderr
    missing = run_here(
        *TINY, '--external_dir=nowhere', '--metatrain_iterations=2', cwd=folder, expect=1
    )
    assert 'nowhere' in missing.stderr and len(missing.stderr.strip().splitlines()) == 1


# ResNet-50


@pytest.mark.usefixtures('float64')
def test_resnet50_is_the_one_of_keras():
    """Weight by weight, in float64; batch norm moves by the unbiased variance."""
    keras.utils.set_random_seed(0)
    ours = resnet50((32, 40, 3))
    theirs = keras.applications.ResNet50(
        include_top=False, weights=None, input_shape=(32, 40, 3), pooling='avg'
    )
    assert ours.output_shape == (None, 2048) and ours.count_params() == 23_587_712
    assert not [
        v.path for v in ours.non_trainable_variables if v.aggregation != 'only_first_replica'
    ]
    rng = np.random.default_rng(0)
    # Norms and biases from where they start; kernels would let the numbers grow beyond measure.
    moved = lambda v: v + 0.05 * rng.random(v.shape) * (v.ndim == 1)
    values = [moved(value) for value in ours.get_weights()]
    ours.set_weights(values)
    theirs.set_weights(values)
    x = rng.random((2, 32, 40, 3))
    for training in (False, True):
        expected = theirs(x, training=training)
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(
            ours(x, training=training), expected, rtol=0, atol=1e-9 * np.abs(expected).max()
        )
    with pytest.raises(ArgumentError, match='image_size=28: ResNet-50 takes images from 32x32'):
        resnet50((28, 28, 1))
