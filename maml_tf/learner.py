"""The contract of every method: a function f(support set, queries) -> predictions."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from maml_tf.episodes.task import EpisodeSpec, SequenceSpec, Task
from maml_tf.objectives.metric import Axis, Metric, gradient_steps
from maml_tf.objectives.objective import Objective
from maml_tf.serialisation.configuration import Configured
from maml_tf.serialisation.variables import named
from maml_tf.training import outer_optimizers
from maml_tf.training.keras_steps import KerasSteps
from maml_tf.training.outer_optimizers import OuterOptimizer
from maml_tf.training.phases import Loss, OuterLoop, Phase, Update

State = dict[str, tf.Tensor]


class Learner(Configured, KerasSteps, keras.Model):
    """A meta-learner. Subclasses write `adapt` and `predict_query`; the rest has defaults.

    All tensors are stacked over tasks, see episodes/task.py. A state is a flat
    {identifier: [tasks, ...]}.

    A method of the command line also has `from_flags(flags, problem)`, a class method that makes
    the learner which a command line describes (problem: see algorithms/problem.py), and `tiny()`, a
    class method that returns a learner whose every check takes seconds and the EpisodeSpec of its
    tasks.

    Args:
      objective: the loss and the metric, see objectives/.
      kwargs: keras.Model's (dtype, name).
    """

    # Shared flags that this method heeds: what it does not heed is refused.
    heeds: tuple[str, ...] = ('meta_lr', *outer_optimizers.FLAGS)
    # The method's outer optimizer, of which flags may change parts.
    outer = OuterOptimizer()
    # The encoder that --encoder chooses otherwise; None: the method has none by name.
    own_encoder: str | None = None
    # Whether the number of classes is part of the network: training and evaluation share it.
    fixed_way = False
    # Whether tasks may differ in size, see Task's masks.
    takes_masks = False
    # Whether a query's prediction may depend on the other queries; instances set it.
    transductive = False
    # Whether predictions depend on the order of the support set.
    ordered = False
    # Whether training and evaluation are compiled by XLA.
    xla = True
    # Steps of adaptation in training and in evaluation; methods that take none keep 0.
    inner_steps = 0
    evaluation_steps = 0
    # The rate of these steps in training, which the reference's names of runs and files say.
    inner_lr = 1e-3
    evaluation_lr = 1e-3  # the same of evaluation
    # Flags of this method alone that act in evaluation only: a trained run may change them.
    evaluation_flags: tuple[str, ...] = ()
    # Whether training's schedule depends on its length, so that a longer run is another run.
    scheduled = False

    def __init__(self, objective: Objective, **kwargs):
        super().__init__(**kwargs)
        self.objective = objective
        self.built = True  # Every variable is made by the constructors.

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Returns the shape of one input."""
        raise NotImplementedError

    # What a task becomes.

    def adapt(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        steps: int | None = None,
        mask: tf.Tensor | None = None,
        key: tf.Tensor | None = None,
    ) -> State:
        """Returns the state that the support set leaves behind.

        Args:
          support_x, support_y: [tasks, support, ...], [tasks, support, out].
          steps: inner steps; None: as many as in training. A method without them disregards it.
          mask: the task's support_mask, where tasks differ in size (`takes_masks`).
          key: the task's random bits, of methods that draw something; None: always the same bits.
        """
        raise NotImplementedError

    def predict_query(self, state: State, query_x: tf.Tensor) -> tf.Tensor:
        """Returns the predictions [tasks, query, out] of queries [tasks, query, ...]."""
        raise NotImplementedError

    def call(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns predictions [tasks, query, out] of {'support_x', 'support_y', 'query_x'}."""
        state = self.adapt(inputs['support_x'], inputs['support_y'])
        return self.predict_query(state, inputs['query_x'])

    def query_outputs(self, task: Task, steps: int | None = None) -> tf.Tensor:
        """Returns what is evaluated, [entries, tasks, query, out].

        By default one entry, the predictions after adaptation; with inner steps those before
        adaptation and after every step (`axis` says what the entries are).
        """
        state = self.adapt(task.support_x, task.support_y, steps, task.support_mask, task.key)
        return self.predict_query(state, task.query_x)[tf.newaxis]

    def evaluation_draws(self, spec: EpisodeSpec) -> EpisodeSpec | SequenceSpec:
        """Returns by what validation and test draw what `query_scores` gets, by default tasks.

        spec: what a command line asks for.
        """
        return spec

    def query_scores(self, task: Task, steps: int | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns (losses, scores) of `query_outputs`, each [entries, tasks]."""
        return self.scores_of(task, self.query_outputs(task, steps))

    def scores_of(self, task: Task, outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns (losses, scores), each [entries, tasks], of predictions as `query_outputs` has
        them."""
        arguments = task.query_y, outputs, self.shots(task), task.query_mask
        return self.objective.loss(*arguments), self.objective.score(*arguments)

    def all_scores(self, task: Task, steps: int | None = None) -> tf.Tensor:
        """Returns the scores of `query_outputs` by `metric` and by the objective's further metrics,
        [metrics, entries, tasks]."""
        if not self.objective.further:
            return self.query_scores(task, steps)[1][tf.newaxis]
        return self.all_scores_of(task, self.query_outputs(task, steps))

    def all_scores_of(self, task: Task, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the same of predictions as `query_outputs` has them."""
        further = self.objective.further_scores(task.query_y, outputs)
        return tf.stack([self.scores_of(task, outputs)[1], *further])

    @classmethod
    def for_objective(cls, objective: Objective) -> type['Learner']:
        """Returns the class that `from_flags` makes a learner of; by default this one."""
        del objective
        return cls

    @classmethod
    def check_flags(cls, flags: Any) -> None:
        """Raises UserError for flags of a command line that do not go with each other."""
        del flags

    def check_ready(self) -> None:
        """Raises UserError for weights that cannot be evaluated yet; by default all can."""

    def acts_in_tasks(self, name: str) -> bool:
        """Returns whether tasks are adapted to or predicted by this variable; by default all act.

        name: of `named_variables`. A classifier of pretraining alone does not.
        """
        del name
        return True

    @property
    def validation_steps(self) -> int:
        """Returns the steps of adaptation in validation; by default as many as in training."""
        return self.inner_steps

    @property
    def takes_steps(self) -> bool:
        """Returns whether `adapt` takes inner steps at all, so that their number means anything."""
        return bool(self.inner_steps or self.evaluation_steps)

    @property
    def metric(self) -> Metric:
        """Returns the metric that scores are reported in."""
        return self.objective.metric

    def axis(self, entries: int) -> Axis:
        """Returns what the `entries` entries of `query_outputs` stand for."""
        return gradient_steps(entries)

    def shots(self, task: Task) -> tf.Tensor:
        """Returns the support examples per class: a number; with a mask their mean, [tasks]."""
        return shots(task.support_y, task.support_mask)

    # What training does.

    def meta_loss(self, task: Task, step: tf.Tensor) -> Loss:
        """Returns what meta-training minimises; by default the query loss after adaptation."""
        del step
        return self.query_loss(task, self.query_outputs(task)[-1])

    def meta_gradients(self, task: Task, step: tf.Tensor) -> Update:
        """Returns the gradients of `meta_loss`.

        step: int64 scalar, the iteration within its phase.
        """
        return self.gradients_of(self.meta_loss, task, step)

    def phases(self, outer: OuterLoop) -> list[Phase]:
        """Returns the phases of training, in order; by default meta-training."""
        return [
            Phase(
                'metatrain',
                outer.metatrain_iterations,
                self.meta_gradients,
                outer.optimizer(),
                outer.spec,
                weight_decay=outer.weight_decay,
            )
        ]

    def outer_optimizer(self) -> keras.optimizers.Optimizer:
        """Returns the optimizer of `compile` where none is given, at a constant rate."""
        return dataclasses.replace(self.outer, decay_every=None, factors=(), cosine_to=None).make(1)

    def clip_gradients(self, gradients: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        """Bounds the meta-batch's gradients, one per trainable variable, before the step."""
        return gradients

    def share(self, tasks: int, spec: EpisodeSpec) -> int:
        """Returns how many of `tasks` tasks to compute at a time (see training/shares.py)."""
        del spec
        return tasks

    def evaluation_share(self, tasks: int, spec: EpisodeSpec) -> int:
        """Returns the same for evaluation, where no way back keeps activations."""
        return self.share(tasks, spec)

    def gradients_of(
        self,
        loss: Callable[[Any, tf.Tensor], Loss],
        drawn: Any,
        step: tf.Tensor,
        also: Sequence[keras.Variable] = (),
    ) -> Update:
        """Returns the Update of a function (drawn, step) -> Loss.

        also: further variables, whose gradients follow those of the trainable ones.
        """
        with tf.GradientTape() as tape:
            tape.watch([variable.value for variable in also])
            value, log, state = loss(drawn, step)
        gradients = tape.gradient(
            value,
            [variable.value for variable in (*self.trainable_variables, *also)],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        # Of a lookup TensorFlow gives slices, which cannot be averaged over shares and replicas.
        return Update([tf.convert_to_tensor(g) for g in gradients], log, state)

    def query_loss(self, task: Task, outputs: tf.Tensor, state: State | None = None) -> Loss:
        """Returns the Loss of query predictions [tasks, query, out]."""
        value, log = self.loss_and_log(
            'post', task.query_y, outputs, self.shots(task), task.query_mask
        )
        return Loss(value, log, state or {})

    def loss_and_log(
        self,
        when: str,
        labels: tf.Tensor,
        outputs: tf.Tensor,
        shots: tf.Tensor | float,
        mask: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns the mean loss; and {`when`_loss: it, `when`_<name of the metric>: the score}."""
        loss = tf.reduce_mean(self.objective.loss(labels, outputs, shots, mask))
        score = tf.reduce_mean(self.objective.score(labels, outputs, shots, mask))
        return loss, {f'{when}_loss': loss, f'{when}_{self.metric.name}': score}

    # What is kept.

    def add_state(self, name: str, value: np.ndarray | tf.Tensor) -> keras.Variable:
        """Makes a variable that only the training op assigns, from an Update's `state`."""
        return self.add_weight(
            name=name,
            shape=tuple(value.shape),
            initializer=self.starting_from(value),
            trainable=False,
            aggregation='only_first_replica',
        )

    @staticmethod
    def starting_from(value: np.ndarray | tf.Tensor) -> Callable[..., tf.Tensor]:
        """Returns an initializer that starts a variable from this value."""
        return lambda shape, dtype: tf.cast(value, dtype)

    def named_variables(self) -> dict[str, tf.Variable]:
        """Returns {identifier: variable} of all that training changes: what a checkpoint holds."""
        return named(self.variables, self.name)


def shots(support_y: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
    """Counts support examples per class: a number; with a mask their mean, [tasks]."""
    if mask is None:
        return tf.shape(support_y)[1] / tf.shape(support_y)[2]
    classes = tf.reduce_sum(tf.reduce_max(support_y, axis=1), axis=-1)
    return tf.reduce_sum(mask, axis=-1) / tf.maximum(classes, 1)
