"""SavedModels of the convolutional nets; test_conformance.py exports every algorithm's tiny
learner."""

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.errors import UserError
from maml_tf.networks.reference import ConvNet
from maml_tf.objectives import Classification
from maml_tf.saving.export import export


@pytest.mark.parametrize(
    'transductive, kwargs', [(True, dict(max_pool=True, head='flatten')), (False, {})]
)
def test_any_number_of_tasks_shots_and_queries(tmp_path, transductive, kwargs):
    learner = MAML(
        ConvNet((17, 17, 1), 3, 4, **kwargs),
        Classification(),
        inner_lr=0.1,
        transductive=transductive,
    )
    export(learner, tmp_path / 'model', (17, 17, 1), 3, 1, {})
    serve = tf.saved_model.load(str(tmp_path / 'model')).signatures['serving_default']
    rng = np.random.default_rng(0)
    for tasks, shot, queries in [(1, 1, 1), (3, 2, 5)]:
        images = lambda n: tf.constant(rng.random((tasks, n, 17, 17, 1), 'float32'))
        inputs = dict(
            support_x=images(3 * shot),
            query_x=images(queries),
            support_y=tf.constant(
                np.tile(np.eye(3, dtype='float32').repeat(shot, 0), (tasks, 1, 1))
            ),
        )
        expected = learner(inputs)
        assert np.abs(serve(**inputs)['outputs'] - expected).max() <= 1e-5 * np.abs(expected).max()
    with pytest.raises(UserError, match='exists'):
        export(learner, tmp_path / 'model', (17, 17, 1), 3, 1, {})
