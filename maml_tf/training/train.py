"""The course of training: phases, progress, summaries, validation and checkpoints."""

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from maml_tf.errors import UserError
from maml_tf.objectives import Metric
from maml_tf.terminal import progress
from maml_tf.terminal.interrupts import Interrupts
from maml_tf.training.iterate import Run
from maml_tf.training.phases import Phase

if TYPE_CHECKING:  # Saving stands on learners, and learners on training.
    from maml_tf.saving.run_directory import RunDirectory

SAVE_EVERY = 1000


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Says how often something happens, in iterations; `validate_every` None: never."""

    iterations_per_call: int
    print_every: int
    validate_every: int | None = None
    save_every: int = SAVE_EVERY

    def calls(self, start: int, ends: list[int]) -> Iterator[tuple[int, int]]:
        """Yields (first, count) from `start` to the last of `ends`, the ends of the phases.

        No call crosses a point where something happens.
        """
        marks = [self.iterations_per_call, self.print_every, self.save_every]
        while start < ends[-1]:
            next_marks = [(start // every + 1) * every for every in marks]
            end = min(next_marks + [end for end in ends if end > start])
            yield start, end - start
            start = end


def train(
    phases: list[Phase],
    make_run: Callable[[Phase, int], Run],
    schedule: Schedule,
    start: int,
    run_directory: 'RunDirectory',
    metric: Metric,
    validate: Callable[[], np.ndarray] | None = None,
    summary_writer: tf.summary.SummaryWriter | None = None,
    keep_best: int = 1,
) -> None:
    """Takes the iterations from `start` on.

    Shows a progress bar and the reference's lines. A checkpoint is written every `save_every`
    iterations, at the end, and when the user interrupts.

    Args:
      make_run: (phase, its first iteration) -> `iterate`'s run, called when the phase begins.
      metric: of the learner.
      validate: () -> scores [entries]; the checkpoint with the best last one is kept apart.
      summary_writer: None: no summaries and no metrics.csv.
      keep_best: more than one: so many of the best checkpoints are kept for an ensemble.
    Raises:
      UserError: the loss is no longer a number. The last checkpoint stays.
      KeyboardInterrupt: the user interrupted; the checkpoint is written.
    """
    course = _Course(phases)
    run, phase, mean = None, None, _Mean()
    best = run_directory.best_score(start)
    began, seconds_before = time.monotonic(), run_directory.seconds()
    bar = progress.bar(total=course.iterations, initial=start, unit='it')
    with bar, Interrupts() as interrupts:
        for first, count in schedule.calls(start, course.ends):
            now, phase_start = course.at(first)
            if now is not phase:
                phase, mean = now, _Mean()
                run = make_run(phase, phase_start)
            log = {name: float(value) for name, value in run(first, count).items()}
            end = first + count
            if not all(map(math.isfinite, log.values())):
                raise UserError(
                    f'the loss became {log} between iterations {first} and {end}: stopped, '
                    f'{run_directory.last_checkpoint()}. Smaller learning rates may help'
                )
            mean.add(log, count)
            bar.update(count)
            if end % schedule.print_every == 0:
                row, scores = mean.take(), []
                bar.write(
                    _line(phase, phase.first + end - phase_start, row, metric), file=sys.stdout
                )
                if validate and schedule.validate_every and end % schedule.validate_every == 0:
                    scores = validate()
                    bar.write(
                        f'Validation results: {scores[0]:.4f}, {scores[-1]:.4f}', file=sys.stdout
                    )
                    if _better(scores[-1], best, metric):
                        best = float(scores[-1])
                        run_directory.save_best(end, best)
                    if keep_best > 1 and math.isfinite(scores[-1]):
                        score = float(scores[-1])
                        better_up = metric.higher_is_better
                        run_directory.save_among_best(end, score, keep_best, better_up)
                if summary_writer:
                    _summarise(summary_writer, run_directory, end, row, scores, metric)
            if end % schedule.save_every == 0 or end == course.iterations or interrupts.asked:
                run_directory.save(end)
                run_directory.write_seconds(seconds_before + time.monotonic() - began)
            if interrupts.asked and end < course.iterations:
                raise KeyboardInterrupt


class _Course:
    """The phases one after another."""

    def __init__(self, phases: list[Phase]):
        self._phases = [phase for phase in phases if phase.iterations]
        self.ends = np.cumsum([phase.iterations for phase in self._phases]).tolist()
        self.iterations = self.ends[-1]

    def at(self, iteration: int) -> tuple[Phase, int]:
        """Returns (the phase of an iteration, that phase's first iteration)."""
        for phase, end in zip(self._phases, self.ends):
            if iteration < end:
                return phase, end - phase.iterations
        raise IndexError(iteration)


class _Mean:
    """Mean of logs, weighted by their iterations, since the last `take`."""

    def __init__(self):
        self._totals, self._count = {}, 0

    def add(self, log: dict[str, float], count: int) -> None:
        for name, value in log.items():
            self._totals[name] = self._totals.get(name, 0.0) + value * count
        self._count += count

    def take(self) -> dict[str, float]:
        means = {name: total / self._count for name, total in self._totals.items()}
        self.__init__()
        return means


def _better(score: float, best: float | None, metric: Metric) -> bool:
    if best is None or not math.isfinite(score):
        return math.isfinite(score)
    return score > best if metric.higher_is_better else score < best


def _line(phase: Phase, iteration: int, row: dict[str, float], metric: Metric) -> str:
    """The reference's line: the metric before and after the inner updates."""
    names = (f'pre_{metric.name}', f'post_{metric.name}')
    values = [row[name] for name in names if name in row] or list(row.values())
    return f'{phase.title} {iteration}: ' + ', '.join(f'{value:.4f}' for value in values)


def _summarise(writer, run_directory, iteration, row, scores, metric) -> None:
    """Writes TensorBoard scalars and a row of metrics.csv, with the same columns all a phase."""
    name = metric.name
    with writer.as_default(step=iteration):
        for column, value in row.items():
            tf.summary.scalar(f'metatrain/{column}', value)
        for entry, score in enumerate(scores):
            tf.summary.scalar(f'metaval/{name} after step {entry}', score)
    before, after = (scores[0], scores[-1]) if len(scores) else ('', '')
    validation = {f'val_{name}_before': before, f'val_{name}': after}
    run_directory.append_metrics({'iteration': iteration, **row, **validation})


def define_flags(flags) -> None:
    """Defines the flags of training."""
    flags.DEFINE_integer(
        'pretrain_iterations', 0, 'number of pre-training iterations', lower_bound=0
    )
    flags.DEFINE_integer(
        'metatrain_iterations', 15000, 'number of meta-training iterations', lower_bound=0
    )
    flags.DEFINE_integer(
        'meta_batch_size', 25, 'number of tasks sampled per meta-update', lower_bound=1
    )
    flags.DEFINE_integer(
        'iterations_per_call',
        None,
        'iterations per compiled call, between two moves of the '
        'progress bar (default: by data source)',
        lower_bound=1,
    )
