"""MetaOptNet: a support vector machine as the head (Lee, Maji, Ravichandran, Soatto, CVPR 2019,
arXiv 1904.03758)."""

import keras
import tensorflow as tf

from maml_tf.algorithms.closed_form.crammer_singer import crammer_singer
from maml_tf.algorithms.closed_form.head_learner import HeadLearner
from maml_tf.algorithms.closed_form.ridge import ridge_regression
from maml_tf.algorithms.metric.metric_learner import of_absent_classes
from maml_tf.algorithms.metric.prototypical import squared_euclidean
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import ArgumentError
from maml_tf.learner import State
from maml_tf.networks.encoders import conv4
from maml_tf.networks.image_encoders.by_name import encoder_of
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.objective import Objective
from maml_tf.ops.masking import NEVER
from maml_tf.training.outer_optimizers import OuterOptimizer

RIDGES = {'svm': 1.0, 'ridge': 50.0}  # The authors'.
HEADS = (*RIDGES, 'prototypes')
# Added to the diagonal of a class without examples, so that it takes no part.
_HUGE = 1e9


class MetaOptNet(HeadLearner):
    """Solves a convex problem on the support set, by default a support vector machine.

    Heads, all without an intercept, with outputs times a learnt scale:

    - svm: that of Crammer and Singer in its dual form (eq. 8), see crammer_singer.py. The output
      of class k is sum_i alpha_{i,k} <x_i, x>.
    - ridge: alpha = 2 (K + ridge I)^-1 Y, as the authors' code has it.
    - prototypes: minus the squared distance to the mean of the class, over the features.

    The authors' code stops the machine's solver after 15 steps in training and 3 at test; here it
    takes `iterations` in both.

    Args:
      encoder, transductive: see MetricLearner.
      head: one of HEADS.
      penalty: C, of svm.
      ridge: added to the kernel's diagonal; None: 1 of svm, 50 of ridge.
      iterations: of the interior point, of svm.
    Raises: ArgumentError for another head.
    """

    own_encoder = 'resnet12'
    # The authors', of 60 epochs with 1000 meta-batches of 8 tasks.
    outer = OuterOptimizer(
        0.1,
        kind='sgd',
        weight_decay=5e-4,
        factors=((20_000, 0.06), (40_000, 0.012), (50_000, 0.0024)),
    )

    def __init__(
        self,
        encoder: keras.Model,
        objective: Objective,
        head: str = 'svm',
        penalty: float = 0.1,
        ridge: float | None = None,
        iterations: int = 15,
        **kwargs,
    ):
        super().__init__(encoder, objective, intercept=False, scale=1.0, **kwargs)
        if head not in HEADS:
            raise ArgumentError('head', head, f'one of {", ".join(HEADS)}')
        self.head, self.penalty, self.iterations = head, penalty, iterations
        self.ridge = RIDGES.get(head) if ridge is None else ridge

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'MetaOptNet':
        """Returns the learner that the command line describes. Raises UserError in regression."""
        return cls(
            encoder_of(flags, problem.input_shape, cls.own_encoder),
            cls.objective_of(flags, problem, flags.metaoptnet_label_smoothing),
            head=flags.metaoptnet_head,
            penalty=flags.metaoptnet_penalty,
            transductive=bool(flags.transductive),
        )

    @classmethod
    def tiny(cls) -> tuple['MetaOptNet', EpisodeSpec]:
        learner = cls(conv4((16, 16, 1), 8), MeanClassification(), iterations=12)
        return learner, EpisodeSpec(way=3, shot=2, query=2)

    def solve(self, features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        if self.head == 'ridge':
            return ridge_regression(features, 2 * labels, self.ridge)
        ridge = self.ridge + of_absent_classes(labels, _HUGE)
        # An example that does not count is of no class, for which the bounds leave one point only:
        # it gets the first, and its features, zeros, keep it out of the solution of the others.
        there = tf.reduce_sum(labels, axis=-1, keepdims=True)
        labels += (1 - there) * tf.one_hot(0, tf.shape(labels)[-1], dtype=labels.dtype)
        kernel = tf.matmul(features, features, transpose_b=True)
        alpha = crammer_singer(kernel, labels, self.penalty, ridge, self.iterations)
        return tf.matmul(features, alpha, transpose_a=True)

    def summarise(self, support: tf.Tensor, support_y: tf.Tensor) -> State:
        """Returns {'weights': [tasks, features, way], 'absent': [tasks, 1, way]}.

        The weights of the head 'prototypes' are the prototypes.
        """
        if self.head != 'prototypes':
            return super().summarise(support, support_y)
        shots = tf.reduce_sum(support_y, axis=1, keepdims=True)
        means = tf.matmul(support, support_y, transpose_a=True) / tf.maximum(shots, 1)
        return {'weights': means, 'absent': of_absent_classes(support_y, NEVER)}

    def compare(self, state: State, query: tf.Tensor) -> tf.Tensor:
        if self.head != 'prototypes':
            return super().compare(state, query)
        prototypes = tf.linalg.matrix_transpose(state['weights'])
        features = query.shape[-1]
        return self.adjusted(squared_euclidean(query, prototypes) / features) + state['absent']


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_enum('metaoptnet_head', 'svm', HEADS, 'metaoptnet: what is solved')
    flags.DEFINE_float(
        'metaoptnet_penalty', 0.1, 'metaoptnet: C of the support vector machine', lower_bound=1e-6
    )
    flags.DEFINE_float(
        'metaoptnet_label_smoothing',
        0.0,
        'metaoptnet: share of each label that is divided among the other classes (the authors have '
        '0.1 on miniImageNet)',
        lower_bound=0,
    )
