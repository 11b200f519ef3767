"""The contract of every algorithm: one function of a whole task, f(support set, query inputs) ->
predictions."""

import keras
import tensorflow as tf

from maml_tf.saving.variables import named


class Learner(keras.Model):
    """A meta-learner. Subclasses write `adapt` and `predict_query`; the rest has defaults to
    override.

    All tensors are stacked over tasks, see episodes/task.py. A state is a flat {identifier: [tasks,
    ...]}.
    """

    # Whether the number of classes is part of the network, so that training and evaluation share
    # it.
    fixed_way = False
    # Whether tasks may differ in size, see Task's masks.
    takes_masks = False
    # Whether a query's prediction may depend on the other queries; instances set it.
    transductive = False
    # Flags of many algorithms that this one does not heed; to set one is an error, not a silence.
    unheeded = ()
    # Whether there is a phase before meta-training, see `pretrain_loss`.
    pretrains = False
    # Whether training and evaluation are compiled by XLA.
    xla = True

    def __init__(self, objective, **kwargs):
        """objective: what the tasks ask for, see objectives.py; kwargs: keras.Model's (dtype,
        name)."""
        super().__init__(**kwargs)
        self.objective = objective
        self.built = True  # Every variable is made by the constructors.

    def share(self, tasks, spec):
        """How many of `tasks` tasks, of an EpisodeSpec, to compute at a time (see shares.py); here
        all."""
        del spec
        return tasks

    def named_variables(self):
        """{identifier: tf.Variable} of all that is learnt: what a checkpoint holds."""
        return named(self.variables)

    def adapt(self, support_x, support_y, steps=None, mask=None):
        """[tasks, support, ...], [tasks, support, out] -> the state that the support set leaves
        behind.

        steps: inner steps; None: as many as in training. A method without inner steps disregards
          it.
        mask: the task's support_mask, where tasks differ in size (`takes_masks`).
        """
        raise NotImplementedError

    def predict_query(self, state, query_x):
        """state, [tasks, query, ...] -> predictions [tasks, query, out]."""
        raise NotImplementedError

    def call(self, inputs):
        """{'support_x', 'support_y', 'query_x'} -> query predictions [tasks, query, out]."""
        return self.predict_query(
            self.adapt(inputs['support_x'], inputs['support_y']), inputs['query_x']
        )

    def query_outputs(self, task, steps=None):
        """Query predictions before adaptation and after every inner step, [steps + 1, tasks, query,
        out].

        A method without inner steps has one entry, whatever `steps`.
        """
        del steps
        state = self.adapt(task.support_x, task.support_y, mask=task.support_mask)
        return self.predict_query(state, task.query_x)[tf.newaxis]

    def shots(self, support_y, mask=None):
        """Support examples per class, [tasks, way*shot, way] -> a number; with a mask their mean,
        [tasks]."""
        if mask is None:
            return tf.shape(support_y)[1] / tf.shape(support_y)[2]
        classes = tf.reduce_sum(tf.reduce_max(support_y, axis=1), axis=-1)
        return tf.reduce_sum(mask, axis=-1) / tf.maximum(classes, 1)

    def query_metrics(self, task, steps=None):
        """(losses, metrics) of `query_outputs`, each [steps + 1, tasks]."""
        outputs, shots = (
            self.query_outputs(task, steps),
            self.shots(task.support_y, task.support_mask),
        )
        return (
            self.objective.loss(task.query_y, outputs, shots, task.query_mask),
            self.objective.metric(task.query_y, outputs, shots, task.query_mask),
        )

    def meta_loss(self, task):
        """(the scalar that meta-training minimises, {name: scalar to log})."""
        outputs = self.query_outputs(task)[-1]
        return self._query_loss_and_log(task, outputs)

    def pretrain_loss(self, task):
        """As `meta_loss`, for the phase before meta-training (`--pretrain_iterations`)."""
        raise NotImplementedError(f'{type(self).__name__} has no pretraining')

    def meta_gradients(self, task):
        """(one gradient per trainable variable, log) of `meta_loss`."""
        return self._gradients(self.meta_loss, task)

    def pretrain_gradients(self, task):
        """(one gradient per trainable variable, log) of `pretrain_loss`."""
        return self._gradients(self.pretrain_loss, task)

    def clip_gradients(self, gradients):
        """Bounds the meta-batch's gradients, one per trainable variable, before the optimizer's
        step."""
        return gradients

    def _gradients(self, loss, task):
        with tf.GradientTape() as tape:
            value, log = loss(task)
        return tape.gradient(
            value,
            [variable.value for variable in self.trainable_variables],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        ), log

    def _query_loss_and_log(self, task, outputs):
        return self._loss_and_log(
            task.query_y,
            outputs,
            self.shots(task.support_y, task.support_mask),
            'post',
            task.query_mask,
        )

    def _loss_and_log(self, labels, outputs, shots, when, mask=None):
        """Mean loss over the meta-batch, and it and the metric under names such as `post_loss`."""
        loss = tf.reduce_mean(self.objective.loss(labels, outputs, shots, mask))
        metric = tf.reduce_mean(self.objective.metric(labels, outputs, shots, mask))
        return loss, {f'{when}_loss': loss, f'{when}_{self.objective.metric_name}': metric}

    @classmethod
    def tiny(cls):
        """(a learner whose every check takes seconds, the EpisodeSpec of its tasks)."""
        raise NotImplementedError
