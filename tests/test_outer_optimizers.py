"""The outer optimizers, the courses of their rates, and their flags: against NumPy."""

import dataclasses
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from command import run_here
from test_flagfiles import checked

from maml_tf import algorithms
from maml_tf.algorithms.optimisation.imaml import IMAML
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.datasets.functions.sinusoid import Sinusoid
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import ArgumentError, UserError
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.regression import Regression
from maml_tf.saving.run_directory import RunDirectory
from maml_tf.saving.run_name import experiment_string
from maml_tf.serialisation.variables import optimizer_names
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import TrainingOp, op_of
from maml_tf.training.outer_optimizers import OuterOptimizer, from_flags
from maml_tf.training.phases import OuterLoop, Update

SPEC = EpisodeSpec(1, 5, 5)

# Steps.

STARTS = [np.array([2.0, -3.0, 0.5]), np.array([[1.0, 4.0], [-2.0, 0.1]])]
CURVATURES, CENTRE = [0.3, 2.0], 0.7


def gradients_of(weights):
    """Of the sum of c / 2 (w - CENTRE)^2, by which all weights move."""
    return [c * (w - CENTRE) for c, w in zip(CURVATURES, weights)]


class Quadratic:
    """As much of a learner as a training op asks for; float64."""

    xla = False

    def __init__(self, clip=np.inf):
        self.clip = clip
        self.trainable_variables = [keras.Variable(w, dtype='float64') for w in STARTS]

    def named_variables(self):
        return {}

    def clip_gradients(self, gradients):
        return [tf.clip_by_value(g, -self.clip, self.clip) for g in gradients]

    def values(self):
        return [v.numpy() for v in self.trainable_variables]

    def update(self, task, step):
        del task, step
        return Update(gradients_of([v.value for v in self.trainable_variables]), {})


def steps_of(outer, steps, iterations=100):
    """The weights after each step of the optimizer."""
    learner = Quadratic()
    op = TrainingOp(learner, outer.make(iterations), learner.update, outer.weight_decay)
    path = []
    for step in range(steps):
        op(None, tf.constant(step, tf.int64))
        path.append(learner.values())
    return path


def steps_in_numpy(move, slots, rate, decay, steps):
    """move: (gradient, slots of the tensor, rate, number of the step) -> (the step, slots)."""
    weights = [w.copy() for w in STARTS]
    slots, path = [slots for _ in weights], []
    for step in range(steps):
        for i, gradient in enumerate(gradients_of(weights)):
            delta, slots[i] = move(gradient + decay * weights[i], slots[i], rate(step), step + 1)
            weights[i] = weights[i] - delta
        path.append([w.copy() for w in weights])
    return path


def adam(g, slots, rate, t):
    """TF1's: epsilon is beside the root that is not corrected."""
    m, v = 0.9 * slots[0] + 0.1 * g, 0.999 * slots[1] + 0.001 * g**2
    return rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-8), (m, v)


def nesterov(g, buffer, rate, t):
    """PyTorch's SGD(momentum=0.9, nesterov=True, dampening=0)."""
    buffer = g if t == 1 else 0.9 * buffer + g
    return rate * (g + 0.9 * buffer), buffer


def rmsprop(g, square, rate, t):
    square = 0.9 * square + 0.1 * g**2
    return rate * g / np.sqrt(square + 1e-10), square


def check_paths(path, expected):
    assert len(path) == len(expected)
    for values, others in zip(path, expected):
        for value, other in zip(values, others, strict=True):
            np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-6)
    # They went somewhere.
    assert all(np.abs(last - first).min() > 1e-3 for last, first in zip(expected[-1], STARTS))


@pytest.mark.parametrize('decay', [0.0, 0.4])
def test_adam(decay):
    path = steps_of(OuterOptimizer(0.05, weight_decay=decay), 15)
    check_paths(path, steps_in_numpy(adam, (0.0, 0.0), lambda t: 0.05, decay, 15))


@pytest.mark.parametrize('decay', [0.0, 0.4])
def test_sgd_is_pytorch_s(decay):
    path = steps_of(OuterOptimizer(0.1, kind='sgd', weight_decay=decay), 15)
    check_paths(path, steps_in_numpy(nesterov, None, lambda t: 0.1, decay, 15))


