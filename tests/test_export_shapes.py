"""Exported signatures say in words which input does not fit the others."""

import re

import numpy as np
import pytest
import tensorflow as tf
from damaged import fuzz
from hypothesis import given
from hypothesis import strategies as st
from test_export import Exported, call, support

ERRORS = tf.errors.InvalidArgumentError, TypeError, ValueError


@pytest.fixture(scope='module', params=['maml', 'one by one', 'prototypical'])
def exported(request, tmp_path_factory):
    return Exported(request.param, tmp_path_factory.mktemp('export') / 'model')


@pytest.mark.parametrize(
    'name, axis, words',
    [
        ('query_x', 0, 'support_x: has not as many tasks as query_x'),
        ('support_x', 0, 'support_x: has not as many tasks as query_x'),
        ('support_y', 0, 'support_y: has not as many tasks as support_x'),
        ('support_x', 1, 'support_y: has not as many examples as support_x'),
        ('support_y', 1, 'support_y: has not as many examples as support_x'),
    ],
)
@pytest.mark.parametrize('count', [1, 3])
def test_numbers_that_differ(exported, name, axis, words, count):
    """One of them is broadcast where nobody looks."""
    inputs = exported.inputs(tasks=2, shot=2)
    inputs[name] = np.repeat(inputs[name].take([0], axis), count, axis)
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        call(exported.serve, inputs)
    if name != 'query_x' and words.startswith('support_y'):
        with pytest.raises(tf.errors.InvalidArgumentError, match=words):
            call(exported.adapt, support(inputs))


def test_a_state_of_other_tasks(exported):
    inputs = exported.inputs(tasks=2)
    state = call(exported.adapt, support(inputs))
    for tasks in (1, 3):
        query_x = tf.constant(np.repeat(inputs['query_x'][:1], tasks, 0))
        with pytest.raises(tf.errors.InvalidArgumentError, match='as many tasks as query_x'):
            exported.predict_query(query_x=query_x, **state)


def test_no_tasks(exported):
    inputs = {name: value[:0] for name, value in exported.inputs().items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match='support_x: holds no task'):
        call(exported.serve, inputs)


def test_any_shape(exported):
    """Every call has the right answer, or an error, which names an input where sizes may vary."""
    answered = []

    @fuzz(25, 0.2)
    @given(
        st.sampled_from(['support_x', 'support_y', 'query_x']),
        st.integers(0, 5),
        st.sampled_from(['taken', 'one more', 'none', 'axis', 'no axis']),
    )
    def check(name, axis, change):
        inputs = exported.inputs(tasks=2, shot=1, queries=2)
        value = inputs[name]
        axis %= value.ndim
        if change == 'axis':
            value = value[(slice(None),) * axis + (np.newaxis,)]
        elif change == 'no axis':
            value = value.take(0, axis)
        else:
            size = value.shape[axis]
            chosen = {'taken': [0], 'one more': [*range(size), 0], 'none': []}[change]
            value = value.take(np.array(chosen, int), axis)
        inputs[name] = value
        try:
            outputs = call(exported.serve, inputs)['outputs']
        except ERRORS as error:
            answered.append(False)
            # Another number of axes is TensorFlow's to refuse.
            same_axes = change in ('taken', 'one more', 'none')
            assert not same_axes or re.search('support_x|support_y|query_x', str(error)), error
        else:
            answered.append(True)
            # Some learners take any number of classes.
            assert outputs.shape == (*inputs['query_x'].shape[:2], inputs['support_y'].shape[2])
            assert name == 'query_x' or change == 'taken' or axis == 1, (name, axis, change)

    check()
    assert 0 < sum(answered) < len(answered)
