"""Prototypical Networks (Snell, Swersky, Zemel, NeurIPS 2017, arXiv 1703.05175)."""

import keras
import tensorflow as tf

from maml_tf.algorithms.metric.metric_learner import MetricLearner, of_absent_classes
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.learner import State
from maml_tf.networks.encoders import conv4
from maml_tf.networks.image_encoders.by_name import ENCODER_FLAGS, encoder_of
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.objective import Objective
from maml_tf.ops.masking import NEVER

DISTANCES = ('euclidean', 'cosine')
# Cosines of ReLU features lie in [0, 1], too close together for a softmax. Chosen where this is
# Matching Networks, with one shot, see matching.py.
COSINE_SCALE = 30.0


class Prototypical(MetricLearner):
    """Each class is the mean of its embedded support set (eq. 1), a query belongs to the nearest
    (eq. 2).

    Outputs are minus the squared Euclidean distances, summed over the dimensions, or `COSINE_SCALE`
    times the cosines. The loss is the mean over all queries. Batch norm uses running averages in
    evaluation, as in the authors' code.

    Args:
      encoder, transductive: see MetricLearner.
      distance: one of DISTANCES.
    """

    own_encoder = 'conv4'
    heeds = (*MetricLearner.heeds, *ENCODER_FLAGS)

    def __init__(
        self,
        encoder: keras.Model,
        objective: Objective,
        distance: str = 'euclidean',
        **kwargs,
    ):
        super().__init__(encoder, objective, **kwargs)
        self.distance = distance

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'Prototypical':
        """Returns the learner that the command line describes. Raises UserError in regression."""
        objective = cls.objective_of(flags, problem)
        return cls(
            encoder_of(flags, problem.input_shape, cls.own_encoder),
            objective,
            distance=flags.prototypical_distance,
            transductive=bool(flags.transductive),
        )

    @classmethod
    def tiny(cls) -> tuple['Prototypical', EpisodeSpec]:
        return cls(conv4((16, 16, 1), 8), MeanClassification()), EpisodeSpec(way=3, shot=2, query=2)

    def summarise(self, support: tf.Tensor, support_y: tf.Tensor) -> State:
        """Returns {'prototypes': [tasks, way, features], 'absent': [tasks, 1, way]}."""
        shots = tf.reduce_sum(support_y, axis=1)[..., tf.newaxis]
        prototypes = tf.matmul(support_y, support, transpose_a=True) / tf.maximum(shots, 1)
        return {'prototypes': prototypes, 'absent': of_absent_classes(support_y, NEVER)}

    def compare(self, state: State, query: tf.Tensor) -> tf.Tensor:
        similarity = squared_euclidean if self.distance == 'euclidean' else scaled_cosine
        return similarity(query, state['prototypes']) + state['absent']

    def prototypes(self, state: State) -> tf.Tensor:
        return state['prototypes']


def squared_euclidean(queries: tf.Tensor, prototypes: tf.Tensor) -> tf.Tensor:
    """Returns minus the squared distances, [tasks, queries, way].

    queries: [tasks, queries, features]; prototypes: [tasks, way, features].
    """
    squares = lambda x: tf.reduce_sum(tf.square(x), axis=-1)
    products = tf.matmul(queries, prototypes, transpose_b=True)
    return 2 * products - squares(prototypes)[:, tf.newaxis] - squares(queries)[..., tf.newaxis]


def scaled_cosine(queries: tf.Tensor, prototypes: tf.Tensor) -> tf.Tensor:
    """Returns the cosines times COSINE_SCALE, in the shapes of `squared_euclidean`."""
    unit = lambda x: tf.math.l2_normalize(x, axis=-1)
    return COSINE_SCALE * tf.matmul(unit(queries), unit(prototypes), transpose_b=True)


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_enum(
        'prototypical_distance',
        'euclidean',
        DISTANCES,
        f'prototypical: from a query to the prototypes; cosine: {COSINE_SCALE:g} times the cosine',
    )
