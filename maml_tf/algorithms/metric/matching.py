"""Matching Networks (Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra, NeurIPS 2016, arXiv
1606.04080)."""

from typing import Any

import keras
import tensorflow as tf

from maml_tf.algorithms.metric.metric_learner import MetricLearner
from maml_tf.algorithms.metric.prototypical import COSINE_SCALE, squared_euclidean
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.order import counting, in_random_order, random_order, take
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import UserError
from maml_tf.learner import State
from maml_tf.networks.context_embeddings import FullContext
from maml_tf.networks.encoders import conv4
from maml_tf.networks.image_encoders.by_name import ENCODER_FLAGS, encoder_of
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.objective import Objective
from maml_tf.ops.masking import NEVER
from maml_tf.training.phases import Loss

# What a similarity is multiplied by unless told. Bare cosines of ReLU features, from 0 to 1, let no
# probability exceed 0.40 among 5 images and 0.13 among 20, so that the loss has a floor and
# training stalls. Omniglot 5-way 1-shot after 1,600 episodes, 200 validation tasks: times 1 76.7 %,
# 10 91.3 %, 30 92.2 %, 100 92.5 %; squared_l2 91.2 %.
TEMPERATURES = {'cosine': COSINE_SCALE, 'squared_l2': 1.0, 'dot': 1.0}


class Matching(MetricLearner):
    """A query's label is the attention-weighted mean of the support labels (eq. 1).

    P(y|x) = sum_i a(x, x_i) y_i, a = softmax over i of temperature * similarity(f(x), g(x_i)).
    Outputs are log P. With `fce` f and g are full context embeddings, see context_embeddings.py;
    else both are the encoder. The bidirectional LSTM of g reads the support set in a random order
    that the task's key decides; without a key it is always the same shuffle of the places. (What
    the order matters: 1,600 episodes of Omniglot 5-way 1-shot, ten orders of 100 tasks: a
    probability changes by 0.005, at most 0.17, and the accuracy is from 92.3 to 92.4 %.) Batch norm
    uses running averages in evaluation.

    Args:
      encoder, transductive: see MetricLearner.
      fce: full context embeddings.
      steps: reads of the support set by f's LSTM (K of the paper's appendix A.1), with fce.
      similarity: one of TEMPERATURES: cosine (the paper's), minus the squared distance, or the dot
        product.
      temperature: multiplies the similarity; None: the similarity's in TEMPERATURES.
    """

    own_encoder = 'conv4'
    heeds = (*MetricLearner.heeds, *ENCODER_FLAGS)

    def __init__(
        self,
        encoder: keras.Model,
        objective: Objective,
        fce: bool = False,
        steps: int = 3,
        similarity: str = 'cosine',
        temperature: float | None = None,
        **kwargs,
    ):
        super().__init__(encoder, objective, **kwargs)
        self.similarity = similarity
        self.temperature = TEMPERATURES[similarity] if temperature is None else temperature
        self.context = FullContext(encoder.output_shape[-1], steps) if fce else None
        self.ordered = fce

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'Matching':
        """Returns the learner that the command line describes. Raises UserError in regression."""
        objective = cls.objective_of(flags, problem)
        return cls(
            encoder_of(flags, problem.input_shape, cls.own_encoder),
            objective,
            fce=flags.matching_fce,
            steps=flags.matching_steps,
            similarity=flags.matching_similarity,
            temperature=flags.matching_temperature,
            transductive=bool(flags.transductive),
        )

    @classmethod
    def check_flags(cls, flags: Any) -> None:
        if not flags.matching_fce and flags.matching_steps != flags['matching_steps'].default:
            raise UserError(
                f'--matching_steps={flags.matching_steps}: means nothing without --matching_fce'
            )

    @classmethod
    def tiny(cls) -> tuple['Matching', EpisodeSpec]:
        learner = cls(conv4((16, 16, 1), 8), MeanClassification(), fce=True)
        return learner, EpisodeSpec(way=3, shot=2, query=2)

    def adapt(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        steps: int | None = None,
        mask: tf.Tensor | None = None,
        key: tf.Tensor | None = None,
    ) -> State:
        """Returns what `summarise` does, in the order of `support_x`."""
        if not self.context:
            return super().adapt(support_x, support_y, steps, mask)
        order = random_order(support_y, key)
        mask = None if mask is None else take(mask, order)
        state = super().adapt(take(support_x, order), take(support_y, order), steps, mask)
        back = tf.argsort(order)
        return {name: take(value, back) for name, value in state.items()}

    def meta_loss(self, task: Task, step: tf.Tensor) -> Loss:
        return super().meta_loss(in_random_order(task) if self.context else task, step)

    def summarise(self, support: tf.Tensor, support_y: tf.Tensor) -> State:
        """Returns {'support': g [tasks, support, features], 'labels': [tasks, support, way]}."""
        if self.context:
            support = self.context.of_support(support, counting(support_y))
        return {'support': support, 'labels': support_y}

    def compare(self, state: State, query: tf.Tensor) -> tf.Tensor:
        log_attention = self._log_attention(state, query)
        no_label = tf.where(state['labels'] > 0, tf.zeros_like(state['labels']), NEVER)
        return tf.reduce_logsumexp(log_attention[..., tf.newaxis] + no_label[:, tf.newaxis], axis=2)

    def resemblance(self, state: State, query_x: tf.Tensor) -> tf.Tensor:
        """Returns the attention a(x, x_i), [tasks, query, support]; rows add up to 1."""
        return tf.exp(self._log_attention(state, self.embed(query_x)))

    def embedded_support(self, state: State, support_x: tf.Tensor) -> tf.Tensor:
        """Returns g, which knows the whole support set."""
        return state['support']

    def _log_attention(self, state, query):
        support, counts = state['support'], counting(state['labels'])
        if self.context:
            query = self.context.of_queries(query, support, counts)
        if self.similarity == 'squared_l2':
            similarity = squared_euclidean(query, support)
        else:
            if self.similarity == 'cosine':
                query, support = (tf.math.l2_normalize(x, axis=-1) for x in (query, support))
            similarity = tf.matmul(query, support, transpose_b=True)
        filling = NEVER * (1 - counts)
        return tf.nn.log_softmax(self.temperature * similarity + filling[:, tf.newaxis])


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_bool('matching_fce', False, 'matching: full context embeddings')
    flags.DEFINE_integer(
        'matching_steps',
        3,
        'matching: reads of the support set by the attention LSTM',
        lower_bound=1,
    )
    flags.DEFINE_enum(
        'matching_similarity',
        'cosine',
        list(TEMPERATURES),
        'matching: of a query and a support image; squared_l2: minus the squared distance',
    )
    flags.DEFINE_float(
        'matching_temperature',
        None,
        'matching: multiplies the similarity before the softmax (default: '
        + ', '.join(f'{name} {value:g}' for name, value in TEMPERATURES.items())
        + ')',
        lower_bound=0,
    )
