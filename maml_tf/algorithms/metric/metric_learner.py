"""Learners that compare embeddings: what is common to the metric-based methods."""

import functools

import tensorflow as tf

from maml_tf.errors import UserError
from maml_tf.learner import Learner
from maml_tf.objectives import MeanClassification, Regression

NEVER = (
    -1e9
)  # The output of a class that cannot be: its probability is 0, and 0 times its logarithm too.


class MetricLearner(Learner):
    """A learner with an encoder. Subclasses write `summarise` and `compare`, both on embeddings.

    In training the support and query images of a task are embedded together, so that batch norm
    sees both, as in the authors' codes. Afterwards batch norm uses running averages, unless
    `transductive`.

    Args:
      encoder: a keras.Model, images [n, ...] -> features [n, ...].
      transductive: batch norm by the statistics of the examples at hand in evaluation too, those of
        one task's support set or of its queries.
    """

    unheeded = (
        'norm',
        'conv',
        'max_pool',
        'stop_grad',
        'update_lr',
        'train_update_lr',
        'num_updates',
        'tasks_at_once',
        'rematerialise',
        'bfloat16',
    )
    takes_masks = True  # An example that does not count has a label of zeros.
    # XLA's convolutions are ten times slower than TensorFlow's on a CPU, where kernels are shared.
    xla = False

    def __init__(self, encoder, objective, transductive=False, **kwargs):
        super().__init__(objective, **kwargs)
        self.encoder, self.transductive = encoder, transductive

    def summarise(self, support, support_y, training=False):
        """Embeddings [tasks, support, ...], one-hot labels [tasks, support, way] -> the task's
        state."""
        raise NotImplementedError

    def compare(self, state, query, training=False):
        """state, embeddings [tasks, query, ...] -> outputs [tasks, query, way]."""
        raise NotImplementedError

    def embed(self, images, training=False, mask=None):
        """[tasks, n, *input_shape] -> [tasks, n, ...]; mask: [tasks, n] or None, see `apply`."""
        return self.apply(self.encoder, images, training, mask)

    def apply(self, model, x, training=False, mask=None):
        """A part of the learner, a keras.Model of [n, ...], on examples of tasks: [tasks, n, ...]
        -> [tasks, n, ...].

        In training, and in evaluation where `transductive`, batch norm takes the statistics of one
        task, so that a task does not depend on the meta-batch it is in; the running averages move
        once a task, in training only.

        mask: 1 where an example counts; the others are kept out of the statistics, and their
          outputs are zeros.
        """
        run = functools.partial(
            _run, model, training=training, batch_statistics=training or self.transductive
        )

        def of_a_task(inputs):
            x, *mask = inputs
            if not mask:
                return run(x)
            counting = tf.cast(tf.where(mask[0] > 0), tf.int32)
            y = run(tf.gather_nd(x, counting))
            return tf.scatter_nd(counting, y, tf.concat([tf.shape(x)[:1], tf.shape(y)[1:]], 0))

        inputs = (x,) if mask is None else (x, mask)
        if x.shape[0] == 1:
            return of_a_task([part[0] for part in inputs])[tf.newaxis]
        signature = tf.TensorSpec([x.shape[1], *model.output_shape[1:]], x.dtype)
        # One after another: the running averages have an order, a task alone keeps all cores busy,
        # and the activations of many would fill the memory.
        return tf.map_fn(of_a_task, inputs, fn_output_signature=signature, parallel_iterations=1)

    def adapt(self, support_x, support_y, steps=None, mask=None):
        """Returns what `summarise` makes of the embedded support set; `steps` is not needed."""
        del steps
        return self.summarise(self.embed(support_x, mask=mask), support_y)

    def predict_query(self, state, query_x):
        return self.compare(state, self.embed(query_x))

    def query_outputs(self, task, steps=None):
        del steps
        state = self.adapt(task.support_x, task.support_y, mask=task.support_mask)
        return self.compare(state, self.embed(task.query_x, mask=task.query_mask))[tf.newaxis]

    def meta_loss(self, task):
        """The query loss, with batch norm in training mode."""
        masks = (task.support_mask, task.query_mask)
        embedded = self.embed(
            tf.concat([task.support_x, task.query_x], 1),
            training=True,
            mask=None if task.support_mask is None else tf.concat(masks, 1),
        )
        supports = task.support_x.shape[1]
        state = self.summarise(embedded[:, :supports], task.support_y, training=True)
        return self._query_loss_and_log(
            task, self.compare(state, embedded[:, supports:], training=True)
        )


def _run(model, x, training, batch_statistics):
    if training or not batch_statistics:
        return model(x, training=training)
    # Keras' batch norm would move its running averages.
    values = (
        [variable.value for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    )
    return model.stateless_call(*values, x, training=True)[0]


def of_absent_classes(support_y, value):
    """`value` where a class has no support example, else 0: [tasks, 1, way], to be added to
    outputs."""
    return tf.where(
        tf.reduce_any(support_y > 0, axis=1, keepdims=True),
        tf.cast(0, support_y.dtype),
        tf.cast(value, support_y.dtype),
    )


def classification_only(flags, objective):
    """The objective of a metric learner, whose loss is a mean. Raises UserError where the source is
    regression."""
    if isinstance(objective, Regression):
        raise UserError(
            f'--algorithm={flags.algorithm}: compares images of classes; '
            f'--datasource={flags.datasource} '
            'is regression'
        )
    return MeanClassification()
