"""What a task asks for: its loss and the metric it is reported in, each one number per task."""
import tensorflow as tf


class Regression:
    """Mean squared error, both minimised and reported."""
    metric_name = 'loss'

    def loss(self, targets, outputs, shots, mask=None):
        """targets, outputs: [..., tasks, examples, out] -> [..., tasks]. `shots` does not enter a mean.

        mask: [tasks, examples], 1 where an example counts; None: all do.
        """
        del shots
        return _mean(tf.reduce_mean(tf.square(outputs - targets), axis=-1), mask)

    metric = loss


class Classification:
    """Softmax cross-entropy summed over the examples and divided by the shots; reported as accuracy.

    The reference's scaling: a step on this loss is `way` times a step on the mean, and a query loss is
    divided by the *support's* shots too, so the reference's learning rates mean here what they mean there.
    """
    metric_name = 'accuracy'

    def loss(self, labels, logits, shots, mask=None):
        """labels: one-hot [..., tasks, examples, way]; logits alike; shots: a number, or [tasks] -> [..., tasks].

        mask: as in Regression; the all-zero label of an example that does not count already keeps it out.
        """
        del mask
        # Not TensorFlow's fused loss: that does not broadcast the labels over the inner steps.
        log_likelihood = tf.reduce_sum(labels * tf.nn.log_softmax(logits), axis=(-2, -1))
        return -log_likelihood / tf.cast(shots, logits.dtype)

    def metric(self, labels, logits, shots, mask=None):
        """As `loss`, but the fraction of examples whose largest logit is the label's -> [..., tasks]."""
        del shots
        correct = tf.equal(tf.argmax(logits, axis=-1), tf.argmax(labels, axis=-1))
        return _mean(tf.cast(correct, logits.dtype), mask)


    def probabilities(self, outputs):
        """[..., way] -> probabilities of the classes."""
        return tf.nn.softmax(outputs)


class MeanClassification(Classification):
    """Softmax cross-entropy averaged over the examples; reported as accuracy."""

    def loss(self, labels, logits, shots, mask=None):
        """As in Classification, but the mean over the examples that count."""
        del shots
        return -_mean(tf.reduce_sum(labels * tf.nn.log_softmax(logits), axis=-1), mask)


def _mean(values, mask):
    """Mean over the last axis, of what counts."""
    if mask is None:
        return tf.reduce_mean(values, axis=-1)
    return tf.reduce_sum(values * mask, axis=-1) / tf.reduce_sum(mask, axis=-1)
