"""Weights from checkpoints of the reference and of this package."""

import numpy as np
import pytest
import tensorflow as tf
from golden import GOLDEN_FILES, SHARED, from_file

from maml_tf.algorithms.baselines.baseline import Baseline
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.errors import ArgumentError
from maml_tf.networks.conv_net import ConvNet
from maml_tf.networks.encoders import conv4
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.classification import Classification, MeanClassification
from maml_tf.saving.checkpoints import LEARNER
from maml_tf.saving.init_from import load_weights, reference_names
from maml_tf.saving.run_directory import RunDirectory

RELEASED = SHARED / 'reference' / 'model59000'


@pytest.mark.skipif(
    not RELEASED.with_suffix('.index').exists(), reason='no released checkpoint beside the project'
)
def test_the_released_checkpoint_computes_what_the_reference_computes():
    golden = from_file(next(path for path in GOLDEN_FILES if 'released' in path.stem))
    for variable in golden.learner.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    load_weights(golden.learner, RELEASED)
    outputs = golden.run(golden.learner.query_outputs)(
        golden.task, golden.flags['test_num_updates']
    )
    expected = golden.values['outputbs']
    np.testing.assert_allclose(outputs[1:], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def learner(**kwargs):
    return MAML(ConvNet((28, 28, 1), 5, **{'filters': 4} | kwargs), Classification())


def test_own_checkpoints_by_directory_and_by_prefix(tmp_path):
    saved = learner()
    directory = RunDirectory(tmp_path, {LEARNER: saved.named_variables()})
    directory.save(1)
    for variable in saved.trainable_variables:
        variable.assign_add(tf.ones_like(variable))
    directory.save(2)
    latest, first = learner(), learner()
    load_weights(latest, tmp_path)
    load_weights(first, tmp_path / 'model-1')
    for newest, oldest, now in zip(
        latest.trainable_variables, first.trainable_variables, saved.trainable_variables
    ):
        np.testing.assert_array_equal(newest, now)
        np.testing.assert_allclose(oldest, now - 1.0, atol=1e-6)


@pytest.mark.parametrize(
    'other, words',
    [
        (
            dict(filters=5),
            r'conv1 is \[3, 3, 1, 4\] there and \[3, 3, 1, 5\] here. Compare .*of filters',
        ),
        (dict(norm='layer_norm'), 'holds no norm0_gamma.*the normalisation'),
    ],
)
def test_other_networks_are_refused_and_left_alone(tmp_path, other, words):
    RunDirectory(tmp_path, {LEARNER: learner().named_variables()}).save(1)
    target = learner(**other)
    before = [v.numpy() for v in target.variables]
    with pytest.raises(ArgumentError, match=f'^init_from={tmp_path}: {words}') as error:
        load_weights(target, tmp_path)
    assert '--' not in str(error.value).replace(str(tmp_path), '')
    for variable, value in zip(target.variables, before):
        np.testing.assert_array_equal(variable, value)


def test_a_classifier_of_other_classes(tmp_path):
    """Tasks do without it: an encoder is evaluated on another data set than it was trained on."""
    make = lambda classes: Baseline(conv4((16, 16, 1), 2), MeanClassification(), classes=classes)
    saved, other = make(4), make(7)
    RunDirectory(tmp_path, {LEARNER: saved.named_variables()}).save(1)
    with pytest.raises(ArgumentError, match=r'classifier_kernel is \[2, 4\] there and'):
        load_weights(other, tmp_path)
    load_weights(other, tmp_path, for_tasks_alone=True)
    for ours, theirs in zip(other.encoder.variables, saved.encoder.variables):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    'name, words', [('', 'no checkpoint in this directory'), ('run', 'neither .*run.index')]
)
def test_there_is_no_checkpoint(tmp_path, name, words):
    with pytest.raises(ArgumentError, match=words):
        load_weights(learner(), tmp_path / name)


def test_names_of_the_reference_s_fully_connected_net():
    """It names no weight, and numbers its norms 0, 2, 3, 4."""
    network = FullyConnected((784,), 5, (256, 128, 64, 64), 'batch_norm')
    keys = ['model/Variable'] + [f'model/Variable_{i}' for i in range(1, 10)]
    keys += [f'model/{i}/beta' for i in (0, 2, 3, 4)]
    names = reference_names(network.initializers(), keys)
    assert [names[f'{kind}{i}'] for i in range(1, 6) for kind in 'wb'] == keys[:10]
    assert [names[f'norm{i}_beta'] for i in range(4)] == keys[10:]
