"""Two classes whose ranking counts: learnt by cross-entropy, reported as ROC-AUC."""

import tensorflow as tf

from maml_tf.errors import ArgumentError
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.metric import ROC_AUC
from maml_tf.objectives.objective import Objective


class RocAuc(MeanClassification):
    """Mean softmax cross-entropy of two classes; reported as the area under the ROC curve.

    Class 1 is the positive one (an active molecule), class 0 the negative one. The area is that of
    the ranking by output 1 minus output 0. It does not change with the balance of the classes: of
    queries that are drawn class by class, its expected value is that of all molecules.

    smoothing: see MeanClassification.
    """

    metric = ROC_AUC

    def score(
        self,
        labels: tf.Tensor,
        outputs: tf.Tensor,
        shots: tf.Tensor | float,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns the area, 0 to 1. Raises ArgumentError where there are not two classes."""
        del shots
        if labels.shape[-1] != 2:
            raise ArgumentError('way', labels.shape[-1], 'ROC-AUC ranks two classes')
        outputs = tf.convert_to_tensor(outputs)
        counts = tf.cast(labels, outputs.dtype)
        if mask is not None:
            counts *= tf.cast(mask, outputs.dtype)[..., tf.newaxis]
        return roc_auc(outputs[..., 1] - outputs[..., 0], counts[..., 1], counts[..., 0])

    def averaged(self, smoothing: float = 0.0) -> Objective:
        return RocAuc(smoothing)


def roc_auc(scores: tf.Tensor, positive: tf.Tensor, negative: tf.Tensor) -> tf.Tensor:
    """Returns the area under the ROC curve, which is U / (P N) of Mann and Whitney (1947).

    That is the share of the pairs of a positive and a negative example in which the positive one
    has the higher score; a tie counts half. Without any pair it is 0.5. NaN among the scores that
    count gives NaN. It takes memory for every pair of examples, unless XLA compiles it.

    Args:
      scores: [..., examples].
      positive, negative: [..., examples], 1 where an example is positive (negative), else 0; they
        broadcast against the scores. An example that is neither does not count.
    Returns: [...].
    """
    dtype = scores.dtype
    mine, theirs = scores[..., :, tf.newaxis], scores[..., tf.newaxis, :]
    won = tf.cast(mine > theirs, dtype) + 0.5 * tf.cast(mine == theirs, dtype)
    beaten = tf.reduce_sum(won * negative[..., tf.newaxis, :], -1)
    pairs = tf.reduce_sum(positive, -1) * tf.reduce_sum(negative, -1)
    area = tf.reduce_sum(beaten * positive, -1) / tf.maximum(pairs, 1)
    broken = tf.reduce_any(tf.math.is_nan(scores) & (positive + negative > 0), -1)
    area = tf.where(pairs > 0, area, tf.cast(0.5, dtype))
    return tf.where(broken, tf.cast(float('nan'), dtype), area)
