"""What a task asks for: its loss and the metric it is reported in, each one number per task."""
import tensorflow as tf


class Regression:
    """Mean squared error, both minimised and reported."""
    metric_name = 'loss'

    def loss(self, targets, outputs, shots):
        """targets, outputs: [..., tasks, examples, out] -> [..., tasks]. `shots` does not enter a mean."""
        del shots
        return tf.reduce_mean(tf.square(outputs - targets), axis=(-2, -1))

    metric = loss


class Classification:
    """Softmax cross-entropy summed over the examples and divided by the shots; reported as accuracy.

    The reference's scaling: a step on this loss is `way` times a step on the mean, and a query loss is
    divided by the *support's* shots too, so the reference's learning rates mean here what they mean there.
    """
    metric_name = 'accuracy'

    def loss(self, labels, logits, shots):
        """labels: one-hot [..., tasks, examples, way]; logits alike; shots: a number -> [..., tasks]."""
        # Not TensorFlow's fused loss: that does not broadcast the labels over the inner steps.
        log_likelihood = tf.reduce_sum(labels * tf.nn.log_softmax(logits), axis=(-2, -1))
        return -log_likelihood / tf.cast(shots, logits.dtype)

    def metric(self, labels, logits, shots):
        """As `loss`, but the fraction of examples whose largest logit is the label's -> [..., tasks]."""
        del shots
        correct = tf.equal(tf.argmax(logits, axis=-1), tf.argmax(labels, axis=-1))
        return tf.reduce_mean(tf.cast(correct, logits.dtype), axis=-1)
