"""Names of variables in checkpoints: the same for learners that are built alike, in any process."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from maml_tf.algorithms.metric.prototypical import Prototypical
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.objectives.classification import MeanClassification
from maml_tf.saving.checkpoints import LEARNER
from maml_tf.saving.init_from import load_weights
from maml_tf.saving.run_directory import RunDirectory
from maml_tf.serialisation.variables import named, optimizer_names, structural_names


def functional():
    """An encoder whose layers Keras names."""
    x = inputs = keras.Input((8, 8, 1))
    for filters in (2, 3):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(filters, 3)(x)))
    return keras.Model(inputs, layers.Dense(4)(layers.Dense(5)(layers.Flatten()(x))))


def sequential():
    inner = keras.Sequential([layers.Conv2D(2, 3), layers.Conv2D(3, 3)])
    return keras.Sequential([keras.Input((8, 8, 1)), inner, layers.Flatten(), layers.Dense(4)])


def prototypical(encoder=functional):
    return Prototypical(encoder(), MeanClassification())


LEARNERS = {
    'maml': lambda: MAML.tiny()[0],
    'functional': prototypical,
    'sequential': lambda: prototypical(sequential),
}


def trained(make):
    """(a learner, its optimizer after a step, what a checkpoint holds of both)."""
    learner = make()
    optimizer = keras.optimizers.Adam(0.1)
    optimizer.build(learner.trainable_variables)
    optimizer.apply([tf.ones_like(v) for v in learner.trainable_variables])
    groups = {
        LEARNER: learner.named_variables(),
        'metatrain': optimizer_names(optimizer, learner),
    }
    return learner, optimizer, groups


def test_the_reference_s_names():
    names = list(MAML.tiny()[0].named_variables())
    assert names == ['w1', 'b1', 'w2', 'b2', 'w3', 'b3', 'norm0_beta', 'norm1_beta']


def test_layers_of_one_kind_are_told_apart():
    names = list(prototypical().named_variables())
    norms = ('gamma', 'beta', 'moving_mean', 'moving_variance')
    assert names == [
        *('conv2d_kernel', 'conv2d_bias', *(f'batch_normalization_{name}' for name in norms)),
        *('conv2d_1_kernel', 'conv2d_1_bias', *(f'batch_normalization_1_{name}' for name in norms)),
        *('dense_kernel', 'dense_bias', 'dense_1_kernel', 'dense_1_bias'),
    ]
    assert {'sequential_sequential_conv2d_1_kernel', 'sequential_dense_bias'} <= set(
        prototypical(sequential).named_variables()
    )


@pytest.mark.parametrize('make', LEARNERS.values(), ids=list(LEARNERS))
def test_what_one_writes_another_of_the_same_process_reads(make, tmp_path):
    learner, optimizer, groups = trained(make)
    other, its_optimizer, its_groups = trained(make)
    assert {g: list(names) for g, names in groups.items()} == {
        g: list(names) for g, names in its_groups.items()
    }
    assert len(groups['metatrain']) == len(optimizer.variables)
    for group in groups.values():
        assert all(name.isidentifier() for name in group)
    for variable in other.variables + its_optimizer.variables:
        variable.assign(tf.zeros_like(variable))
    RunDirectory(tmp_path, groups).save(3)
    assert RunDirectory(tmp_path, its_groups).restore() == 3
    pairs = zip(learner.variables + optimizer.variables, other.variables + its_optimizer.variables)
    for written, read in pairs:
        np.testing.assert_array_equal(written, read)
    third = make()
    load_weights(third, tmp_path)
    for written, read in zip(learner.variables, third.variables):
        np.testing.assert_array_equal(written, read)


def test_slots_bear_the_names_of_their_weights():
    learner, optimizer, groups = trained(LEARNERS['maml'])
    slots = groups['metatrain']
    assert list(slots)[:4] == ['iteration', 'learning_rate', 'w1_momentum', 'w1_velocity']
    by_name = dict(zip(slots, optimizer.variables))
    for name, weight in learner.named_variables().items():
        assert by_name[f'{name}_velocity'].shape == weight.shape
        assert slots[f'{name}_velocity'] is by_name[f'{name}_velocity'].value


def test_an_optimizer_without_slots_yet_is_refused():
    with pytest.raises(ValueError, match='build it'):
        optimizer_names(keras.optimizers.Adam(), MAML.tiny()[0])


class Twins(keras.Model):
    """Two parts whose layers a user gave the same names, and a variable that sounds like one."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (layers.Dense(2, name='fc') for _ in range(2))
        for layer in (self.first, self.second):
            layer.build((None, 2))
        self.sounds_alike = self.add_weight(name='fc_kernel', shape=(3,))
        self.built = True


def test_the_same_name_twice():
    twins = Twins()
    assert list(named(twins.variables, twins.name)) == [
        *('fc_kernel', 'fc_kernel_1', 'fc_bias', 'fc_kernel_2', 'fc_bias_1')
    ]
    optimizer = keras.optimizers.SGD(momentum=0.9)
    optimizer.build(twins.trainable_variables)
    names = optimizer_names(optimizer, twins)
    assert len(names) == len(optimizer.variables) == 7
    assert names['fc_kernel_2_momentum'].shape == names['fc_kernel_1_momentum'].shape == (2, 2)


@pytest.mark.parametrize(
    'paths, names',
    [
        (['maml_1/w1', 'maml_1/norm0_beta'], ['w1', 'norm0_beta']),
        (['fc_7/kernel', 'fc_7/bias', 'fc_3/kernel'], ['fc_kernel', 'fc_bias', 'fc_1_kernel']),
        (['a_2/fc_4/k', 'a_5/fc_6/k', 'a_5/fc_9/k'], ['a_fc_k', 'a_1_fc_k', 'a_1_fc_1_k']),
        (['conv1/kernel', 'conv2/kernel'], ['conv1_kernel', 'conv2_kernel']),
        (['my-layer/w 1'], ['my_layer_w_1']),
    ],
)
def test_names_of_paths(paths, names):
    assert structural_names(paths, 'maml_1') == names
