"""SNAIL, the Simple Neural Attentive Learner (Mishra, Rohaninejad, Chen, Abbeel, ICLR 2018, arXiv
1707.03141)."""

import math

import keras
import tensorflow as tf

from maml_tf.algorithms.metric.metric_learner import MetricLearner, check_flat
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.order import counting, in_random_order, random_order, take
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import ArgumentError
from maml_tf.learner import State
from maml_tf.networks.encoders import conv4
from maml_tf.networks.image_encoders.by_name import ENCODER_FLAGS, encoder_of
from maml_tf.networks.sequence_models.snail_network import ATTENTIONS, FILTERS, SnailNetwork
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.objective import Objective
from maml_tf.training import shares
from maml_tf.training.outer_optimizers import OuterOptimizer
from maml_tf.training.phases import Loss

# About so many outputs of the encoder's layers make a share of a meta-batch (training/shares.py):
# half a GB, and as much again on the way back.
ACTIVATIONS = 2**27


class SNAIL(MetricLearner):
    """Reads the support set as a sequence, and answers at the position after it.

    The sequence is (e(x_1), y_1), ..., (e(x_n), y_n), (e(x), 0): embeddings, joined by one-hot
    labels, and by zeros for the query. Causal convolutions and causal attention take turns
    (snail_network.py), and the logits of the last position are the prediction (section 5.1).

    The support set is read in a random order that the task's key decides; without a key it is
    always the same shuffle of the places. The order matters (`ordered`).

    Reading the support set leaves behind what a position after it needs of the past: one place of
    each convolution's input, the keys and values of each attention. So each query is one step, by
    itself, and equals the run of the whole sequence of support set and query. Training does the
    same: all queries of a task follow one support set, and the loss is their mean. The paper draws
    one query for each sequence; with --train_query=1 there is one of each class.

    In training batch norm in the encoder takes the statistics of a task's support and query images
    together, afterwards running averages, see MetricLearner.

    Args:
      encoder, transductive: see MetricLearner; features are flat.
      way: classes of a task.
      length: T of the TC blocks, the longest support set and one query, of training and evaluation.
        It decides how many convolutions there are, so a learner of one length takes shots that
        differ; those beyond it only attention sees.
      filters, attentions: see SnailNetwork.
    Raises: ArgumentError for features that are not flat, and for a length below 2.
    """

    own_encoder = 'conv4'
    heeds = (*MetricLearner.heeds, *ENCODER_FLAGS)
    outer = OuterOptimizer(meta_lr=1e-4)  # As quoted, unverified.
    fixed_way = True
    ordered = True
    # Tasks pass the encoder one after another, and what follows takes all of them together. With a
    # loop over tasks a step took 1.5 times as long, and task by task to the end 2.2 times (Omniglot
    # 5-way 1-shot, 32 tasks).
    unroll_tasks = True

    def __init__(
        self,
        encoder: keras.Model,
        objective: Objective,
        way: int,
        length: int,
        filters: int = FILTERS,
        attentions: tuple[tuple[int, int], ...] = ATTENTIONS,
        **kwargs,
    ):
        super().__init__(encoder, objective, **kwargs)
        check_flat(encoder)
        self.way = way
        self.network = SnailNetwork(
            encoder.output_shape[-1] + way,
            way,
            length,
            filters,
            attentions,
            dtype=self.dtype_policy,
        )

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'SNAIL':
        """Returns the learner that the command line describes. Raises UserError in regression."""
        objective = cls.objective_of(flags, problem)
        specs = problem.training, problem.evaluation
        return cls(
            encoder_of(flags, problem.input_shape, cls.own_encoder),
            objective,
            problem.output_dim,
            1 + max(spec.way * spec.shot for spec in specs),
            transductive=bool(flags.transductive),
        )

    @classmethod
    def tiny(cls) -> tuple['SNAIL', EpisodeSpec]:
        spec = EpisodeSpec(way=3, shot=2, query=2)
        length = 1 + spec.way * spec.shot
        sizes = {'filters': 8, 'attentions': ((8, 8), (16, 8), (16, 16))}
        encoder = conv4((16, 16, 1), 8)
        return cls(encoder, MeanClassification(), spec.way, length, **sizes), spec

    def adapt(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        steps: int | None = None,
        mask: tf.Tensor | None = None,
        key: tf.Tensor | None = None,
    ) -> State:
        """Returns what `summarise` does of the embedded support set, in the order of `key`."""
        del steps
        order = random_order(support_y, key)
        embedded = self.embed(support_x, mask)
        return self.summarise(take(embedded, order), take(support_y, order))

    def share(self, tasks: int, spec: EpisodeSpec) -> int:
        """Returns as many tasks as there may be activations of the encoder for."""
        features = sum(math.prod(layer.output.shape[1:]) for layer in self.encoder.layers)
        images = spec.way * (spec.shot + spec.query)
        return shares.share(tasks, images, max(1, ACTIVATIONS // (images * features)))

    def meta_loss(self, task: Task, step: tf.Tensor) -> Loss:
        """Returns the mean loss of the queries, each after the support set in its random order."""
        return super().meta_loss(in_random_order(task), step)

    def summarise(self, support: tf.Tensor, support_y: tf.Tensor) -> State:
        """Returns what the network notes of the support set, in the order given.

        That is {'there': [tasks, support], <dense block>_before: [tasks, 1, features],
        <attention>_keys, <attention>_values: [tasks, support, size]}. Filling stands at the end.
        """
        if support_y.shape[-1] != self.way:
            raise ArgumentError('support_y', support_y.shape[-1], f'{self.way} classes, as `way`')
        positions = tf.concat([support, support_y], -1)
        return self.network.read(positions, counting(support_y))

    def compare(self, state: State, query: tf.Tensor) -> tf.Tensor:
        unlabelled = tf.pad(query, [[0, 0], [0, 0], [0, self.way]])
        return self.network.step(unlabelled, state)
