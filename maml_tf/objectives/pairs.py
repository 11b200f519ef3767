"""Objectives that judge every pair of a query and a class by itself."""

import tensorflow as tf

from maml_tf.objectives.classification import Classification
from maml_tf.objectives.objective import mean_of_counted


class PairScores(Classification):
    """Judges every pair of a query and a class by itself; reported as accuracy.

    Outputs are the logits of "the query is of this class". A class without support has the lowest
    finite logit and counts for nothing, as do queries whose label is all zero. Subclasses write
    `errors`.
    """

    def errors(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the loss of each pair, [..., way]."""
        raise NotImplementedError

    def loss(
        self,
        labels: tf.Tensor,
        outputs: tf.Tensor,
        shots: tf.Tensor | float,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        del shots, mask
        there = tf.cast(outputs > outputs.dtype.min, outputs.dtype)
        pairs = tf.reduce_sum(self.errors(labels, outputs) * there, axis=-1)
        return mean_of_counted(
            pairs / tf.reduce_sum(there, axis=-1), tf.reduce_max(labels, axis=-1)
        )

    def probabilities(self, outputs: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(tf.math.log_sigmoid(outputs))


class RelationScores(PairScores):
    """Squared error between the relation score, sigmoid(output), and the label (Sung 2018)."""

    def errors(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        return tf.square(tf.sigmoid(outputs) - labels)


class SamePairs(PairScores):
    """Binary cross-entropy of "the two images are of one class" (Koch et al. 2015, section 3.2)."""

    def errors(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        labels, outputs = tf.broadcast_to(labels, tf.shape(outputs)), tf.convert_to_tensor(outputs)
        return tf.nn.sigmoid_cross_entropy_with_logits(labels, outputs)
