"""Conditional Neural Processes (Garnelo et al., ICML 2018, arXiv 1807.01613)."""

from typing import Any

import keras
import tensorflow as tf

from maml_tf.algorithms.metric.metric_learner import MetricLearner
from maml_tf.algorithms.model_based.cnp_classifier import CNPClassifier
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import ArgumentError, UserError
from maml_tf.learner import Learner, State
from maml_tf.networks.image_encoders.by_name import ENCODER_FLAGS, encoder_of
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.objective import Objective
from maml_tf.objectives.regression import GaussianLikelihood
from maml_tf.ops.shapes import sizes

SIZE = 128  # Units of every layer in the official 1-D notebook.
LAYERS = 4  # Of the encoder; the decoder has two hidden ones.


class CNP(Learner):
    """Sums up the support set (the context) by a mean, and predicts a Gaussian at each query.

    r_i = h(x_i, y_i);  r = mean_i r_i;  (mean, s) = g(r, x*);  deviation = 0.1 + 0.9 softplus(s),
    with the loss - mean log N(y*; mean, deviation**2) over the queries (equations 1 to 4). As in
    the official code (deepmind/neural-processes, the 1-D notebook), h has four layers of 128 units,
    the last one linear, g has two of 128 and a linear one, and the queries (targets) of its
    training contain the context: `--query_contains_support`. That of evaluation makes the
    likelihood look better than it is of held-out points.

    Images as functions of a pixel's position are learnt by the same networks. What the paper takes
    there was not verified.

    In classification `from_flags` makes a `CNPClassifier`.

    Args:
      input_shape: (features,) of x.
      output_dim: numbers of y.
      objective: None: GaussianLikelihood().
      size: units of every layer.
    Raises: ArgumentError for inputs that are not flat.
    """

    # Where the tasks have classes, those of their images' encoder; see `from_flags`.
    heeds = (*MetricLearner.heeds, *ENCODER_FLAGS)
    own_encoder = 'conv4'
    fixed_way = True  # The classifier's decoder knows the classes by their places.
    takes_masks = True
    evaluation_flags = ('cnp_metric',)

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_dim: int,
        objective: Objective | None = None,
        size: int = SIZE,
        **kwargs,
    ):
        if len(input_shape) != 1:
            raise ArgumentError('input_shape', input_shape, 'flat, as of points or positions')
        super().__init__(objective or GaussianLikelihood(), **kwargs)
        self._example_shape = tuple(input_shape)
        features = input_shape[0]
        self.encoder = self._network('encoder', features + output_dim, (size,) * (LAYERS - 1), size)
        self.decoder = self._network('decoder', size + features, (size, size), 2 * output_dim)

    def _network(self, name: str, inputs: int, hidden: tuple[int, ...], out: int) -> keras.Model:
        """Makes dense layers with ReLUs, the last one linear, of [tasks, n, inputs]."""
        dense = lambda number, units, activation: keras.layers.Dense(
            units, activation, name=f'fc{number}', dtype=self.dtype_policy
        )
        layers = [dense(number, units, 'relu') for number, units in enumerate(hidden, start=1)]
        start = keras.Input((None, inputs), dtype=self.compute_dtype)
        return keras.Sequential([start, *layers, dense(len(hidden) + 1, out, None)], name=name)

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> Learner:
        """Returns the learner that the command line describes: of classes a CNPClassifier.

        Raises: UserError for a flag that means nothing in regression, or in classification.
        """
        classification = problem.objective.classification
        for name in ('cnp_metric',) if classification else ENCODER_FLAGS:
            if flags[name].value != flags[name].default:
                raise UserError(
                    f'--{name}={flags[name].value}: --algorithm=cnp heeds it in '
                    f'{"regression" if classification else "classification"} alone'
                )
        if classification:
            return CNPClassifier(
                encoder_of(flags, problem.input_shape, cls.own_encoder),
                problem.output_dim,
                MeanClassification(),
                transductive=bool(flags.transductive),
            )
        objective = GaussianLikelihood(metric=flags.cnp_metric)
        return cls(problem.input_shape, problem.output_dim, objective)

    @classmethod
    def tiny(cls) -> tuple['CNP', EpisodeSpec]:
        return cls((1,), 1, size=32), EpisodeSpec(way=1, shot=10, query=10)

    @property
    def example_shape(self) -> tuple[int, ...]:
        return self._example_shape

    def adapt(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        steps: int | None = None,
        mask: tf.Tensor | None = None,
        key: tf.Tensor | None = None,
    ) -> State:
        """Returns {'representation': r [tasks, size]}; `steps` and `key` are not needed."""
        del steps, key
        encoded = self.encoder(tf.concat([support_x, support_y], axis=-1))
        if mask is None:
            return {'representation': tf.reduce_mean(encoded, axis=1)}
        total = tf.reduce_sum(encoded * mask[..., tf.newaxis], axis=1)
        return {'representation': total / tf.reduce_sum(mask, axis=1, keepdims=True)}

    def predict_query(self, state: State, query_x: tf.Tensor) -> tf.Tensor:
        """Returns means and raw scales [tasks, query, 2 * out], see GaussianLikelihood."""
        representation = state['representation']
        tasks, queries, _ = sizes(query_x)
        repeated = tf.broadcast_to(
            representation[:, tf.newaxis], [tasks, queries, representation.shape[-1]]
        )
        return self.decoder(tf.concat([repeated, query_x], axis=-1))


def define_flags(flags: Any) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_enum(
        'cnp_metric',
        'log_likelihood',
        list(GaussianLikelihood.METRICS),
        'cnp: what is reported in regression; squared_error: that of the means, to compare with '
        'other methods',
    )
