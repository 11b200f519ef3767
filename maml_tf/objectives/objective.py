"""The contract of every objective: a loss to learn by, and a metric to report."""

from collections.abc import Sequence

import tensorflow as tf

from maml_tf.objectives.metric import RETURN, Metric
from maml_tf.serialisation.configuration import Configured


class Objective(Configured):
    """Scores the outputs of a task. Subclasses write `loss` and `score`.

    Shapes: labels [..., tasks, examples, out]; outputs alike, maybe with further axes in front;
    shots: support examples of a class, a number or [tasks]; mask: [tasks, examples], 1 where an
    example counts, None where all do. Results are [..., tasks]. Of images whose pixels have labels
    `out` is [height, width, way], see pixels.py.
    """

    metric: Metric
    # What is reported besides, see `further_scores`.
    further: tuple[Metric, ...] = ()
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

    def further_scores(self, labels: tf.Tensor, outputs: tf.Tensor) -> list[tf.Tensor]:
        """Returns the metrics of `further`, each as `score` returns the metric."""
        del labels, outputs
        return []

    def label_shape(
        self, input_shape: Sequence[int], output_dim: int | None
    ) -> tuple[int | None, ...]:
        """Returns the shape of one label, by default a row [output_dim]."""
        del input_shape
        return (output_dim,)

    def predictions(self, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what an exported learner answers with."""
        return {'outputs': outputs}


class Return(Objective):
    """What a policy earns in a rollout: the undiscounted sum of its rewards, averaged.

    There are no labels, so there is neither `loss` nor `score`: see rl/.
    """

    metric = RETURN


def mean_of_counted(values: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """Returns the mean over the last axis, of what counts."""
    if mask is None:
        return tf.reduce_mean(values, axis=-1)
    return tf.reduce_sum(values * mask, axis=-1) / tf.reduce_sum(mask, axis=-1)
