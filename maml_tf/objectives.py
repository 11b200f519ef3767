"""What a task asks for: its loss and the metric it is reported in, each one number per task."""

import tensorflow as tf


class Regression:
    """Mean squared error, both minimised and reported."""

    metric_name = 'loss'

    def loss(self, targets, outputs, shots, mask=None):
        """targets, outputs: [..., tasks, examples, out] -> [..., tasks]. `shots` does not enter a
        mean.

        mask: [tasks, examples], 1 where an example counts; None: all do.
        """
        del shots
        return _mean(tf.reduce_mean(tf.square(outputs - targets), axis=-1), mask)

    metric = loss


class Classification:
    """Softmax cross-entropy summed over the examples and divided by the shots; reported as
    accuracy.

    The reference's scaling: a step on this loss is `way` times a step on the mean, and a query loss
    is divided by the *support's* shots too, so the reference's learning rates mean here what they
    mean there.
    """

    metric_name = 'accuracy'

    def loss(self, labels, logits, shots, mask=None):
        """labels: one-hot [..., tasks, examples, way]; logits alike; shots: a number, or [tasks] ->
        [..., tasks].

        mask: as in Regression; the all-zero label of an example that does not count already keeps
          it out.
        """
        del mask
        # Not TensorFlow's fused loss: that does not broadcast the labels over the inner steps.
        log_likelihood = tf.reduce_sum(labels * tf.nn.log_softmax(logits), axis=(-2, -1))
        return -log_likelihood / tf.cast(shots, logits.dtype)

    def metric(self, labels, logits, shots, mask=None):
        """As `loss`, but the fraction of examples whose largest logit is the label's -> [...,
        tasks]."""
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


class PairScores(Classification):
    """Every (query, class) pair is judged by itself: outputs are logits of "the query is of this
    class".

    Reported as accuracy. A class without support has the lowest finite logit and counts for
    nothing, as do queries whose label is all zero. Subclasses write `errors`.
    """

    def errors(self, labels, outputs):
        """labels [..., way], outputs alike -> the loss of each pair."""
        raise NotImplementedError

    def loss(self, labels, outputs, shots, mask=None):
        """Mean over all pairs: labels [tasks, examples, way], outputs [..., tasks, examples, way]
        -> [..., tasks]."""
        del shots, mask
        there = tf.cast(outputs > outputs.dtype.min, outputs.dtype)
        pairs = tf.reduce_sum(self.errors(labels, outputs) * there, axis=-1) / tf.reduce_sum(
            there, axis=-1
        )
        return _mean(pairs, tf.reduce_max(labels, axis=-1))

    def probabilities(self, outputs):
        """[..., way] -> the pairs' scores, divided by their sum over the classes."""
        return tf.nn.softmax(tf.math.log_sigmoid(outputs))


class RelationScores(PairScores):
    """Squared error between the relation score, sigmoid(output), and the label (Sung et al. 2018,
    equation 2)."""

    def errors(self, labels, outputs):
        return tf.square(tf.sigmoid(outputs) - labels)


class SamePairs(PairScores):
    """Binary cross-entropy of "the two images are of one class" (Koch et al. 2015, section 3.2)."""

    def errors(self, labels, outputs):
        labels, outputs = tf.broadcast_to(labels, tf.shape(outputs)), tf.convert_to_tensor(outputs)
        return tf.nn.sigmoid_cross_entropy_with_logits(labels, outputs)
