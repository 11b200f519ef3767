"""Learners as Keras users know models: fit, evaluate, summary, .keras files."""

import importlib
import re

import keras
import numpy as np
import pytest
from command import ROOT

import maml_tf
from maml_tf import EpisodeSpec, FullyConnected, Sinusoid
from maml_tf.evaluation.evaluate import evaluator
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import op_of
from maml_tf.training.outer_optimizers import adam
from maml_tf.training.phases import OuterLoop

SPEC = EpisodeSpec(way=1, shot=5, query=5)
TASKS, EPOCHS, STEPS = 6, 2, 5


def learner(method=maml_tf.MAML, **kwargs):
    network = FullyConnected((1,), 1, (20, 20))
    return method(network, Sinusoid().objective, evaluation_steps=3, **kwargs)


def fitted(made, optimizer):
    made.compile(optimizer)
    dataset = Sinusoid().dataset(SPEC, TASKS, seed=3)
    history = made.fit(dataset, steps_per_epoch=STEPS, epochs=EPOCHS, verbose=0)
    return made, history.history


@pytest.mark.parametrize(
    'method, kwargs',
    [
        (maml_tf.MAML, {}),
        pytest.param(maml_tf.MAML, {'tasks_at_once': 2}, marks=pytest.mark.slow),
        pytest.param(maml_tf.Reptile, {}, marks=pytest.mark.slow),
    ],
    ids=['maml', 'maml in shares', 'reptile'],
)
def test_fit_gives_the_numbers_of_the_command_line_s_loop(method, kwargs):
    theirs = learner(method, **kwargs)
    *_, phase = theirs.phases(OuterLoop(0, EPOCHS * STEPS, 1e-2, SPEC))
    draw = Sinusoid().tasks('train', SPEC, seed=3)
    run = iterate(op_of(theirs, phase), draw, TASKS, theirs.share(TASKS, SPEC))
    logs = [run(epoch * STEPS, STEPS) for epoch in range(EPOCHS)]
    if method is maml_tf.MAML:
        optimizer = adam(1e-2)
    else:
        rate = keras.optimizers.schedules.PolynomialDecay(1.0, EPOCHS * STEPS, 0.0)
        optimizer = keras.optimizers.SGD(rate)
    ours, history = fitted(learner(method, **kwargs), optimizer)
    for one, other in zip(ours.variables, theirs.variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-5, atol=1e-7)
    assert history.keys() == logs[0].keys()
    for name, means in history.items():
        np.testing.assert_allclose(means, [log[name] for log in logs], rtol=1e-5)


def test_evaluate_gives_the_score_after_the_last_step():
    made = learner()
    made.compile()
    dataset = Sinusoid().dataset(SPEC, TASKS, 'test', seed=1)
    found = made.evaluate(dataset, steps=4, return_dict=True, verbose=0)
    tasks = Sinusoid().tasks('test', SPEC, 1)
    expected = evaluator(made, tasks, chunk=TASKS)(4 * TASKS).mean(0)[-1]
    assert found == {'loss': pytest.approx(float(expected), rel=1e-5)}


def test_a_keras_file_goes_on_where_it_was_saved(tmp_path, capsys):
    made, _ = fitted(learner(), adam(1e-2))
    made.save(tmp_path / 'learner.keras')
    loaded = keras.models.load_model(tmp_path / 'learner.keras')
    assert int(loaded.optimizer.iterations) == EPOCHS * STEPS
    dataset = Sinusoid().dataset(SPEC, TASKS, seed=4)
    for one in (made, loaded):
        one.fit(dataset, steps_per_epoch=2, verbose=0)
    for one, other in zip(made.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    made.summary()
    assert 'Trainable params: 481' in capsys.readouterr().out


def test_callbacks_see_the_log(tmp_path):
    made = learner()
    made.compile()
    log = tmp_path / 'log.csv'
    validation = Sinusoid().dataset(SPEC, TASKS, 'val', seed=1)
    made.fit(
        Sinusoid().dataset(SPEC, TASKS),
        steps_per_epoch=2,
        epochs=2,
        validation_data=validation,
        validation_steps=2,
        callbacks=[keras.callbacks.CSVLogger(log)],
        verbose=0,
    )
    header, *rows = log.read_text().splitlines()
    assert header == 'epoch,post_loss,pre_loss,val_loss' and len(rows) == 2


def test_a_loss_is_the_learner_s_own():
    with pytest.raises(ValueError, match='loss: a learner has its own'):
        learner().compile(loss='mse')


def test_public_names():
    stub = (ROOT / 'maml_tf' / '__init__.pyi').read_text('utf-8')
    pattern = r'^from (\S+) import (?:\(\s+)?(\w+) as \2(?:,\s+\))?$'
    typed = re.findall(pattern, stub, flags=re.MULTILINE)
    assert sorted(name for _, name in typed) == sorted({*maml_tf.__all__} - {'__version__'})
    for module, name in typed:
        assert getattr(importlib.import_module(module), name) is getattr(maml_tf, name)
    for name in maml_tf.__all__:
        assert getattr(maml_tf, name) is not None
    assert {*maml_tf.__all__} <= {*dir(maml_tf)}
    with pytest.raises(AttributeError, match='no attribute'):
        maml_tf.nothing  # noqa: B018
