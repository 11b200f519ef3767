"""Metrics, and the axes that results lie along."""

from typing import NamedTuple


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
ROC_AUC = Metric('roc_auc', 'ROC-AUC', '', higher_is_better=True)
PIXEL_ACCURACY = Metric('pixel_accuracy', 'Pixel accuracy', '%', higher_is_better=True)
MEAN_IOU = Metric('mean_iou', 'Mean IoU', '%', higher_is_better=True)
KAPPA = Metric('kappa', "Cohen's kappa", '', higher_is_better=True)
SQUARED_ERROR = Metric('loss', 'Mean squared error', '', higher_is_better=False)
# The share of the bits of a message that are decoded wrongly.
BIT_ERROR_RATE = Metric('bit_error_rate', 'Bit error rate', '%', higher_is_better=False)
RETURN = Metric('return', 'Average return', '', higher_is_better=True)
# In nats.
LOG_LIKELIHOOD = Metric('log_likelihood', 'Log-likelihood per point', '', higher_is_better=True)
# Comparable over families of functions: 1 is the error of somebody who knows nothing.
OVER_VARIANCE = Metric(
    'normalised_loss', 'Squared error over the variance of y', '', higher_is_better=False
)
