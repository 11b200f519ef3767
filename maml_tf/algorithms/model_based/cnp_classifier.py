"""Conditional Neural Processes of classes (Garnelo et al., ICML 2018, section 4.3)."""

import keras
import tensorflow as tf

from maml_tf.algorithms.metric.metric_learner import (
    MetricLearner,
    TrainingPass,
    check_flat,
    of_absent_classes,
)
from maml_tf.episodes.random_bits import keyed_bits
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.learner import State
from maml_tf.networks.encoders import conv4
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.objective import Objective
from maml_tf.ops.masking import NEVER
from maml_tf.ops.shapes import sizes
from maml_tf.training.phases import Loss

SIZE = 512
ORDERS = 16
_ORDERS = 0x636E70  # The stream of a task's random bits that decides the orders of its classes.


class CNPClassifier(MetricLearner):
    """Predicts a query's class from its embedding and the mean embeddings of all classes.

    r_k = mean of h(x_i) over the support of class k;  logits = g([r_1, ..., r_N, h(x*)])

    The classes' means are concatenated in the order of their labels, so g learns the way that it is
    trained at, and that a class is what its place says. How the classes of a task are numbered is
    random: training averages the loss over several such orders, which costs little beside the
    embedding, and is what other tasks would bring about in the end.

    The paper's networks were not verified; these are our reading: h is any encoder, by default four
    convolution blocks, and g has two hidden layers with ReLU. Batch norm uses running averages in
    evaluation, unless `transductive`.

    Args:
      encoder, transductive: see MetricLearner; features are flat.
      way: classes of a task.
      size: units of g's hidden layers.
      orders: in which the classes of each training task are numbered.
    Raises: ArgumentError for features that are not flat.
    """

    fixed_way = True
    own_encoder = 'conv4'

    def __init__(
        self,
        encoder: keras.Model,
        way: int,
        objective: Objective,
        size: int = SIZE,
        orders: int = ORDERS,
        **kwargs,
    ):
        super().__init__(encoder, objective, **kwargs)
        check_flat(encoder)
        self.way, self.orders = way, orders
        features = encoder.output_shape[-1]
        self.decoder = keras.Sequential(
            [
                keras.Input(((way + 1) * features,)),
                keras.layers.Dense(size, 'relu', name='fc1'),
                keras.layers.Dense(size, 'relu', name='fc2'),
                keras.layers.Dense(way, name='fc3'),
            ],
            name='decoder',
        )

    def summarise(self, support: tf.Tensor, support_y: tf.Tensor) -> State:
        """Returns {'classes': means [tasks, way, features], 'absent': [tasks, 1, way]}."""
        shots = tf.reduce_sum(support_y, axis=1)[..., tf.newaxis]
        means = tf.matmul(support_y, support, transpose_a=True) / tf.maximum(shots, 1)
        return {'classes': means, 'absent': of_absent_classes(support_y, NEVER)}

    def compare(self, state: State, query: tf.Tensor) -> tf.Tensor:
        return self._decoded(state['classes'], query) + state['absent']

    def prototypes(self, state: State) -> tf.Tensor:
        return state['classes']

    def meta_loss(self, task: Task, step: tf.Tensor) -> Loss:
        """Returns the query loss, a mean over the orders, with batch norm in training mode."""
        training = TrainingPass(self, task.key, step)
        mask = None
        if task.support_mask is not None:
            mask = tf.concat([task.support_mask, task.query_mask], 1)
        embedded = self.embed(tf.concat([task.support_x, task.query_x], 1), mask, training)
        supports = task.support_x.shape[1]
        state = self.summarise(embedded[:, :supports], task.support_y)
        return self.query_loss(
            task, self._in_orders(state, embedded[:, supports:], task.key), training.state()
        )

    def _in_orders(self, state, query, key):
        """Returns the outputs with the classes in each order, [orders, tasks, query, way].

        Their last axis is again in the order of the labels.
        """
        tasks, queries, features = sizes(query)
        bits = tf.broadcast_to(
            keyed_bits(key, self.orders * self.way, _ORDERS), [tasks, self.orders * self.way]
        )
        order = tf.argsort(
            tf.bitcast(tf.reshape(bits, [tasks, self.orders, self.way]), tf.int32), stable=True
        )
        classes = tf.gather(state['classes'], order, batch_dims=1)
        classes = tf.reshape(classes, [tasks * self.orders, self.way, features])
        repeated = tf.repeat(query, self.orders, axis=0)
        outputs = tf.reshape(
            self._decoded(classes, repeated), [tasks, self.orders, queries, self.way]
        )
        back = tf.argsort(order, stable=True)
        back = tf.broadcast_to(back[:, :, tf.newaxis], [tasks, self.orders, queries, self.way])
        outputs = tf.gather(outputs, back, axis=-1, batch_dims=3)
        return tf.transpose(outputs, [1, 0, 2, 3]) + state['absent']

    def _decoded(self, classes, query):
        """[n, way, features], [n, queries, features] -> [n, queries, way]."""
        n, queries, features = sizes(query)
        width = self.way * features
        joined = tf.broadcast_to(tf.reshape(classes, [n, 1, width]), [n, queries, width])
        joined = tf.concat([joined, query], axis=-1)
        return tf.reshape(
            self.decoder(tf.reshape(joined, [n * queries, width + features])),
            [n, queries, self.way],
        )

    @classmethod
    def tiny(cls) -> tuple['CNPClassifier', EpisodeSpec]:
        """Returns a learner whose every check takes seconds, and the sizes of its tasks."""
        spec = EpisodeSpec(way=3, shot=2, query=2)
        learner = cls(conv4((16, 16, 1), 8), spec.way, MeanClassification(), size=32)
        return learner, spec
