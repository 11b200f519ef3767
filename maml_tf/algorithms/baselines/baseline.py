"""Baseline (Chen, Liu, Kira, Wang, Huang, ICLR 2019, arXiv 1904.04232)."""

import keras
import tensorflow as tf

from maml_tf.algorithms.baselines.heads import train_head
from maml_tf.algorithms.baselines.pretrained import (
    TINY_CLASSES,
    Pretrained,
    define_batch_flag,
    tiny_encoder,
)
from maml_tf.algorithms.baselines.rules import Momentum
from maml_tf.algorithms.metric.metric_learner import of_absent_classes
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import ArgumentError
from maml_tf.learner import State
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.objective import Objective
from maml_tf.ops.masking import NEVER

# As in the authors' code.
EPOCHS, BATCH = 100, 4
LR, MOMENTUM, DAMPENING, WEIGHT_DECAY = 0.01, 0.9, 0.9, 1e-3


class Baseline(Pretrained):
    """Pretrains an encoder; of each task it trains a new linear classifier on frozen features.

    The classifier is trained on the support set by stochastic gradient descent with momentum, in
    mini-batches; the task's key decides how it starts and the order of the examples.

    Args:
      encoder, objective, classes, batch_size, transductive: see Pretrained.
      epochs: passes over the support set.
    """

    takes_masks = False  # A mini-batch would hold filling.
    ordered = True  # Mini-batches take examples by their place.

    def __init__(
        self,
        encoder: keras.Model,
        objective: Objective,
        classes: int,
        batch_size: int = 16,
        transductive: bool = False,
        epochs: int = EPOCHS,
        **kwargs,
    ):
        super().__init__(encoder, objective, classes, batch_size, transductive, **kwargs)
        if epochs < 1:
            raise ArgumentError('epochs', epochs, 'at least 1')
        self.epochs = epochs

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'Baseline':
        """Returns the learner that the command line describes. Raises UserError in regression."""
        return cls(**cls.arguments_of(flags, problem))

    @classmethod
    def tiny(cls) -> tuple['Baseline', EpisodeSpec]:
        learner = cls(tiny_encoder(), MeanClassification(), TINY_CLASSES, epochs=20)
        return learner, EpisodeSpec(way=3, shot=2, query=2)

    def adapt(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        steps: int | None = None,
        mask: tf.Tensor | None = None,
        key: tf.Tensor | None = None,
    ) -> State:
        """Returns the new head's weights and {'absent': [tasks, 1, way]}; `steps` is not needed."""
        del steps
        if mask is not None:
            raise ArgumentError(
                'mask', None, 'tasks of one size only; mini-batches know no filling'
            )
        absent = of_absent_classes(support_y, NEVER)
        rule = Momentum(LR, MOMENTUM, DAMPENING, WEIGHT_DECAY)
        features = self.embed(support_x)
        weights = train_head(self.head, features, support_y, absent, key, rule, self.epochs, BATCH)
        return weights | {'absent': absent}

    def compare(self, state: State, query: tf.Tensor) -> tf.Tensor:
        return self.head.outputs(query, state) + state['absent']


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    define_batch_flag(flags, 'baseline', 16)