@pytest.mark.parametrize('decay', [0.0, 0.4])
def test_rmsprop(decay):
    """From where the mean square starts, see below."""
    optimizer = OuterOptimizer(0.05, kind='rmsprop').make(1)
    variables = Quadratic().trainable_variables
    optimizer.build(variables)
    (start,) = {float(x) for v in optimizer.variables[-2:] for x in np.ravel(v.numpy())}
    path = steps_of(OuterOptimizer(0.05, kind='rmsprop', weight_decay=decay), 15)
    check_paths(path, steps_in_numpy(rmsprop, start, lambda t: 0.05, decay, 15))


# (course, iterations, the rate in units of meta_lr at 0, 1, 2, ...)
COURSES = {
    'constant': ({}, 6, [1] * 9),
    'halved': ({'decay_every': 3}, 6, [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]),
    'falling': ({'decay_every': 1, 'decay': 0.1}, 6, [1, 0.1, 0.01, 0.001]),
    'factors': (
        {'factors': ((2, 0.6), (5, 0.12), (6, 2.0))},
        6,
        [1, 1, 0.6, 0.6, 0.6, 0.12, 2, 2, 2],
    ),
    'one factor': ({'factors': ((1, 0.5),)}, 6, [1, 0.5, 0.5]),
    'cosine': (
        {'cosine_to': 0.02},
        8,
        [0.2 + 0.8 * (1 + np.cos(np.pi * min(t, 8) / 8)) / 2 for t in range(12)],
    ),
    'cosine to 0': ({'cosine_to': 0.0}, 4, [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0, 0]),
}
each_course = pytest.mark.parametrize('course', COURSES)


@each_course
def test_courses_of_the_rate(course):
    arguments, iterations, expected = COURSES[course]
    for number in (np.int32, np.int64):
        rate = OuterOptimizer(0.1, **arguments).rate(iterations)
        rates = [float(rate(number(t)) if callable(rate) else rate) for t in range(len(expected))]
        np.testing.assert_allclose(rates, 0.1 * np.array(expected), rtol=1e-5, atol=1e-9)


@each_course
def test_each_step_has_the_rate_of_its_iteration(course):
    arguments, iterations, expected = COURSES[course]
    path = steps_of(OuterOptimizer(0.1, **arguments), len(expected), iterations)
    rate = lambda t: 0.1 * expected[t]
    check_paths(path, steps_in_numpy(adam, (0.0, 0.0), rate, 0.0, len(expected)))


def test_factors_of_the_authors_of_metaoptnet():
    """0.1 times 1, 0.06, 0.012 and 0.0024 from epochs 0, 20, 40 and 50 on, of 1000 iterations."""
    rate = algorithms.registry()['metaoptnet'].outer.rate(60_000)
    at = [0, 19_999, 20_000, 39_999, 40_000, 49_999, 50_000, 59_999]
    expected = np.repeat([0.1, 0.006, 0.0012, 0.00024], 2)
    np.testing.assert_allclose([rate(np.int64(t)) for t in at], expected, rtol=1e-6)


def test_the_rate_of_r2d2_is_halved_every_20_epochs_of_100():
    rate = algorithms.registry()['r2d2'].outer.rate(100)
    rates = [float(rate(np.int64(t))) for t in (0, 1999, 2000, 3999, 4000, 20_000)]
    np.testing.assert_allclose(rates, 0.005 * np.array([1, 1, 0.5, 0.5, 0.25, 2.0**-10]), rtol=1e-6)


def test_a_rate_of_0_stays():
    for arguments, iterations, _ in COURSES.values():
        check = steps_of(OuterOptimizer(0.0, **arguments), 3, iterations)
        for value, start in zip(check[-1], STARTS):
            np.testing.assert_array_equal(value, start)


def test_weight_decay_is_not_clipped():
    """As in PyTorch, where gradients are clipped before the optimizer adds what decays."""
    learner = Quadratic(clip=0.1)
    op = TrainingOp(learner, keras.optimizers.SGD(1.0), learner.update, weight_decay=0.5)
    op.apply(Update([tf.fill(w.shape, tf.constant(7.0, tf.float64)) for w in STARTS], {}))
    for value, start in zip(learner.values(), STARTS):
        np.testing.assert_allclose(value, start - 0.1 - 0.5 * start, rtol=1e-12)


