"""Training: what is learnt does not depend on how the iterations are cut into calls."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.datasets.functions.sinusoid import Sinusoid
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import UserError
from maml_tf.evaluation import evaluate
from maml_tf.evaluation.intervals import summarise
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.metric import SQUARED_ERROR
from maml_tf.objectives.regression import Regression
from maml_tf.saving.run_directory import RunDirectory
from maml_tf.training import train
from maml_tf.training.course import Pace, Schedule
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import metatrain_op, pretrain_op
from maml_tf.training.outer_optimizers import adam
from maml_tf.training.phases import Phase, Update

SPEC = EpisodeSpec(1, 5, 5)
STEP = tf.constant(0, tf.int64)


def learner_and_run(op=metatrain_op, inner_lr=0.01):
    learner = MAML(FullyConnected((1,), 1, (8,)), Regression(), inner_lr=inner_lr)
    optimizer = adam(0.01)
    draw = Sinusoid().tasks('train', SPEC, 0)
    return learner, optimizer, lambda: iterate(op(learner, optimizer), draw, 4)


def weights_after(*counts):
    learner, _, make_run = learner_and_run()
    run, first = make_run(), 0
    for count in counts:
        run(first, count)
        first += count
    return [v.numpy() for v in learner.variables]


def test_calls_of_any_length_learn_the_same():
    for together, apart in zip(weights_after(12), weights_after(1, 4, 7)):
        np.testing.assert_array_equal(together, apart)


@pytest.mark.parametrize('op', [pretrain_op, metatrain_op])
def test_one_iteration_is_one_step_of_tf1_s_adam(op):
    learner, _, make_run = learner_and_run(op)
    before = [v.numpy() for v in learner.trainable_variables]
    task = Sinusoid().tasks('train', SPEC, 0)(tf.constant(5 * 4, tf.int64), 4)
    method = learner.pretrain_gradients if op is pretrain_op else learner.meta_gradients
    gradients, log, _ = method(task, STEP)
    logged = make_run()(5, 1)
    assert logged.keys() == log.keys()
    for name, value in log.items():
        assert float(logged[name]) == pytest.approx(float(value), rel=1e-5)
    for variable, old, g in zip(learner.trainable_variables, before, gradients):
        m, v = 0.1 * g.numpy(), 0.001 * g.numpy() ** 2
        step = 0.01 * np.sqrt(1 - 0.999) / (1 - 0.9) * m / (np.sqrt(v) + 1e-8)
        np.testing.assert_allclose(variable.numpy(), old - step, rtol=1e-3, atol=1e-5)


def test_pretraining_computes_no_more_than_it_minimises():
    """The losses after inner updates, which it does not look at, took most of its time."""
    learner, *_ = learner_and_run()
    task = Sinusoid().tasks('train', SPEC, 0)(0, 4)
    loss = learner.pretrain_loss(task, STEP)
    assert set(loss.log) == {'pre_loss'}
    assert float(loss.value) == float(loss.log['pre_loss'])
    support_only = task._replace(query_x=None, query_y=None)
    assert float(learner.pretrain_loss(support_only, STEP).value) == float(loss.value)


def test_clipped_gradients():
    learner, optimizer, _ = learner_and_run()
    before = [v.numpy() for v in learner.trainable_variables]
    learner.clip = 0.5
    op = metatrain_op(learner, keras.optimizers.SGD(1.0))
    op.apply(Update([tf.fill(v.shape, 2.0) for v in learner.trainable_variables], {}))
    for variable, old in zip(learner.trainable_variables, before):
        np.testing.assert_allclose(variable, old - 0.5, rtol=1e-6)


def test_schedule_stops_wherever_something_happens():
    schedule = Schedule(iterations_per_call=40, print_every=100, save_every=250)
    ends = [0]
    while ends[-1] < 430:
        ends.append(ends[-1] + schedule.count(ends[-1], [130, 430]))
    assert ends[1:] == [40, 80, 100, 120, 130, 160, 200, 240, 250, 280, 300, 320, 360, 400, 430]
    assert schedule.count(390, [130, 430]) == 10


def test_a_call_is_as_short_as_its_iterations_are_slow():
    schedule = Schedule(iterations_per_call=40, print_every=100, seconds_per_call=4)
    counts = [schedule.count(60, [430], seconds) for seconds in (None, 0.01, 0.5, 3.9, 60)]
    assert counts == [20, 20, 8, 1, 1]
    pace = Pace()
    pace.add(3.0, 40, limit=4)  # It compiles; nothing is known of an iteration.
    assert pace.seconds is None
    pace.add(3.0, 40, limit=4)
    assert pace.seconds == 0.075
    slow = Pace()
    slow.add(50.0, 40, limit=4)
    assert schedule.count(60, [430], slow.seconds) == 1  # To see whether it was the compiling.
    slow.add(0.1, 1, limit=4)
    assert schedule.count(60, [430], slow.seconds) == 20


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(tmp_path):
    learner, optimizer, make_run = learner_and_run(inner_lr=1.0)
    directory = RunDirectory(tmp_path, {'learner': learner.named_variables()})
    schedule = Schedule(iterations_per_call=10, print_every=10, save_every=10)
    phase = Phase('metatrain', 40, learner.meta_gradients, optimizer, SPEC)

    def breaking_run(phase, phase_start):
        run = make_run()

        def broken(first, count):
            if first == 20:
                learner.trainable_variables[0].assign_add(
                    learner.trainable_variables[0] * float('nan')
                )
            return run(first, count)

        return broken

    with pytest.raises(UserError, match='nan.*iterations 20 and 30.*learning rates') as error:
        train.train([phase], breaking_run, schedule, 0, directory, SQUARED_ERROR)
    assert 'model-20' in str(error.value)
    assert list(directory.checkpoints()) == [10, 20]
    directory.restore()
    assert all(np.isfinite(v).all() for v in learner.variables)


def test_the_bar_says_when_it_compiles(tmp_path, monkeypatch):
    """During the first call of each phase, and of no other."""
    learner, optimizer, _ = learner_and_run()
    directory = RunDirectory(tmp_path, {'learner': learner.named_variables()})
    bars, said, make = [], [], train.progress.bar
    monkeypatch.setattr(
        train.progress, 'bar', lambda *args, **kwargs: bars.append(make(*args, **kwargs)) or bars[0]
    )

    def run(first, count):
        said.append(bars[0].desc)
        return {'post_loss': 0.5}

    phases = [
        Phase(name, 20, learner.meta_gradients, optimizer, SPEC) for name in ('first', 'second')
    ]
    schedule = train.Schedule(iterations_per_call=10, print_every=10, save_every=40)
    train.train(phases, lambda *_: run, schedule, 0, directory, SQUARED_ERROR)
    assert said == ['compiling: ', '', 'compiling: ', '']


def test_evaluation_scores_each_task_by_itself():
    learner, _, _ = learner_and_run()
    draw = Sinusoid().tasks('test', SPEC, evaluate.TASK_SEED)
    scores = evaluate.evaluator(learner, draw, steps=3, chunk=8)(20)
    assert scores.shape == (20, 4)
    losses, _ = learner.query_scores(draw(13, 1), 3)
    np.testing.assert_allclose(scores[13], losses[:, 0], rtol=1e-5)
    means, deviations, ci95 = summarise(scores)
    np.testing.assert_allclose(ci95, 1.96 * scores.std(0) / 20**0.5)
    assert len(means) == len(deviations) == 4
