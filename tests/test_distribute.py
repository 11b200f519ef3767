"""One and two replicas learn the same, in one process and in two. Two logical CPU devices stand for
two GPUs; they must be made before TensorFlow starts, so the checks have processes of their own."""

import functools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from command import ROOT, run_maml
from precision import in_float64
from relatives import KINDS, methods

from maml_tf import algorithms
from maml_tf.commands import workers

METHODS = sorted(algorithms.registry())
TASKS = 5  # Three on the one replica, two on the other.
TWO_DEVICES = """
import sys
import tensorflow as tf
tf.config.set_logical_device_configuration(tf.config.list_physical_devices('CPU')[0],
                                           [tf.config.LogicalDeviceConfiguration()] * 2)
"""
PROGRAM = TWO_DEVICES + 'import test_distribute; test_distribute.learn_twice(*sys.argv[1:])'
AS_A_WORKER = 'import sys, test_distribute; test_distribute.learn_as_a_worker(*sys.argv[1:])'
ALWAYS = 'r2d2'  # two workers learn it; it has gradients and running averages


def learn_twice(path, *methods):
    """Does what `learn` does, on one replica and on two."""
    learn(('one_device', 'mirrored'), path, *methods)


def learn_as_a_worker(path, *methods):
    """Does the same together with other workers; each writes a file of its own."""
    from maml_tf.training.distribution import distribute

    distribute.make_strategy('multi_worker')  # Before anything that is imported computes.
    number = json.loads(os.environ['TF_CONFIG'])['task']['index']
    learn(('multi_worker',), f'{path}/{number}.npz', *methods)
    talk(number)


def talk(number):
    """Tries all that workers say to each other; both of two do so."""
    import tensorflow as tf

    from maml_tf.errors import ArgumentError, UserError
    from maml_tf.training.distribution import distribute

    strategy = distribute.make_strategy('multi_worker')
    both = distribute.workers_of(strategy)
    assert (both.number, both.count, both.chief) == (number, 2, number == 0)
    assert both.sum(np.array([1.5, number])).tolist() == [3.0, 1.0]
    assert both.most(number, -number) == [1, 0]
    said = {3: 'a/model-3', 'none': None, 'numbers': [1, 0.1], 'text': 'ä'}
    assert both.from_chief(lambda: said if number == 0 else 1 / 0) == said

    def failing():
        raise ArgumentError('path', 'x', 'is not there')

    with pytest.raises(UserError, match='path=x: is not there') as error:
        both.from_chief(failing)
    assert isinstance(error.value, ArgumentError) == (number == 0)
    with strategy.scope():
        variables = [tf.Variable([0.1, 0.2], dtype=d) for d in ('float32', 'float16', 'float64')]
        variables += [tf.Variable(2**60, dtype=tf.int64), tf.Variable([True, False])]
    values = [variable.numpy() for variable in variables]
    if number == 1:
        for variable in variables:
            variable.assign(tf.zeros_like(variable))
    both.share(variables)
    for variable, value in zip(variables, values):
        np.testing.assert_array_equal(variable.numpy(), value)
    for items in (1, 2, 5):  # of one item, one worker has none
        rows = [np.full([2, 3], i, np.float32) for i in range(items)]
        whole = both.whole(both.part(rows), items)
        np.testing.assert_array_equal(whole, np.concatenate(rows))
        assert whole.dtype == np.float32
    both.check_alike({'seed': 1})
    with pytest.raises(
        UserError, match='--seed=1: the chief has --seed=0' if number else 'worker 1'
    ):
        both.check_alike({'seed': number})


def learn(strategies, path, *methods):
    """Takes an iteration of every phase of these methods by these strategies.

    Writes {method/phase/strategy/kind/name of the variable or of the log: value} to `path`. The
    kinds: `before` and `after` of a trained variable, `state_before` and `state_after` of another
    one, `log`.
    """
    import keras
    from test_conformance import source_for, training_draw

    from maml_tf.training.distribution import distribute
    from maml_tf.training.iterate import iterate
    from maml_tf.training.operations import TrainingOp
    from maml_tf.training.phases import OuterLoop

    # float32 keeps six digits of a sum, whatever adds it up.
    keras.config.set_floatx('float64')
    keras.config.set_dtype_policy('float64')
    values = {}

    def learn_one(method, strategy_name):
        strategy = distribute.make_strategy(strategy_name)
        replicas = strategy.num_replicas_in_sync
        with strategy.scope():
            keras.utils.set_random_seed(0)
            learner, spec = algorithms.registry()[method].tiny()
            learner.xla = False  # Compiling takes most of the time; test_command_line compiles.
            # A step of plain gradient descent shows the gradient; Adam's would hide its size.
            phases = [p for p in learner.phases(OuterLoop(1, 1, 1.0, spec)) if p.gradients]
            ops = {
                phase.name: TrainingOp(learner, keras.optimizers.SGD(1.0), phase.gradients)
                for phase in phases
            }
        source = source_for(learner, spec)
        draws = {phase.name: in_float64(training_draw(source, phase)[0]) for phase in phases}
        trained = {id(variable.value) for variable in learner.trainable_variables}

        def remember(where, when):
            for name, variable in learner.named_variables().items():
                kind = when if id(variable) in trained else f'state_{when}'
                values[f'{where}/{kind}/{name}'] = variable.numpy()

        start = [(variable, np.array(variable)) for variable in learner.variables]
        for phase, op in ops.items():
            where = f'{method}/{phase}/{strategy_name}'
            for variable, value in start:
                variable.assign(value)
            remember(where, 'before')
            if replicas > 1:
                run = distribute.iterate(strategy, op, draws[phase], TASKS)
            else:
                # The optimisation-based ones in shares, too.
                run = iterate(op, draws[phase], TASKS, at_once=1 if learner.inner_steps else None)
            for name, value in run(3, 1).items():
                values[f'{where}/log/{name}'] = float(value)
            remember(where, 'after')

    for method in methods:
        for strategy_name in strategies:
            learn_one(method, strategy_name)
        print(method, flush=True)
    np.savez(path, **values)


