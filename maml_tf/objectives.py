"""Objectives: the loss that a task is learnt by, and the metric in which it is reported."""

import math
from typing import Literal, NamedTuple

import tensorflow as tf

from maml_tf.errors import ArgumentError, check_one_of
from maml_tf.ops.masking import NEVER
from maml_tf.serialisation.configuration import Configured


class Metric(NamedTuple):
    """Describes a number that results are reported in.

    name: in files and logs. title: in tables and pictures.
    unit: '%' for a fraction that is shown as a percentage, else what follows the number.
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool

    def show(self, value: float) -> str:
        """Returns the number as people read it: '98.70%', '0.3512'."""
        return f'{value:.2%}' if self.unit == '%' else f'{value:.4f}{self.unit}'


class Axis(NamedTuple):
    """Says what the entries of a result stand for: a quantity, and its value at each entry."""

    name: str
    values: tuple[int, ...]


def gradient_steps(entries: int) -> Axis:
    """Returns the axis of scores after 0, 1, ... gradient steps."""
    return Axis('gradient steps', tuple(range(entries)))


ACCURACY = Metric('accuracy', 'Accuracy', '%', higher_is_better=True)
SQUARED_ERROR = Metric('loss', 'Mean squared error', '', higher_is_better=False)
RETURN = Metric('return', 'Average return', '', higher_is_better=True)
# In nats.
LOG_LIKELIHOOD = Metric('log_likelihood', 'Log-likelihood per point', '', higher_is_better=True)
# Comparable over families of functions: 1 is the error of somebody who knows nothing.
OVER_VARIANCE = Metric(
    'normalised_loss', 'Squared error over the variance of y', '', higher_is_better=False
)


class Objective(Configured):
    """Scores the outputs of a task. Subclasses write `loss` and `score`.

    Shapes: labels [..., tasks, examples, out]; outputs alike, maybe with further axes in front;
    shots: support examples of a class, a number or [tasks]; mask: [tasks, examples], 1 where an
    example counts, None where all do. Results are [..., tasks].
    """

    metric: Metric
    classification = False

    def loss(
        self, labels: tf.Tensor, outputs: tf.Tensor, shots: tf.Tensor, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns what training minimises, one number for each task."""
        raise NotImplementedError

    def score(
        self, labels: tf.Tensor, outputs: tf.Tensor, shots: tf.Tensor, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns the metric, one number for each task."""
        raise NotImplementedError

    def predictions(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what an exported learner answers with."""
        return {'outputs': outputs}


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
        return _mean(tf.reduce_mean(tf.square(outputs - labels), axis=-1), mask)

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
        return -_mean(tf.reduce_sum(densities, axis=-1), mask)

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


class Return(Objective):
    """What a policy earns in a rollout: the undiscounted sum of its rewards, averaged.

    There are no labels, so there is neither `loss` nor `score`: see rl/.
    """

    metric = RETURN


class Classification(Objective):
    """Softmax cross-entropy summed over the examples, over the shots; reported as accuracy.

    This is the reference's scaling: a step on this loss is `way` times a step on the mean, and a
    query loss is divided by the *support's* shots too, so the reference's learning rates mean here
    what they mean there. Labels are one-hot, outputs are logits.
    """

    metric = ACCURACY
    classification = True

    def loss(
        self,
        labels: tf.Tensor,
        outputs: tf.Tensor,
        shots: tf.Tensor | float,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        del mask  # The label of an example that does not count is all zero.
        # TensorFlow's fused loss does not broadcast the labels over the inner steps.
        log_likelihood = tf.reduce_sum(labels * tf.nn.log_softmax(outputs), axis=(-2, -1))
        return -log_likelihood / tf.cast(shots, outputs.dtype)

    def score(
        self,
        labels: tf.Tensor,
        outputs: tf.Tensor,
        shots: tf.Tensor | float,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        del shots
        correct = tf.equal(tf.argmax(outputs, axis=-1), tf.argmax(labels, axis=-1))
        return _mean(tf.cast(correct, outputs.dtype), mask)

    def probabilities(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the probabilities of the classes, [..., way]."""
        return tf.nn.softmax(outputs)

    def predictions(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {'outputs': outputs, 'probabilities': self.probabilities(outputs)}


class MeanClassification(Classification):
    """Softmax cross-entropy averaged over the examples; reported as accuracy.

    smoothing: the share of each label that is divided among the other classes of the task (Szegedy
      et al. 2016).
    """

    def __init__(self, smoothing: float = 0.0):
        if not 0 <= smoothing < 1:
            raise ArgumentError('smoothing', smoothing, 'from 0 to below 1')
        self.smoothing = smoothing

    def loss(
        self,
        labels: tf.Tensor,
        outputs: tf.Tensor,
        shots: tf.Tensor | float,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        del shots
        if self.smoothing:
            labels = self._smooth(labels, outputs)
        return -_mean(tf.reduce_sum(labels * tf.nn.log_softmax(outputs), axis=-1), mask)

    def _smooth(self, labels, outputs):
        # A class without support has a logit that makes its probability 0; it gets no share.
        others = tf.cast(outputs > NEVER / 2, labels.dtype) - labels
        others *= tf.reduce_sum(labels, axis=-1, keepdims=True)
        share = tf.math.divide_no_nan(others, tf.reduce_sum(others, axis=-1, keepdims=True))
        return labels * (1 - self.smoothing) + share * self.smoothing


class PairScores(Classification):
    """Judges every pair of a query and a class by itself; reported as accuracy.

    Outputs are the logits of "the query is of this class". A class without support has the lowest
    finite logit and counts for nothing, as do queries whose label is all zero. Subclasses write
    `errors`.
    """

    def errors(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the loss of each pair, [..., way]."""
        raise NotImplementedError

    def loss(
        self,
        labels: tf.Tensor,
        outputs: tf.Tensor,
        shots: tf.Tensor | float,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        del shots, mask
        there = tf.cast(outputs > outputs.dtype.min, outputs.dtype)
        pairs = tf.reduce_sum(self.errors(labels, outputs) * there, axis=-1)
        return _mean(pairs / tf.reduce_sum(there, axis=-1), tf.reduce_max(labels, axis=-1))

    def probabilities(self, outputs: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(tf.math.log_sigmoid(outputs))


class RelationScores(PairScores):
    """Squared error between the relation score, sigmoid(output), and the label (Sung 2018)."""

    def errors(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        return tf.square(tf.sigmoid(outputs) - labels)


class SamePairs(PairScores):
    """Binary cross-entropy of "the two images are of one class" (Koch et al. 2015, section 3.2)."""

    def errors(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        labels, outputs = tf.broadcast_to(labels, tf.shape(outputs)), tf.convert_to_tensor(outputs)
        return tf.nn.sigmoid_cross_entropy_with_logits(labels, outputs)


def _mean(values: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """Mean over the last axis, of what counts."""
    if mask is None:
        return tf.reduce_mean(values, axis=-1)
    return tf.reduce_sum(values * mask, axis=-1) / tf.reduce_sum(mask, axis=-1)
