"""Softmax cross-entropy, summed or averaged."""

import tensorflow as tf

from maml_tf.errors import ArgumentError
from maml_tf.objectives.metric import ACCURACY
from maml_tf.objectives.objective import Objective, mean_of_counted
from maml_tf.ops.masking import NEVER


class Classification(Objective):
    """Softmax cross-entropy summed over the examples, over the shots; reported as accuracy.

    This is the reference's scaling: a step on this loss is `way` times a step on the mean, and a
    query loss is divided by the *support's* shots too, so the reference's learning rates mean here
    what they mean there. Labels are one-hot, outputs are logits.
    """

    metric = ACCURACY
    classification = True

    def loss(
        self,
        labels: tf.Tensor,
        outputs: tf.Tensor,
        shots: tf.Tensor | float,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        del mask  # The label of an example that does not count is all zero.
        # TensorFlow's fused loss does not broadcast the labels over the inner steps.
        log_likelihood = tf.reduce_sum(labels * tf.nn.log_softmax(outputs), axis=(-2, -1))
        return -log_likelihood / tf.cast(shots, outputs.dtype)

    def score(
        self,
        labels: tf.Tensor,
        outputs: tf.Tensor,
        shots: tf.Tensor | float,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        del shots
        correct = tf.equal(tf.argmax(outputs, axis=-1), tf.argmax(labels, axis=-1))
        return mean_of_counted(tf.cast(correct, outputs.dtype), mask)

    def averaged(self, smoothing: float = 0.0) -> Objective:
        """Returns this objective with the loss that many methods have: the mean over the examples.

        smoothing: see MeanClassification.
        """
        return MeanClassification(smoothing)

    def probabilities(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the probabilities of the classes, [..., way]."""
        return tf.nn.softmax(outputs)

    def predictions(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {'outputs': outputs, 'probabilities': self.probabilities(outputs)}


class MeanClassification(Classification):
    """Softmax cross-entropy averaged over the examples; reported as accuracy.

    smoothing: the share of each label that is divided among the other classes of the task (Szegedy
      et al. 2016).
    """

    def __init__(self, smoothing: float = 0.0):
        if not 0 <= smoothing < 1:
            raise ArgumentError('smoothing', smoothing, 'from 0 to below 1')
        self.smoothing = smoothing

    def loss(
        self,
        labels: tf.Tensor,
        outputs: tf.Tensor,
        shots: tf.Tensor | float,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        del shots
        if self.smoothing:
            labels = self._smooth(labels, outputs)
        return -mean_of_counted(tf.reduce_sum(labels * tf.nn.log_softmax(outputs), axis=-1), mask)

    def _smooth(self, labels, outputs):
        # A class without support has a logit that makes its probability 0; it gets no share.
        others = tf.cast(outputs > NEVER / 2, labels.dtype) - labels
        others *= tf.reduce_sum(labels, axis=-1, keepdims=True)
        share = tf.math.divide_no_nan(others, tf.reduce_sum(others, axis=-1, keepdims=True))
        return labels * (1 - self.smoothing) + share * self.smoothing
