"""Learners that compare embeddings: what is common to the metric-based methods."""
import tensorflow as tf

from maml_tf.learner import Learner


class MetricLearner(Learner):
    """A learner with an encoder. Subclasses write `summarise` and `compare`, both on embeddings.

    In training the support and query images of the meta-batch are embedded together, so that batch norm sees both,
    as in the authors' codes. Afterwards batch norm uses running averages, unless `transductive`.

    Args:
      encoder: a keras.Model, images [n, ...] -> features [n, ...].
      transductive: batch norm by the statistics of the batch at hand in evaluation too.
    """
    takes_masks = True  # An example that does not count has a label of zeros.
    xla = False  # Its convolutions are ten times slower than TensorFlow's own on a CPU, where kernels are shared.

    def __init__(self, encoder, objective, transductive=False, **kwargs):
        super().__init__(objective, **kwargs)
        self.encoder, self.transductive = encoder, transductive

    def summarise(self, support, support_y, training=False):
        """Embeddings [tasks, support, ...], one-hot labels [tasks, support, way] -> the task's state."""
        raise NotImplementedError

    def compare(self, state, query, training=False):
        """state, embeddings [tasks, query, ...] -> outputs [tasks, query, way]."""
        raise NotImplementedError

    def embed(self, images, training=False):
        """[tasks, n, *input_shape] -> [tasks, n, ...]"""
        shape = tf.shape(images)
        features = self.encoder(tf.reshape(images, [-1, *images.shape[2:]]), training=training or self.transductive)
        return tf.reshape(features, tf.concat([shape[:2], tf.shape(features)[1:]], 0))

    def adapt(self, support_x, support_y, steps=None, mask=None):
        """Returns what `summarise` makes of the embedded support set; `steps` and `mask` are not needed."""
        del steps, mask
        return self.summarise(self.embed(support_x), support_y)

    def predict_query(self, state, query_x):
        return self.compare(state, self.embed(query_x))

    def meta_loss(self, task):
        """The query loss, with batch norm in training mode."""
        supports = task.support_x.shape[1]
        embedded = self.embed(tf.concat([task.support_x, task.query_x], 1), training=True)
        state = self.summarise(embedded[:, :supports], task.support_y, training=True)
        return self._query_loss_and_log(task, self.compare(state, embedded[:, supports:], training=True))


def of_absent_classes(support_y, value):
    """`value` where a class has no support example, else 0: [tasks, 1, way], to be added to outputs."""
    return tf.where(tf.reduce_any(support_y > 0, axis=1, keepdims=True), 0., value)
