"""The objective of messages of bits, each of which is right or wrong by itself."""

import tensorflow as tf

from maml_tf.objectives.metric import BIT_ERROR_RATE
from maml_tf.objectives.objective import Objective, mean_of_counted


class Bits(Objective):
    """Binary cross-entropy, the mean over the bits and the examples; reported as bit error rate.

    Labels are 0 or 1, outputs the logits of "the bit is 1".
    """

    metric = BIT_ERROR_RATE

    def loss(
        self,
        labels: tf.Tensor,
        outputs: tf.Tensor,
        shots: tf.Tensor | float,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        del shots  # A mean does not depend on them.
        # TensorFlow's fused loss does not broadcast the labels over the inner steps.
        errors = tf.nn.softplus(outputs) - labels * outputs
        return mean_of_counted(tf.reduce_mean(errors, axis=-1), mask)

    def score(
        self,
        labels: tf.Tensor,
        outputs: tf.Tensor,
        shots: tf.Tensor | float,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        del shots
        wrong = tf.cast(tf.not_equal(outputs > 0, labels > 0.5), outputs.dtype)
        return mean_of_counted(tf.reduce_mean(wrong, axis=-1), mask)

    def predictions(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the logits, and the probabilities of a 1, [..., bits]."""
        return {'outputs': outputs, 'probabilities': tf.sigmoid(outputs)}
