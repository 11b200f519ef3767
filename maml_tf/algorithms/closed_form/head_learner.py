"""What methods share whose head is solved on the support set."""

import keras
import tensorflow as tf

from maml_tf.algorithms.metric.metric_learner import (
    MetricLearner,
    check_flat,
    of_absent_classes,
)
from maml_tf.learner import State
from maml_tf.networks.image_encoders.by_name import ENCODER_FLAGS
from maml_tf.objectives.objective import Objective
from maml_tf.ops.masking import NEVER


class HeadLearner(MetricLearner):
    """A learner with an encoder for all tasks and a linear head for each. Subclasses write `solve`.

    The encoder is trained through the solution of the head. Outputs are the head's, times a learnt
    scale and plus a learnt offset where the method has them.

    Args:
      encoder, objective, transductive: see MetricLearner; features are flat.
      intercept: append a one to all features, so that the head has a bias, penalised as the rest.
      scale, offset: where the learnt ones start; None: there are none.
    Raises: ArgumentError for features that are not flat.
    """

    heeds = (*MetricLearner.heeds, *ENCODER_FLAGS)

    def __init__(
        self,
        encoder: keras.Model,
        objective: Objective,
        intercept: bool,
        scale: float | None = None,
        offset: float | None = None,
        **kwargs,
    ):
        super().__init__(encoder, objective, **kwargs)
        check_flat(encoder)
        self.intercept = intercept
        self.scale, self.offset = (
            None
            if start is None
            else self.add_weight(
                shape=(), initializer=keras.initializers.Constant(start), name=name
            )
            for start, name in ((scale, 'scale'), (offset, 'offset'))
        )

    def solve(self, features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Returns the head's weights, [tasks, features, way].

        Args:
          features: [tasks, support, features], with the intercept's; of an example that does not
            count all are zero.
          labels: one-hot [tasks, support, way], zero alike.
        """
        raise NotImplementedError

    def summarise(self, support: tf.Tensor, support_y: tf.Tensor) -> State:
        """Returns {'weights': [tasks, features, way], 'absent': [tasks, 1, way]}."""
        counts = tf.reduce_sum(support_y, axis=-1, keepdims=True)
        support *= counts
        if self.intercept:
            support = tf.concat([support, counts], -1)
        return {
            'weights': self.solve(support, support_y),
            'absent': of_absent_classes(support_y, NEVER),
        }

    def compare(self, state: State, query: tf.Tensor) -> tf.Tensor:
        weights = state['weights']
        if self.intercept:
            outputs = tf.matmul(query, weights[:, :-1]) + weights[:, -1:]
        else:
            outputs = tf.matmul(query, weights)
        return self.adjusted(outputs) + state['absent']

    def adjusted(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns outputs, scaled and moved by what is learnt."""
        if self.scale is not None:
            outputs *= self.scale
        if self.offset is not None:
            outputs += self.offset
        return outputs
