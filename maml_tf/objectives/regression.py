"""Objectives of regression: the squared error, and the likelihood of a Gaussian."""

import math
from typing import Literal

import tensorflow as tf

from maml_tf.errors import ArgumentError, check_one_of
from maml_tf.objectives.metric import LOG_LIKELIHOOD, OVER_VARIANCE, SQUARED_ERROR
from maml_tf.objectives.objective import Objective, mean_of_counted


class Regression(Objective):
    """Mean squared error, both minimised and reported.

    variance: of the labels; what is reported is divided by it, and if it is not 1 the metric says
      so.
    """

    def __init__(self, variance: float = 1.0):
        self.variance = variance
        self.metric = SQUARED_ERROR if variance == 1 else OVER_VARIANCE

    def loss(
        self,
        labels: tf.Tensor,
        outputs: tf.Tensor,
        shots: tf.Tensor | float,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        del shots  # A mean does not depend on them.
        return mean_of_counted(tf.reduce_mean(tf.square(outputs - labels), axis=-1), mask)

    def score(
        self,
        labels: tf.Tensor,
        outputs: tf.Tensor,
        shots: tf.Tensor | float,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        return self.loss(labels, outputs, shots, mask) / self.variance


class GaussianLikelihood(Objective):
    """Minus the log-likelihood of each point under a Gaussian of its own; reported is the
    log-likelihood.

    Outputs are [..., examples, 2 * out], the means and then the raw scales s; the deviations are
    least + (1 - least) softplus(s). The loss is the mean over the points of - sum over `out` of
    log N(y; mean, deviation**2), in nats (Garnelo et al. 2018, equation 4). A density may be above
    1, so the log-likelihood has either sign; `least` bounds it.

    Args:
      least: no deviation is below it; 0.1 in the official code of conditional neural processes.
      metric: what is reported, one of METRICS; squared_error is that of the means, to stand beside
        learners without a deviation.
    Raises: ArgumentError for a `least` out of range, or another metric.
    """

    METRICS = {'log_likelihood': LOG_LIKELIHOOD, 'squared_error': SQUARED_ERROR}

    def __init__(
        self,
        least: float = 0.1,
        metric: Literal['log_likelihood', 'squared_error'] = 'log_likelihood',
    ):
        if not 0 <= least < 1:
            raise ArgumentError('least', least, 'from 0 to below 1')
        check_one_of('metric', metric, tuple(self.METRICS))
        self.least, self.metric = least, self.METRICS[metric]

    def moments(self, outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the means and the deviations of outputs, each [..., out]."""
        mean, raw = tf.split(outputs, 2, axis=-1)
        return mean, self.least + (1 - self.least) * tf.nn.softplus(raw)

    def outputs_of(self, mean: tf.Tensor, deviation: tf.Tensor) -> tf.Tensor:
        """Returns the outputs [..., 2 * out] that stand for means and deviations [..., out]."""
        softplus = (deviation - self.least) / (1 - self.least)
        return tf.concat([mean, tf.math.log(tf.math.expm1(softplus))], axis=-1)

    def loss(
        self,
        labels: tf.Tensor,
        outputs: tf.Tensor,
        shots: tf.Tensor | float,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        del shots  # A mean does not depend on them.
        mean, deviation = self.moments(outputs)
        squares = tf.square((labels - mean) / deviation)
        densities = -0.5 * (squares + math.log(2 * math.pi)) - tf.math.log(deviation)
        return -mean_of_counted(tf.reduce_sum(densities, axis=-1), mask)

    def score(
        self,
        labels: tf.Tensor,
        outputs: tf.Tensor,
        shots: tf.Tensor | float,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        if self.metric is LOG_LIKELIHOOD:
            return -self.loss(labels, outputs, shots, mask)
        return Regression().loss(labels, self.moments(outputs)[0], shots, mask)

    def predictions(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        mean, deviation = self.moments(outputs)
        return {'outputs': outputs, 'mean': mean, 'deviation': deviation}