@pytest.mark.parametrize('bounded', [False, True])
def test_replicas_decay_once(monkeypatch, bounded):
    class TwoReplicas:
        num_replicas_in_sync = 2
        all_reduce = staticmethod(lambda how, value: value)

    learner = Quadratic()
    if bounded:
        monkeypatch.setattr(learner, 'clip_gradients', list)
    op = TrainingOp(learner, keras.optimizers.SGD(1.0), learner.update, weight_decay=0.5)
    monkeypatch.setattr(tf.distribute, 'get_replica_context', TwoReplicas)
    for _ in range(2):  # Each passes its part; here the weights of the second have moved.
        before = learner.values()
        op.apply_together(Update([tf.zeros_like(w) for w in STARTS], {}))
        for value, old in zip(learner.values(), before):
            np.testing.assert_allclose(value, 0.75 * old, rtol=1e-12)


def test_phases_decay_the_weights():
    """Both of MAML's, and by the op that is made of them."""
    asked = OuterOptimizer(0.5, kind='sgd', weight_decay=0.2)
    learner = MAML(FullyConnected((1,), 1, (4,)), Regression())
    outer = OuterLoop(10, 10, asked.meta_lr, SPEC, asked=asked)
    phases = learner.phases(outer)
    assert [phase.weight_decay for phase in phases] == [0.2, 0.2]
    before = [v.numpy() for v in learner.trainable_variables]
    op_of(learner, phases[1]).apply(Update([tf.zeros(w.shape) for w in before], {}))
    for variable, old in zip(learner.trainable_variables, before):
        # Nesterov's first step is 1 + 0.9 times the gradient.
        np.testing.assert_allclose(variable.numpy(), old * (1 - 0.5 * 0.2 * 1.9), rtol=1e-5)


def test_an_outer_loop_without_an_optimizer_has_adam():
    loop = OuterLoop(0, 10, 0.02, SPEC, halve_every=4)
    optimizer = loop.optimizer()
    assert type(optimizer) is keras.optimizers.Adam and optimizer.epsilon == 1e-8
    assert loop.weight_decay == 0
    assert [float(loop.rate()(np.int64(t))) for t in (3, 4)] == pytest.approx([0.02, 0.01])


def test_kinds():
    kinds = {'adam': 'Adam', 'sgd': 'SGD', 'rmsprop': 'RMSprop'}
    assert {kind: type(OuterOptimizer(kind=kind).make(1)).__name__ for kind in kinds} == kinds
    with pytest.raises(ArgumentError, match='^meta_optimizer=adagrad: one of adam, sgd, rmsprop$'):
        OuterOptimizer(kind='adagrad')


def test_a_cosine_of_pretraining_alone():
    """Of --baseline=oracle, or --metatrain_iterations=0: falls over the iterations there are."""
    asked = OuterOptimizer(0.1, cosine_to=0.0)
    learner = MAML(FullyConnected((1,), 1, (4,)), Regression())
    pretraining, _ = learner.phases(OuterLoop(100, 0, 0.1, SPEC, asked=asked))
    pretraining.optimizer.iterations.assign(50)
    assert float(pretraining.optimizer.learning_rate) == pytest.approx(0.05)


def test_the_released_imaml_has_the_optimizer_that_is_asked_for():
    asked = OuterOptimizer(0.1, kind='sgd')
    learner = IMAML(FullyConnected((1,), 1, (4,)), Regression(), released=True)
    (phase,) = learner.phases(OuterLoop(0, 10, 0.1, SPEC, asked=asked))
    assert type(phase.optimizer) is keras.optimizers.SGD


# Flags.


def asked_of(method, *arguments):
    """What a command line asks of the outer loop."""
    flags = checked(f'--algorithm={method}', *arguments)
    return from_flags(flags, algorithms.registry()[method].outer)


