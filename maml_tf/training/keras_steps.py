"""Learners as Keras users know models: compile, fit, evaluate."""

import types

import keras
import tensorflow as tf

from maml_tf.episodes.task import EpisodeSpec, Sequence, Task, TaskAndBatch
from maml_tf.training.iterate import one_iteration
from maml_tf.training.operations import metatrain_op


class KerasSteps:
    """What keras.Model's `fit` and `evaluate` do with a meta-batch; a base class of learners.

        learner.compile(keras.optimizers.Adam(1e-3))
        learner.fit(source.dataset(spec, meta_batch_size=25), steps_per_epoch=1000, epochs=10)

    An element of the dataset is a Task, or a Sequence or a TaskAndBatch for learners that train on
    those. An iteration of `fit` is that of the command line's meta-training: for the same seed it
    gives the same numbers, but of methods whose training is more than one phase with one rate. The
    loss and the metric are the learner's own.
    """

    def compile(self, optimizer: keras.optimizers.Optimizer | str | None = None, **kwargs) -> None:
        """Prepares for training.

        Args:
          optimizer: the outer one; None: the method's, mostly Adam at a rate of 0.001.
          kwargs: keras.Model.compile's (run_eagerly, steps_per_execution ...), without a loss.
        Raises: ValueError where a loss or metrics are given.
        """
        given = [name for name in ('loss', 'metrics', 'weighted_metrics') if kwargs.get(name)]
        if given:
            raise ValueError(
                f'{given[0]}: a learner has its own loss and metric, by its objective; leave it out'
            )
        # What is worth compiling is compiled by the step itself.
        kwargs['jit_compile'] = False
        super().compile(optimizer=optimizer or self.outer_optimizer(), **kwargs)
        self.optimizer.build(self.trainable_variables)
        # Held by objects that Keras does not look into: these are no variables of the learner.
        self._means = types.SimpleNamespace(of={})
        self._own_optimizer = optimizer is None

    @property
    def own_weight_decay(self) -> float:
        """Returns the weight decay that goes with the method's own optimizer, else 0."""
        return self.outer.weight_decay if self._own_optimizer else 0.0

    def get_compile_config(self) -> dict | None:
        """Returns what a `.keras` file keeps of `compile`; None: it was not called."""
        if not self.compiled:
            return None
        # The method makes its own anew: its rate may be one of the learner's variables.
        given = None if self._own_optimizer else self.optimizer
        return {'optimizer': keras.saving.serialize_keras_object(given)}

    def compile_from_config(self, config: dict) -> None:
        """Compiles as the saved learner was."""
        optimizer = config['optimizer']
        self.compile(optimizer and keras.saving.deserialize_keras_object(optimizer))

    def fit(self, x: tf.data.Dataset, **kwargs) -> keras.callbacks.History:
        """Trains; x: a dataset of meta-batches. kwargs: keras.Model.fit's.

        An endless dataset needs steps_per_epoch.
        """
        return super().fit(x, **{'shuffle': False, **kwargs})  # The tasks are drawn at random.

    def train_step(self, task: Task | Sequence | TaskAndBatch) -> dict[str, tf.Tensor]:
        """Takes an iteration of meta-training; returns the means over the epoch so far."""
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise ValueError('fit: runs on one device; on several: maml_tf.training.distribution')
        iterations = tf.cast(self.optimizer.iterations.value, tf.int64)
        tasks, draw = tf.nest.flatten(task)[0].shape[0], _slices_of(task)
        op = metatrain_op(self, self.optimizer, self.own_weight_decay)
        iterate = one_iteration(op, draw, tasks, self.share(tasks, _spec_of(task)))
        return self._mean(iterate(tf.zeros([], tf.int64), iterations))

    def test_step(self, task: Task | Sequence) -> dict[str, tf.Tensor]:
        """Scores a meta-batch after adaptation; returns the means so far, `loss` and the metric."""

        @tf.function(jit_compile=self.xla, autograph=False)
        def score(task):
            losses, scores = self.query_scores(task, self.evaluation_steps)
            return tf.reduce_mean(losses[-1]), tf.reduce_mean(scores[-1])

        loss, value = score(task)
        return self._mean({'loss': loss, self.metric.name: value})

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Returns the means, which Keras resets before every epoch."""
        means = vars(self).get('_means')
        return list(means.of.values()) if means else []

    def _mean(self, log: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        for name, value in log.items():
            if name not in self._means.of:
                with tf.init_scope():  # A metric has variables, which no trace may make.
                    self._means.of[name] = keras.metrics.Mean(name)
            self._means.of[name].update_state(value)
        return {name: self._means.of[name].result() for name in log}


def _spec_of(task: Task | Sequence | TaskAndBatch) -> EpisodeSpec:
    """Returns a spec of as many examples as a task of the stack has."""
    if isinstance(task, TaskAndBatch):
        task = task.task
    if isinstance(task, Sequence):
        return EpisodeSpec(1, task.x.shape[1], 0)
    return EpisodeSpec(1, task.support_x.shape[1], task.query_x.shape[1])


def _slices_of(task: Task | Sequence | TaskAndBatch):
    """(start, count) -> these tasks of the stack."""

    def draw(start, count):
        numbers = tf.cast(start, tf.int64) + tf.range(count, dtype=tf.int64)
        gathered = lambda x: None if x is None else tf.gather(x, numbers)
        return tf.nest.map_structure(gathered, task)

    return draw
