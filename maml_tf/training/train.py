"""Training: many iterations of pretrain_op or metatrain_op in one compiled call."""

import dataclasses
import math
import sys
import time

import keras
import tensorflow as tf

from maml_tf.episodes.streaming import on_fresh_tasks, streams
from maml_tf.errors import UserError
from maml_tf.terminal import progress
from maml_tf.terminal.interrupts import Interrupts
from maml_tf.training import shares

SAVE_EVERY = 1000


class Op:
    """One kind of training step: gradients of a meta-batch, then the optimizer's step with them.

    Args:
      gradients: task -> (one gradient per trainable variable, {name: scalar to log}).
    """

    def __init__(self, gradients, learner, optimizer):
        self.gradients, self._optimizer, self._clip = gradients, optimizer, learner.clip_gradients
        self.xla, self._variables = learner.xla, learner.trainable_variables
        optimizer.build(self._variables)

    def apply(self, gradients, replicas=1):
        """Steps; `replicas` that hold the same gradients step together, and Keras adds up what they
        pass."""
        gradients = self._clip(gradients)
        self._optimizer.apply(
            [g / replicas for g in gradients] if replicas > 1 else gradients, self._variables
        )

    def __call__(self, task):
        """Task -> log."""
        gradients, log = self.gradients(task)
        self.apply(gradients)
        return log


def pretrain_op(learner, optimizer):
    """The Op that steps on the support loss before any inner update."""
    return Op(learner.pretrain_gradients, learner, optimizer)


def metatrain_op(learner, optimizer):
    """The Op that steps on the query loss after the inner updates."""
    return Op(learner.meta_gradients, learner, optimizer)


def adam(meta_lr, halve_every=None):
    """The outer optimizer. TF1's Adam has epsilon 1e-8 where Keras' default is 1e-7.

    halve_every: iterations after which the rate is halved, again and again; None: it is constant.
    """
    if halve_every:
        meta_lr = keras.optimizers.schedules.ExponentialDecay(
            meta_lr, halve_every, 0.5, staircase=True
        )
    return keras.optimizers.Adam(meta_lr, epsilon=1e-8)


def iterate(op, draw, meta_batch_size, at_once=None):
    """Compiles run(first, count) -> {name: mean over the iterations}: `count` steps of `op`, each
    on fresh tasks.

    Iteration i draws tasks i * meta_batch_size onwards, so that what is learnt depends neither on
    the length of a call nor on where a run was interrupted.

    at_once: tasks in a share, see shares.py; None: all, and with XLA the iterations are one
      program.
    """
    if at_once in (None, meta_batch_size):
        step = on_fresh_tasks(op, draw, meta_batch_size, op.xla)
        step_of_iteration = tf.function(
            lambda iteration: step(iteration * meta_batch_size), autograph=False
        )
        return loop(step_of_iteration, jit_compile=op.xla and not streams(draw))
    mean_gradients = shares.mean(op.gradients, draw, meta_batch_size, at_once, op.xla)
    apply = tf.function(op.apply, jit_compile=op.xla, autograph=False)

    @tf.function(autograph=False)
    def step_in_shares(iteration):
        gradients, log = mean_gradients(iteration * meta_batch_size)
        apply(gradients)
        return log

    return loop(step_in_shares, jit_compile=False)


