"""Segmentation: every pixel of an image has a class."""

from collections.abc import Sequence

import tensorflow as tf

from maml_tf.objectives.metric import KAPPA, MEAN_IOU, PIXEL_ACCURACY
from maml_tf.objectives.objective import Objective


class Segmentation(Objective):
    """Softmax cross-entropy, the mean over a task's counted pixels; reported as pixel accuracy.

    Labels are one-hot label images [..., tasks, examples, height, width, way], outputs logits of
    this shape, maybe with further axes in front. A pixel whose row is all zero has no label: it
    counts neither in the loss nor in a metric. So an example that is filling has a label image of
    zeros, and a mask is not needed. A task without any label has loss and scores of 0.

    Two metrics more are reported, of the confusion matrix of all counted pixels of a task:

    - the mean over the classes of intersection over union; a class that is neither in the labels
      nor predicted is left out.
    - Cohen's kappa, (p - e) / (1 - e), with p the accuracy and e the accuracy by chance of a
      prediction with the same shares of classes. Where e is 1 (one class, everywhere) it is 0.
    """

    metric = PIXEL_ACCURACY
    further = (MEAN_IOU, KAPPA)
    classification = True

    def loss(
        self,
        labels: tf.Tensor,
        outputs: tf.Tensor,
        shots: tf.Tensor | float = 1,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        del shots, mask  # A mean does not depend on shots.
        axes = (-4, -3, -2, -1)
        log_likelihood = tf.reduce_sum(labels * tf.nn.log_softmax(outputs), axes)
        return -log_likelihood / _at_least_one(tf.reduce_sum(labels, axes))

    def score(
        self,
        labels: tf.Tensor,
        outputs: tf.Tensor,
        shots: tf.Tensor | float = 1,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        del shots, mask
        matrix = confusion(labels, outputs)
        return tf.linalg.trace(matrix) / _at_least_one(tf.reduce_sum(matrix, (-2, -1)))

    def further_scores(self, labels: tf.Tensor, outputs: tf.Tensor) -> list[tf.Tensor]:
        matrix = confusion(labels, outputs)
        right = tf.linalg.diag_part(matrix)
        truth, said = tf.reduce_sum(matrix, -1), tf.reduce_sum(matrix, -2)
        union = truth + said - right
        there = tf.cast(union > 0, matrix.dtype)
        mean_iou = tf.reduce_sum(right / _at_least_one(union), -1)
        mean_iou /= _at_least_one(tf.reduce_sum(there, -1))
        total = _at_least_one(tf.reduce_sum(truth, -1))
        accuracy = tf.reduce_sum(right, -1) / total
        chance = tf.reduce_sum(truth / total[..., None] * (said / total[..., None]), -1)
        return [mean_iou, tf.math.divide_no_nan(accuracy - chance, 1 - chance)]

    def label_shape(
        self, input_shape: Sequence[int], output_dim: int | None
    ) -> tuple[int | None, ...]:
        """Returns (height, width, way)."""
        return (*input_shape[:2], output_dim)

    def probabilities(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the probabilities of each pixel's classes, [..., height, width, way]."""
        return tf.nn.softmax(outputs)

    def predictions(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {'outputs': outputs, 'probabilities': self.probabilities(outputs)}


def confusion(labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Counts a task's pixels by their class and by the class that is predicted.

    Args: as of Segmentation; equal logits are taken for the first class.
    Returns: [..., tasks, way, way], a row for each true class; pixels without a label are left out.
    """
    way = outputs.shape[-1]
    said = tf.one_hot(tf.argmax(outputs, -1), way, dtype=outputs.dtype)
    flat = lambda x: tf.reshape(x, tf.concat([tf.shape(x)[:-4], [-1, way]], 0))
    return tf.matmul(flat(tf.cast(labels, outputs.dtype)), flat(said), transpose_a=True)


def _at_least_one(count):
    """Returns counts of pixels to divide by: where there is none, what is divided is 0."""
    return tf.maximum(count, 1)
