"""R2-D2: ridge regression as the head (Bertinetto, Henriques, Torr, Vedaldi, ICLR 2019, arXiv
1805.08136)."""

import keras
import tensorflow as tf

from maml_tf.algorithms.closed_form.head_learner import HeadLearner
from maml_tf.algorithms.closed_form.ridge import ridge_regression
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.networks.image_encoders.by_name import encoder_of
from maml_tf.networks.image_encoders.r2d2_encoder import r2d2_encoder
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.objective import Objective
from maml_tf.training.outer_optimizers import OuterOptimizer

# Where the learnt scale starts: the authors' of large images, and of others.
SCALE_OF_LARGE, SCALE = 1e-4, 10.0
LARGE_SIDE = 64


class R2D2(HeadLearner):
    """Regresses one-hot labels on features, with a penalty (eqs. 6 and 7).

    W = X' (X X' + ridge I)^-1 Y; the outputs of a query are scale (x W) + offset. As in the
    authors' code X and Y, but not the queries, are divided by the root of the number of support
    examples, which is a penalty of so many times `ridge`; it holds for the intercept, too.

    Args:
      encoder, transductive: see MetricLearner.
      ridge: lambda, the weight of the penalty.
      scale: where the learnt scale starts.
    """

    own_encoder = 'r2d2'
    outer = OuterOptimizer(5e-3, decay_every=2000)  # The authors'.

    def __init__(
        self,
        encoder: keras.Model,
        objective: Objective,
        ridge: float = 50.0,
        scale: float = SCALE,
        **kwargs,
    ):
        super().__init__(encoder, objective, intercept=True, scale=scale, offset=0.0, **kwargs)
        self.ridge = ridge

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'R2D2':
        """Returns the learner that the command line describes. Raises UserError in regression."""
        large = min(problem.input_shape[:2]) >= LARGE_SIDE
        scale = SCALE_OF_LARGE if large else SCALE
        return cls(
            encoder_of(flags, problem.input_shape, cls.own_encoder),
            cls.objective_of(flags, problem),
            ridge=flags.r2d2_ridge,
            scale=scale if flags.r2d2_scale is None else flags.r2d2_scale,
            transductive=bool(flags.transductive),
        )

    @classmethod
    def tiny(cls) -> tuple['R2D2', EpisodeSpec]:
        encoder = r2d2_encoder((16, 16, 1), (4, 4, 6, 8), dropout=0.2)
        return cls(encoder, MeanClassification(), ridge=1.0), EpisodeSpec(way=3, shot=2, query=2)

    def solve(self, features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        count = tf.reduce_sum(labels, (1, 2), keepdims=True)
        share = tf.math.rsqrt(count)
        return ridge_regression(features * share, labels * share, self.ridge)


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_float('r2d2_ridge', 50.0, 'r2d2: weight of the penalty', lower_bound=1e-6)
    flags.DEFINE_float(
        'r2d2_scale',
        None,
        f'r2d2: where the learnt scale of the outputs starts (default: {SCALE:g}, of images of '
        f'{LARGE_SIDE} pixels and more {SCALE_OF_LARGE:g})',
    )