def loop(step, jit_compile):
    """Makes run(first, count) -> {name: mean} of a tf.function iteration -> {name: scalar}, which
    steps."""
    # Traced once, here, since the loop needs to know beforehand what is logged; the loop calls the
    # same trace.
    log_specs = step.get_concrete_function(tf.TensorSpec([], tf.int64)).structured_outputs

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(first, count):
        def body(i, totals):
            log = step(first + i)
            return i + 1, {name: totals[name] + log[name] for name in totals}

        # One at a time: an iteration reads the weights that the one before it wrote.
        empty = {name: tf.zeros([], spec.dtype) for name, spec in log_specs.items()}
        _, totals = tf.while_loop(
            lambda i, _: i < count, body, (tf.zeros([], tf.int64), empty), parallel_iterations=1
        )
        return {name: total / tf.cast(count, total.dtype) for name, total in totals.items()}

    return lambda first, count: run(tf.constant(first, tf.int64), tf.constant(count, tf.int64))


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How many iterations, and how often something is said; `validate_every` None: never."""

    pretrain_iterations: int
    metatrain_iterations: int
    iterations_per_call: int
    print_every: int
    validate_every: int | None = None
    save_every: int = SAVE_EVERY

    @property
    def iterations(self):
        return self.pretrain_iterations + self.metatrain_iterations

    def calls(self, start):
        """Yields (first, count) from `start` to the end; no call crosses a point where something
        happens."""
        marks = [self.iterations_per_call, self.print_every, self.save_every]
        while start < self.iterations:
            ends = [(start // every + 1) * every for every in marks] + [self.iterations]
            ends += [self.pretrain_iterations] * (start < self.pretrain_iterations)
            end = min(ends)
            yield start, end - start
            start = end


def train(
    operations, schedule, start, run_directory, metric_name, validate=None, summary_writer=None
):
    """Runs the iterations from `start` on, with a progress bar, the reference's lines, summaries
    and checkpoints.

    A checkpoint is written every `save_every` iterations, at the end, and when the user interrupts.

    Args:
      operations: {'pretrain', 'metatrain': makes `iterate`'s run}, called when its phase begins.
      metric_name: 'loss' or 'accuracy', the metric in the printed lines.
      validate: () -> scores [steps + 1], the validation metric after every step; the checkpoint
        with the best last one is kept apart.
      summary_writer: a tf.summary writer; None: no summaries and no metrics.csv.
    Raises:
      UserError: the loss is no longer a number. The last checkpoint stays.
      KeyboardInterrupt: the user interrupted; the checkpoint is written.
    """
    run, phase, mean = None, None, _Mean()
    best, sign = run_directory.best_score(start), 1 if metric_name == 'accuracy' else -1
    began, seconds_before = time.monotonic(), run_directory.seconds()
    bar = progress.bar(total=schedule.iterations, initial=start, unit='it')
    with bar, Interrupts() as interrupts:
        for first, count in schedule.calls(start):
            if (
                new_phase := 'pretrain' if first < schedule.pretrain_iterations else 'metatrain'
            ) != phase:
                phase, mean = new_phase, _Mean()
                run = operations[phase]()
            log = {name: float(value) for name, value in run(first, count).items()}
            if not all(map(math.isfinite, log.values())):
                raise UserError(
                    f'the loss became {log} between iterations {first} and {first + count}: '
                    'stopped, the '
                    'last checkpoint stays. A smaller --update_lr or --meta_lr may help'
                )
            mean.add(log, count)
            end = first + count
            bar.update(count)
            if end % schedule.print_every == 0:
                row = mean.take()
                bar.write(
                    _line(
                        phase,
                        end - schedule.pretrain_iterations * (phase == 'metatrain'),
                        row,
                        metric_name,
                    ),
                    file=sys.stdout,
                )
                scores = []
                if validate and schedule.validate_every and end % schedule.validate_every == 0:
                    scores = validate()
                    bar.write(
                        f'Validation results: {scores[0]:.4f}, {scores[-1]:.4f}', file=sys.stdout
                    )
                    if best is None or sign * scores[-1] > sign * best:
                        best = float(scores[-1])
                        run_directory.save_best(end, best)
                if summary_writer:
                    _summarise(summary_writer, run_directory, end, row, scores, metric_name)
            if end % schedule.save_every == 0 or end == schedule.iterations or interrupts.asked:
                run_directory.save(end)
                run_directory.write_seconds(seconds_before + time.monotonic() - began)
            if interrupts.asked and end < schedule.iterations:
                raise KeyboardInterrupt


class _Mean:
    """Mean of logs, weighted by their iterations, since the last `take`."""

    def __init__(self):
        self._totals, self._count = {}, 0

    def add(self, log, count):
        self._totals = {
            name: self._totals.get(name, 0.0) + value * count for name, value in log.items()
        }
        self._count += count

    def take(self):
        means = {name: total / self._count for name, total in self._totals.items()}
        self.__init__()
        return means


def _line(phase, iteration, row, metric_name):
    """The reference's line: the metric before and after the inner updates."""
    title = {'pretrain': 'Pretrain Iteration', 'metatrain': 'Iteration'}[phase]
    values = [row[name] for name in (f'pre_{metric_name}', f'post_{metric_name}') if name in row]
    return f'{title} {iteration}: ' + ', '.join(f'{value:.4f}' for value in values)


def _summarise(writer, run_directory, iteration, row, scores, metric_name):
    """TensorBoard scalars and a row of metrics.csv. Columns stay the same whether this row was
    validated or not."""
    with writer.as_default(step=iteration):
        for name, value in row.items():
            tf.summary.scalar(f'metatrain/{name}', value)
        for step, score in enumerate(scores):
            tf.summary.scalar(f'metaval/{metric_name} after step {step}', score)
    run_directory.append_metrics(
        {
            'iteration': iteration,
            **row,
            f'val_{metric_name}_before': scores[0] if len(scores) else '',
            f'val_{metric_name}': scores[-1] if len(scores) else '',
        }
    )


def define_flags(flags):
    """Flags of training."""
    flags.DEFINE_integer(
        'pretrain_iterations', 0, 'number of pre-training iterations', lower_bound=0
    )
    flags.DEFINE_integer(
        'metatrain_iterations', 15000, 'number of meta-training iterations', lower_bound=0
    )
    flags.DEFINE_integer(
        'meta_batch_size', 25, 'number of tasks sampled per meta-update', lower_bound=1
    )
    flags.DEFINE_float(
        'meta_lr', 0.001, 'learning rate of the outer optimizer, Adam', lower_bound=0
    )
    flags.DEFINE_integer(
        'meta_lr_halve_every',
        None,
        'halve --meta_lr every so many iterations (default: constant)',
        lower_bound=1,
    )
    flags.DEFINE_integer(
        'iterations_per_call',
        None,
        'iterations per compiled call, between two moves of the '
        'progress bar (default: by data source)',
        lower_bound=1,
    )