R2D2 = OuterOptimizer(5e-3, decay_every=2000)
METAOPTNET = OuterOptimizer(
    0.1, 'sgd', 5e-4, factors=((20_000, 0.06), (40_000, 0.012), (50_000, 0.0024))
)
change = dataclasses.replace


@pytest.mark.parametrize(
    'command, expected',
    [
        ('maml', OuterOptimizer(1e-3, 'adam')),
        ('prototypical', OuterOptimizer(1e-3, 'adam')),
        ('r2d2', R2D2),
        ('metaoptnet', METAOPTNET),
        ('maml --meta_lr=0.02', OuterOptimizer(0.02)),
        ('maml --meta_lr=0', OuterOptimizer(0.0)),
        ('maml --meta_optimizer=rmsprop', OuterOptimizer(kind='rmsprop')),
        ('r2d2 --meta_lr=0.02', change(R2D2, meta_lr=0.02)),
        ('r2d2 --meta_optimizer=sgd', change(R2D2, kind='sgd')),
        ('r2d2 --meta_weight_decay=0.01', change(R2D2, weight_decay=0.01)),
        ('r2d2 --meta_lr_halve_every=70', change(R2D2, decay_every=70)),
        (
            'r2d2 --meta_lr_halve_every=70 --meta_lr_factor=0.3',
            change(R2D2, decay_every=70, decay=0.3),
        ),
        (
            'r2d2 --meta_lr_factors=10:0.6,20:0.12',
            change(R2D2, decay_every=None, factors=((10, 0.6), (20, 0.12))),
        ),
        ('r2d2 --meta_lr_cosine_to=1e-5', change(R2D2, decay_every=None, cosine_to=1e-5)),
        ('metaoptnet --meta_lr=0.02', change(METAOPTNET, meta_lr=0.02)),
        ('metaoptnet --meta_optimizer=adam', change(METAOPTNET, kind='adam')),
        ('metaoptnet --meta_weight_decay=0', change(METAOPTNET, weight_decay=0.0)),
        ('metaoptnet --meta_lr_halve_every=9', change(METAOPTNET, factors=(), decay_every=9)),
        ('metaoptnet --meta_lr_factors=7:0.5', change(METAOPTNET, factors=((7, 0.5),))),
        ('metaoptnet --meta_lr_cosine_to=1e-3', change(METAOPTNET, factors=(), cosine_to=1e-3)),
        pytest.param(
            'metaoptnet --meta_lr_cosine_to=0',
            change(METAOPTNET, factors=(), cosine_to=0.0),
        ),
    ],
)
def test_a_flag_changes_its_part_only(command, expected):
    method, *arguments = command.split()
    assert asked_of(method, *arguments) == expected


@pytest.mark.parametrize(
    'arguments, words',
    [
        (
            ['--meta_lr_halve_every=10', '--meta_lr_factors=5:0.1'],
            '--meta_lr_halve_every: not together with --meta_lr_factors',
        ),
        (
            ['--meta_lr_cosine_to=0', '--meta_lr_halve_every=10'],
            '--meta_lr_halve_every: not together with --meta_lr_cosine_to',
        ),
        (
            ['--meta_lr_cosine_to=0.1', '--meta_lr_factors=5:0.1'],
            '--meta_lr_factors: not together with --meta_lr_cosine_to',
        ),
        (['--meta_lr_factor=0.1'], '--meta_lr_factor=0.1: only with --meta_lr_halve_every'),
        (
            ['--meta_lr_factor=0.1', '--meta_lr_factors=5:0.1'],
            '--meta_lr_factor=0.1: only with --meta_lr_halve_every',
        ),
    ],
)
@pytest.mark.parametrize('method', ['maml', 'r2d2', 'metaoptnet'])
def test_courses_that_do_not_go_together(method, arguments, words):
    with pytest.raises(UserError) as error:
        checked(f'--algorithm={method}', *arguments)
    assert str(error.value).startswith(words) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    'text',
    [
        *('x', '10', '10:a', 'a:0.1', '10.5:0.1', '0:0.5', '-5:0.5', '10:0.5,', '10:0.5:3', ','),
        *('20:0.5,10:0.1', '10:0.5,10:0.1', '10:0.5;20:0.1'),
        *('10:-1', '10:nan', '10:inf', ''),
    ],
)
def test_factors_that_are_none(text):
    with pytest.raises(UserError) as error:
        checked(f'--meta_lr_factors={text}')
    message = str(error.value)
    assert message.startswith(f'--meta_lr_factors={text}: pairs like 20000:0.06,40000:0.012')
    assert '\n' not in message


