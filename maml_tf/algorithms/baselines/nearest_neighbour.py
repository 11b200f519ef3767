"""The nearest neighbour among the support set (baseline of Ravi and Larochelle, ICLR 2017)."""

import tensorflow as tf

from maml_tf.algorithms.baselines.pretrained import (
    TINY_CLASSES,
    Pretrained,
    define_batch_flag,
    tiny_encoder,
)
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.learner import State
from maml_tf.objectives.classification import MeanClassification
from maml_tf.ops.masking import NEVER


class NearestNeighbour(Pretrained):
    """Pretrains an encoder; a query has the class of the support example with the largest cosine.

    The features are those before the classifier. Outputs are, for each class, the largest cosine to
    one of its examples. That decides the accuracy; a softmax of them is no estimate of
    probabilities.

    Args: Pretrained's.
    """

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'NearestNeighbour':
        """Returns the learner that the command line describes. Raises UserError in regression."""
        return cls(**cls.arguments_of(flags, problem))

    @classmethod
    def tiny(cls) -> tuple['NearestNeighbour', EpisodeSpec]:
        learner = cls(tiny_encoder(), MeanClassification(), TINY_CLASSES)
        return learner, EpisodeSpec(way=3, shot=2, query=2)

    def summarise(self, support: tf.Tensor, support_y: tf.Tensor) -> State:
        """Returns {'support': [tasks, support, features] of length 1, 'support_y'}."""
        return {'support': tf.math.l2_normalize(support, axis=-1), 'support_y': support_y}

    def compare(self, state: State, query: tf.Tensor) -> tf.Tensor:
        cosines = self._cosines(state, query)[..., tf.newaxis]
        labels = state['support_y'][:, tf.newaxis]
        return tf.reduce_max(tf.where(labels > 0, cosines, NEVER), axis=2)

    def resemblance(self, state: State, query_x: tf.Tensor) -> tf.Tensor:
        """Returns the cosines, [tasks, query, support]."""
        return self._cosines(state, self.embed(query_x))

    def _cosines(self, state, query):
        units = tf.math.l2_normalize(query, axis=-1)
        return tf.matmul(units, state['support'], transpose_b=True)


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    define_batch_flag(flags, 'nearest_neighbour', 64)
