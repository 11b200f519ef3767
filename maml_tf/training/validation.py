"""Validation during training: the checkpoints with the best scores are kept apart."""

import math
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from maml_tf.objectives.metric import Metric
from maml_tf.terminal.interrupts import Interrupts
from maml_tf.training.distribution.workers import Workers

if TYPE_CHECKING:  # Saving stands on learners, and learners on training.
    from maml_tf.saving.run_directory import RunDirectory
    from maml_tf.saving.shared_run_directory import SharedRunDirectory


class Validation:
    """Validates every so many iterations, unless SIGTERM comes in between.

    Args:
      validate: (() -> whether to leave off) -> scores [entries], NaN where it left off.
      every: iterations.
      run_directory: where the best checkpoint is kept.
      start: the iteration that training goes on from.
      metric: of the scores.
      keep_best: more than one: so many of the best checkpoints are kept for an ensemble.
      interrupts, workers: of the training.
    """

    def __init__(
        self,
        validate: Callable[[Callable[[], bool]], np.ndarray],
        every: int,
        run_directory: 'RunDirectory | SharedRunDirectory',
        start: int,
        metric: Metric,
        keep_best: int,
        interrupts: Interrupts,
        workers: Workers,
    ):
        self._validate, self._every = validate, every
        self._directory, self._metric, self._keep_best = run_directory, metric, keep_best
        self._interrupts, self._workers = interrupts, workers
        self._best = run_directory.best_score(start)

    def is_due(self, iteration: int) -> bool:
        """Says whether this iteration is validated."""
        return iteration > 0 and iteration % self._every == 0

    def is_missing(self, iteration: int) -> bool:
        """Says whether it was due at an iteration that is saved, and was left off."""
        column = f'val_{self._metric.name}'
        return self.is_due(iteration) and self._directory.is_empty(iteration, column)

    def scores(self, iteration: int) -> np.ndarray | list:
        """Returns the scores [entries], and keeps the checkpoint if they are among the best; [] for
        a validation that is left off, since something is to be saved soon."""
        scores = self._validate(lambda: self._interrupts.asked == signal.SIGTERM)
        (asked,) = self._workers.most(self._interrupts.asked)
        if asked and not np.isfinite(scores).all():
            return []
        self._keep(iteration, float(scores[-1]))
        return scores

    def _keep(self, iteration, score):
        if _better(score, self._best, self._metric):
            self._best = score
            self._directory.save_best(iteration, score)
        if self._keep_best > 1 and math.isfinite(score):
            better_up = self._metric.higher_is_better
            self._directory.save_among_best(iteration, score, self._keep_best, better_up)


def _better(score: float, best: float | None, metric: Metric) -> bool:
    if best is None or not math.isfinite(score):
        return math.isfinite(score)
    return score > best if metric.higher_is_better else score < best