@pytest.mark.parametrize('method', ['reptile', 'alpha_maml', 'mamlpp', 'from_scratch'])
@pytest.mark.parametrize(
    'arguments',
    [
        *(['--meta_lr_halve_every=10'], ['--meta_lr_factors=10:0.5'], ['--meta_lr_cosine_to=1e-4']),
        *(['--meta_optimizer=sgd'], ['--meta_optimizer=adam'], ['--meta_weight_decay=0.001']),
    ],
    ids=lambda arguments: arguments[0],
)
def test_methods_with_an_outer_loop_of_their_own_refuse_it(method, arguments):
    with pytest.raises(UserError) as error:
        checked(f'--algorithm={method}', *arguments)
    name = arguments[0].split('=')[0]
    message = str(error.value)
    assert message.startswith(name) and f'means nothing to --algorithm={method}' in message


def test_who_heeds_the_rate():
    for method in ('alpha_maml', 'mamlpp'):
        assert checked(f'--algorithm={method}', '--meta_lr=0.01').meta_lr == 0.01
    for method in ('reptile', 'from_scratch'):
        with pytest.raises(UserError, match=f'--meta_lr=0.01: means nothing to .*={method}'):
            checked(f'--algorithm={method}', '--meta_lr=0.01')


# The name of a run.


def name_of(method, *arguments):
    """As the program names it; the network does not matter here."""
    cls = algorithms.registry()[method]
    attributes = ('heeds', 'outer', 'own_encoder', 'scheduled', 'inner_steps', 'inner_lr')
    learner = types.SimpleNamespace(**{name: getattr(cls, name) for name in attributes})
    flags = checked(f'--algorithm={method}', '--datasource=omniglot', *arguments)
    return experiment_string(flags, learner)


@pytest.mark.parametrize('method', ['maml', 'r2d2', 'metaoptnet'])
def test_names_say_what_differs(method):
    arguments = [
        *('--meta_lr=0.3', '--meta_lr_halve_every=10', '--meta_lr_factors=10:0.5,20:0.1'),
        *('--meta_lr_cosine_to=1e-05', '--meta_lr_cosine_to=0.0'),
        *('--meta_optimizer=rmsprop', '--meta_weight_decay=0.01', '--meta_weight_decay=0.02'),
    ]
    plain, names = name_of(method), [name_of(method, argument) for argument in arguments]
    assert len({plain, *names}) == len(arguments) + 1
    for argument, name in zip(arguments, names):
        flag, value = argument.removeprefix('--').split('=')
        length = '.of15000' if flag == 'meta_lr_cosine_to' else ''
        assert name == f'{plain}{length}.{flag}_{value}'
    both = name_of(method, '--meta_lr_halve_every=10', '--meta_lr_factor=0.1')
    assert both == plain + '.meta_lr_halve_every_10.meta_lr_factor_0.1'


@pytest.mark.parametrize('method, rate', [('maml', 0.001), ('r2d2', 0.005), ('metaoptnet', 0.1)])
def test_the_method_s_own_rate_does_not_change_the_name(method, rate):
    assert name_of(method, f'--meta_lr={rate}') == name_of(method)
    for other in {0.001, 0.005, 0.1} - {rate}:
        assert name_of(method, f'--meta_lr={other}') == f'{name_of(method)}.meta_lr_{other}'


@pytest.mark.parametrize(
    'method, argument',
    [
        ('r2d2', '--encoder=r2d2'),
        ('r2d2', '--meta_lr_halve_every=2000'),
        ('metaoptnet', '--dropout=0.1'),
        ('metaoptnet', '--meta_optimizer=sgd'),
        ('metaoptnet', '--meta_weight_decay=0.0005'),
        ('metaoptnet', '--meta_lr_factors=20000:0.06,40000:0.012,50000:0.0024'),
        ('maml', '--meta_optimizer=adam'),
    ],
)
def test_what_the_method_does_anyway_does_not_change_the_name(method, argument):
    assert name_of(method, argument) == name_of(method)


