"""LR-D2: logistic regression as the head (Bertinetto, Henriques, Torr, Vedaldi, ICLR 2019, arXiv
1805.08136)."""

import keras
import tensorflow as tf

from maml_tf.algorithms.closed_form.head_learner import HeadLearner
from maml_tf.algorithms.closed_form.logistic import logistic_regression
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.networks.image_encoders.by_name import encoder_of
from maml_tf.networks.image_encoders.r2d2_encoder import r2d2_encoder
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.objective import Objective
from maml_tf.training.outer_optimizers import OuterOptimizer

RIDGE, RIDGE_OF_TWO = 50.0, 1.0  # The authors'.


class LRD2(HeadLearner):
    """Tells each class from the others by a few of Newton's steps (section 3.2).

    Outputs are the classes' logits, without a learnt scale. Of two classes the weights are
    opposite: the softmax of both outputs is the sigmoid of twice the score. The authors' variant
    for two classes (the sigmoid of the score, group norm, batches of 32 tasks, another course of
    the rate) is not here.

    Args:
      encoder, transductive: see MetricLearner.
      ridge: lambda, the weight of the penalty.
      steps: of Newton's method.
    """

    own_encoder = 'r2d2'
    outer = OuterOptimizer(5e-3, decay_every=2000)  # The authors', of many classes.

    def __init__(
        self,
        encoder: keras.Model,
        objective: Objective,
        ridge: float = RIDGE,
        steps: int = 5,
        **kwargs,
    ):
        super().__init__(encoder, objective, intercept=True, **kwargs)
        self.ridge, self.steps = ridge, steps

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'LRD2':
        """Returns the learner that the command line describes. Raises UserError in regression."""
        ridge = RIDGE_OF_TWO if problem.training.way == 2 else RIDGE
        return cls(
            encoder_of(flags, problem.input_shape, cls.own_encoder),
            cls.objective_of(flags, problem),
            ridge=ridge if flags.lrd2_ridge is None else flags.lrd2_ridge,
            steps=flags.lrd2_steps,
            transductive=bool(flags.transductive),
        )

    @classmethod
    def tiny(cls) -> tuple['LRD2', EpisodeSpec]:
        encoder = r2d2_encoder((16, 16, 1), (4, 4, 6, 8))
        learner = cls(encoder, MeanClassification(), ridge=1.0, steps=3)
        return learner, EpisodeSpec(way=3, shot=2, query=2)

    def solve(self, features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return logistic_regression(features, labels, self.ridge, self.steps)


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_float(
        'lrd2_ridge',
        None,
        f'lrd2: weight of the penalty (default: {RIDGE:g}, of two classes {RIDGE_OF_TWO:g})',
        lower_bound=1e-6,
    )
    flags.DEFINE_integer('lrd2_steps', 5, "lrd2: steps of Newton's method", lower_bound=1)
