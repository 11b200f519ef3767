"""Training ops: one iteration on what was drawn, gradients first, then the step."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from maml_tf.training.phases import Phase, Update

if TYPE_CHECKING:  # Learners train by these ops.
    from maml_tf.learner import Learner


class TrainingOp:
    """An iteration by gradients: computes an Update, then steps and assigns by it.

    Args:
      gradients: (task, step) -> Update; `step` is the int64 iteration within the phase.
      weight_decay: see Phase.
    """

    def __init__(
        self,
        learner: 'Learner',
        optimizer: keras.optimizers.Optimizer,
        gradients: Callable[[Any, tf.Tensor], Update],
        weight_decay: float = 0.0,
    ):
        self.gradients, self._optimizer, self._clip = gradients, optimizer, learner.clip_gradients
        self.xla, self._trained = learner.xla, learner.trainable_variables
        self._named, self._weight_decay = learner.named_variables(), weight_decay
        if not optimizer.built:
            optimizer.build(self._trained)

    def apply(self, update: Update) -> None:
        """Steps and assigns by an Update of the whole meta-batch."""
        self._apply(update, self._clip(update.gradients), 1)

    def apply_together(self, update: Update) -> dict[str, tf.Tensor]:
        """Does the same on every replica of a strategy, each with its part of the Update's sum.

        Keras adds up the gradients that replicas pass to an optimizer, so that they travel once;
        where they are bounded, which only their sum can be, they travel twice.

        Returns: the log of the whole meta-batch.
        """
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync
        whole = lambda part: context.all_reduce(tf.distribute.ReduceOp.SUM, part)
        if self._clip(update.gradients) is update.gradients:
            total = whole(update._replace(gradients=[]))
            self._apply(total, update.gradients, replicas)
        else:
            total = whole(update)
            self._apply(total, [g / replicas for g in self._clip(total.gradients)], replicas)
        return total.log

    def _apply(self, update: Update, gradients: Sequence[tf.Tensor], replicas: int) -> None:
        if self._weight_decay:
            decay = self._weight_decay / replicas
            gradients = [g + decay * w.value for g, w in zip(gradients, self._trained, strict=True)]
        # The state first: the optimizer's rate may be part of it.
        for name, value in update.state.items():
            self._named[name].assign(value)
        self._optimizer.apply(gradients, self._trained)

    def __call__(self, task: Any, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """Takes the iteration and returns its log."""
        update = self.gradients(task, step)
        self.apply(update)
        return update.log


class WholeOp:
    """An iteration that a phase takes by itself, see Phase.op.

    Made within the scope of a strategy, which keeps copies of the variables on several devices, it
    is not compiled by XLA, whose programs write to one device only.
    """

    def __init__(self, learner: 'Learner', op: Callable[[Any, tf.Tensor], dict[str, tf.Tensor]]):
        copies = tf.distribute.get_strategy().num_replicas_in_sync
        self._op, self.xla = op, learner.xla and copies == 1

    def __call__(self, drawn: Any, step: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._op(drawn, step)


def op_of(learner: 'Learner', phase: Phase) -> TrainingOp | WholeOp:
    """Makes the op of a phase."""
    if phase.op is not None:
        return WholeOp(learner, phase.op)
    return TrainingOp(learner, phase.optimizer, phase.gradients, phase.weight_decay)


def pretrain_op(learner: 'Learner', optimizer: keras.optimizers.Optimizer) -> TrainingOp:
    """Steps on the support loss before any inner update (of learners that pretrain)."""
    return TrainingOp(learner, optimizer, learner.pretrain_gradients)


def metatrain_op(
    learner: 'Learner', optimizer: keras.optimizers.Optimizer, weight_decay: float = 0.0
) -> TrainingOp:
    """Steps on the query loss after the inner updates; weight_decay: see Phase."""
    return TrainingOp(learner, optimizer, learner.meta_gradients, weight_decay)
