"""Training: calls one after another, progress, summaries, validation and checkpoints."""

import contextlib
import math
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from maml_tf.errors import UserError
from maml_tf.objectives.metric import Axis, Metric, gradient_steps
from maml_tf.terminal import progress
from maml_tf.terminal.interrupts import Interrupts, ended_at_once, interruption
from maml_tf.training import lines
from maml_tf.training.course import Course, Mean, Pace, Schedule
from maml_tf.training.distribution.workers import Workers
from maml_tf.training.iterate import Run
from maml_tf.training.phases import Phase
from maml_tf.training.validation import Validation

if TYPE_CHECKING:  # Saving stands on learners, and learners on training.
    from maml_tf.saving.run_directory import RunDirectory
    from maml_tf.saving.shared_run_directory import SharedRunDirectory


def train(
    phases: list[Phase],
    make_run: Callable[[Phase, int], Run],
    schedule: Schedule,
    start: int,
    run_directory: 'RunDirectory | SharedRunDirectory',
    metric: Metric,
    validate: Callable[[Callable[[], bool]], np.ndarray] | None = None,
    summary_writer: tf.summary.SummaryWriter | None = None,
    keep_best: int = 1,
    axis: Callable[[int], Axis] = gradient_steps,
    workers: Workers | None = None,
) -> None:
    """Takes the iterations from `start` on.

    Shows a progress bar, and lines as the reference has them, with names and units. A checkpoint is
    written every `save_every` iterations, at the end, and when the user interrupts or a scheduler
    sends SIGTERM.

    Args:
      make_run: (phase, its first iteration) -> `iterate`'s run, called when the phase begins.
      metric: of the learner.
      validate: (() -> whether to leave off) -> scores [entries], NaN where it left off; the
        checkpoint with the best last one is kept apart.
      summary_writer: None: no summaries and no metrics.csv.
      keep_best: more than one: so many of the best checkpoints are kept for an ensemble.
      axis: number of scores -> what they stand for.
      workers: that train together, each in this function; None: this process alone.
    Raises:
      UserError: the loss is no longer a number. The last checkpoint stays.
      KeyboardInterrupt: the user interrupted, or (Terminated) SIGTERM came; the checkpoint is
        written.
    """
    workers = workers or Workers(tf.distribute.get_strategy())
    course = Course(phases)
    run, phase, mean, pace = None, None, Mean(), Pace()
    began, seconds_before = time.monotonic(), run_directory.seconds()
    bar = progress.bar(total=course.iterations, initial=start, unit='it')
    end = saved = start
    with bar, Interrupts() as interrupts:
        validation = None
        if validate and schedule.validate_every:
            validation = Validation(
                *(validate, schedule.validate_every, run_directory, start),
                *(metric, keep_best, interrupts, workers),
            )

        def save():
            # Nothing follows a checkpoint that a run which is killed in between would lack.
            run_directory.write_seconds(seconds_before + time.monotonic() - began)
            run_directory.save(end)

        def validated():
            scores = validation.scores(end)
            if len(scores):
                text = lines.of_validation(scores, metric, axis(len(scores)))
                bar.write(text, file=sys.stdout)
            return scores

        if validation and validation.is_missing(start):
            validated()
        while end < course.iterations:
            first = end
            now, phase_start = course.at(first)
            fresh = now is not phase
            if fresh:
                if first != saved:
                    save()
                    saved = first
                (asked,) = workers.most(interrupts.asked)
                if asked:
                    raise interruption(asked, end)
                phase, mean, pace = now, Mean(), Pace()
            count = schedule.count(first, course.ends, pace.seconds)
            called = time.monotonic()
            if fresh:  # Its first call compiles, for minutes maybe; all that was before is saved.
                bar.set_description('compiling')
            with ended_at_once(signal.SIGTERM) if fresh else contextlib.nullcontext():
                if fresh:
                    run = make_run(phase, phase_start)
                log = {name: float(value) for name, value in run(first, count).items()}
            asked, seconds = workers.most(interrupts.asked, time.monotonic() - called)
            pace.add(seconds, count, schedule.seconds_per_call)
            end = first + count
            bar.set_description_str(None, refresh=False)
            if not all(map(math.isfinite, log.values())):
                raise UserError(
                    f'the loss became {log} between iterations {first} and {end}: stopped, '
                    f'{run_directory.last_checkpoint()}. Smaller learning rates may help'
                )
            mean.add(log, count)
            bar.update(count)
            if end % schedule.print_every == 0:
                row, scores = mean.take(), []
                number = phase.first + end - phase_start
                bar.write(lines.of_iteration(phase.title, number, row, metric), file=sys.stdout)
                if validation and validation.is_due(end):
                    scores = validated()
                    (asked,) = workers.most(interrupts.asked)
                if summary_writer:
                    _summarise(summary_writer, run_directory, end, row, scores, metric)
            if end % schedule.save_every == 0 or end == course.iterations or asked:
                save()
                saved = end
            if asked == signal.SIGTERM or (asked and end < course.iterations):
                raise interruption(asked, end)


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
        'at most so many iterations in a compiled call, between two moves of the progress bar; '
        'fewer where they would take more than four seconds (default: by data source)',
        lower_bound=1,
    )