def test_a_cosine_does_not_rise():
    with pytest.raises(UserError, match=r'--meta_lr_cosine_to=0.01: the rate falls to it, from'):
        asked_of('maml', '--meta_lr_cosine_to=0.01')


def test_the_length_is_in_the_name_where_the_rate_depends_on_it():
    length = '--metatrain_iterations=70'
    cosine = '--meta_lr_cosine_to=1e-4'
    assert '.of70.' in name_of('maml', length, cosine)
    assert '.of15000.' in name_of('maml', cosine)
    for argument in ('--meta_lr_halve_every=10', '--meta_lr_factors=10:0.5', '--meta_lr=0.1'):
        assert name_of('maml', length, argument) == name_of('maml', argument)


# Resuming.


def trained(path, first, count):
    """MAML's variables and optimizer after iterations first ... first + count - 1, and the rate."""
    asked = OuterOptimizer(0.05, kind='sgd', weight_decay=0.01, factors=((5, 0.5), (12, 0.1)))
    learner = MAML(FullyConnected((1,), 1, (8,)), Regression(), inner_lr=0.01)
    learner.xla = False  # It would compile for longer than it trains.
    phase = learner.phases(OuterLoop(0, 20, asked.meta_lr, SPEC, asked=asked))[-1]
    op = op_of(learner, phase)
    of_optimizer = optimizer_names(phase.optimizer, learner)
    directory = RunDirectory(path, {'learner': learner.named_variables(), phase.name: of_optimizer})
    if first:
        assert directory.restore() == first
    draw = Sinusoid().tasks('train', SPEC, 0)
    iterate(op, draw, 4)(first, count)
    directory.save(first + count)
    values = {**learner.named_variables(), **{f'outer/{n}': v for n, v in of_optimizer.items()}}
    return {name: v.numpy() for name, v in values.items()}, float(phase.optimizer.learning_rate)


def test_resuming_is_exact(tmp_path):
    """10 iterations and 10 more are 20; the factors change on both sides of the stop."""
    whole, rate = trained(tmp_path / 'whole', 0, 20)
    half, rate_of_half = trained(tmp_path / 'parts', 0, 10)
    parts, rate_of_parts = trained(tmp_path / 'parts', 10, 10)
    assert (rate_of_half, rate, rate_of_parts) == pytest.approx((0.025, 0.005, 0.005))
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value)
    moved = [name for name in whole if np.any(half[name] != whole[name])]
    assert len(moved) >= 2 * 4 + 1, 'weights, their momenta, the count of iterations'


@pytest.mark.slow
def test_a_run_is_resumed_exactly(tmp_path):
    """As a user asks for it."""
    command = [
        *('--datasource=sinusoid', '--norm=None', '--update_batch_size=5', '--meta_batch_size=4'),
        *('--meta_optimizer=sgd', '--meta_lr=0.01', '--meta_lr_factors=5:0.5,12:0.1'),
        *('--meta_weight_decay=0.01', '--test_tasks=4'),
    ]
    for logdir, iterations in (('whole', 20), ('parts', 10), ('parts', 20)):
        arguments = [f'--logdir={logdir}', f'--metatrain_iterations={iterations}']
        printed = run_here(*command, *arguments, cwd=tmp_path)
    assert 'Resuming from iteration 10 of 20' in printed.stdout + printed.stderr
    runs = [next((tmp_path / logdir).iterdir()) for logdir in ('whole', 'parts')]
    assert runs[0].name == runs[1].name
    assert runs[0].name.endswith(
        '.meta_lr_factors_5:0.5,12:0.1.meta_optimizer_sgd.meta_weight_decay_0.01'
    )
    whole, parts = (tf.train.load_checkpoint(str(run / 'model-20')) for run in runs)
    names = [n for n in whole.get_variable_to_shape_map() if 'OBJECT_GRAPH' not in n]
    assert len(names) > 10
    for name in names:
        np.testing.assert_array_equal(parts.get_tensor(name), whole.get_tensor(name))