def run(program, *arguments, cwd):
    environment = os.environ | {'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.run(
        [sys.executable, '-c', program, *arguments],
        cwd=cwd,
        env=environment,
        text=True,
        capture_output=True,
    )


@pytest.fixture(scope='module')
def learnt(tmp_path_factory):
    """method -> what `learn_twice` writes; the methods that are always run have a process, and all
    others another."""

    @functools.cache
    def of(always):
        names = [method for method in METHODS if (method in KINDS) == always]
        path = tmp_path_factory.mktemp('replicas') / 'values.npz'
        result = run(PROGRAM, str(path), *names, cwd=ROOT / 'tests')
        assert result.stdout.split() == names, result.stderr[-3000:]
        return dict(np.load(path))

    return lambda method: of(method in KINDS)


@pytest.mark.parametrize('method', methods(METHODS))
def test_two_replicas_learn_what_one_learns(learnt, method):
    """Every variable, trained or assigned, and what is logged."""
    check_equal(learnt(method), learnt(method), method, 'mirrored')


@pytest.fixture(scope='module')
def learnt_together(tmp_path_factory):
    """method -> what each of two workers wrote; ALWAYS has its processes, all others share two."""

    @functools.cache
    def of(always):
        names = [method for method in METHODS if (method == ALWAYS) == always]
        path = tmp_path_factory.mktemp('workers')
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv('PYTHONPATH', os.pathsep.join([str(ROOT), str(ROOT / 'tests'), *sys.path]))
            assert workers.run([sys.executable, '-c', AS_A_WORKER, str(path), *names], 2) == 0
        return [dict(np.load(path / f'{number}.npz')) for number in range(2)]

    return lambda method: of(method == ALWAYS)


@pytest.mark.parametrize(
    'method', [pytest.param(m, marks=[pytest.mark.slow] * (m != ALWAYS)) for m in METHODS]
)
def test_two_workers_learn_what_one_learns(learnt, learnt_together, method):
    """Every variable, and bit for bit the same at both."""
    chief, other = learnt_together(method)
    assert chief.keys() == other.keys()
    for name, value in chief.items():
        np.testing.assert_array_equal(value, other[name])
    check_equal(learnt(method), chief, method, 'multi_worker')


def check_equal(alone, spread, method, strategy):
    """What the strategy learnt is what one device learnt, up to float64's rounding."""
    phases = {key.split('/')[1] for key in alone if key.startswith(f'{method}/')}
    for phase in phases:
        one = of_run(alone, f'{method}/{phase}/one_device/')
        two = of_run(spread, f'{method}/{phase}/{strategy}/')
        assert one.keys() == two.keys()
        moves = {
            name: np.abs(value - one[name.replace('after', 'before')]).max()
            for name, value in one.items()
            if 'after' in name
        }
        largest = max(move for name, move in moves.items() if name.startswith('after'))
        assert largest > 0
        for name, move in moves.items():
            # All gradients together, and each assigned variable by itself.
            scale = largest if name.startswith('after') else move
            difference = np.abs(one[name] - two[name]).max()
            assert difference <= 1e-6 * scale, (name, difference, scale)
        for name in one:
            if 'before' in name:
                np.testing.assert_array_equal(one[name], two[name])
            if name.startswith('log/'):
                assert abs(one[name] - two[name]) <= 1e-6 * abs(one[name]), name


def of_run(values, prefix):
    found = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
    assert found
    return found


def test_assigned_state_is_compared(learnt):
    """The methods that have some move it: else the test above would see nothing of it."""
    for method, words in {'reptile': 'moment_', 'matching': 'moving_', 'r2d2': 'moving_'}.items():
        values = learnt(method)
        names = [
            k for k in values if f'{method}/metatrain/one_device/state_after/' in k and words in k
        ]
        assert names
        for name in names:
            assert (values[name] != values[name.replace('after', 'before')]).any(), name


@pytest.mark.slow
def test_command_line(tmp_path):
    """--strategy=mirrored trains on both devices, and a run of one device is resumed on two."""
    command = [
        *('--datasource=sinusoid', '--norm=None', '--meta_batch_size=5', '--logdir=logs'),
        '--metatrain_iterations=2000',
    ]
    alone = run_maml(*command, cwd=tmp_path).stdout
    (directory,) = (tmp_path / 'logs').iterdir()
    for path in directory.glob('model-2000.*'):  # As if it had been killed.
        path.unlink()
    two = run(
        TWO_DEVICES + 'import run_maml; run_maml.run()',
        *command,
        '--strategy=mirrored',
        cwd=tmp_path,
    )
    assert 'Resuming from iteration 1000 of 2000' in two.stdout, two.stderr[-3000:]
    means = [
        [float(line.split()[1]) for line in output.splitlines() if '±' in line]
        for output in (alone, two.stdout)
    ]
    assert means[1] == pytest.approx(means[0], rel=1e-2) and len(means[0]) == 11
