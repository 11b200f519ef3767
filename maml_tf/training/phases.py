"""Phases: the stretches that training consists of, each compiled by itself."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from maml_tf.episodes.task import EpisodeSpec, Spec
from maml_tf.training.outer_optimizers import OuterOptimizer


class Loss(NamedTuple):
    """A loss, what is shown of it, and what is assigned with its step.

    value: the scalar to minimise.
    log: {name: scalar} to be shown.
    state: {name of a variable: its new value}, floats that are assigned besides the optimizer's
      step.
    """

    value: tf.Tensor
    log: dict[str, tf.Tensor]
    state: dict[str, tf.Tensor] = {}


class Update(NamedTuple):
    """What an iteration is about to do: gradients, log and state, each a mean over its tasks.

    The training op averages it over shares of a meta-batch and over replicas, and then steps and
    assigns: how a meta-batch is spread cannot change what is learnt.

    gradients: one for each trainable variable. log, state: as in Loss.
    """

    gradients: list[tf.Tensor]
    log: dict[str, tf.Tensor]
    state: dict[str, tf.Tensor] = {}


@dataclasses.dataclass(frozen=True)
class OuterLoop:
    """What a command line asks of the training; each learner makes its phases of it.

    spec: of the training episodes.
    halve_every: iterations after which the outer rate is halved, again and again; None: constant.
    asked: a whole outer optimizer, in place of Adam at meta_lr, halved.
    """

    pretrain_iterations: int
    metatrain_iterations: int
    meta_lr: float
    spec: EpisodeSpec
    halve_every: int | None = None
    asked: OuterOptimizer | None = None

    def optimizer(self, iterations: int | None = None) -> keras.optimizers.Optimizer:
        """Returns a new optimizer of what is asked for.

        iterations: that it is to take; None: those of meta-training.
        """
        return self._outer.make(self.metatrain_iterations if iterations is None else iterations)

    def rate(self) -> float | keras.optimizers.schedules.LearningRateSchedule:
        """Returns its rate, or the schedule of it, in meta-training."""
        return self._outer.rate(self.metatrain_iterations)

    @property
    def kind(self) -> str:
        """Returns which optimizer it is, one of outer_optimizers.OPTIMIZERS."""
        return self._outer.kind

    @property
    def weight_decay(self) -> float:
        """Returns what is asked for."""
        return self._outer.weight_decay

    @property
    def _outer(self):
        return self.asked or OuterOptimizer(self.meta_lr, decay_every=self.halve_every)


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of training.

    name: of its optimizer in checkpoints, and of the phase in messages.
    iterations: how many it takes.
    gradients: (drawn, step) -> Update; `step` is the int64 iteration, counted within the phase.
    optimizer: steps by these gradients; several phases may share one.
    draws: by what the source draws for it: episodes, plain batches, sequences. A source of another
      kind (a simulator's rollouts) may take specs of its own; nothing here looks into them.
    op: (drawn, step) -> log, a whole iteration of another kind, in place of `gradients` and
      `optimizer` (a trust region, for example). It is not divided over shares or replicas.
    compiled: whether `op` can be part of a compiled loop; if not, Python calls it once an iteration
      (a simulator that is no part of a graph).
    title: what its lines on the screen begin with.
    first: the number that its lines count from, where it goes on from another phase.
    weight_decay: times the weights, is added to their gradients before the optimizer's step, as
      PyTorch has it (Keras' weight decay passes by the momentum).
    split: of the source, that it draws from; None: that of --train_on.
    """

    name: str
    iterations: int
    gradients: Callable[[Any, tf.Tensor], Update] | None
    optimizer: keras.optimizers.Optimizer | None
    draws: Spec
    op: Callable[[Any, tf.Tensor], dict[str, tf.Tensor]] | None = None
    title: str = 'Iteration'
    first: int = 0
    weight_decay: float = 0.0
    split: str | None = None
    compiled: bool = True
