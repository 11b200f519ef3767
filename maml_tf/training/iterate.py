"""Many iterations of a training op in one compiled call, each on fresh tasks."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from maml_tf.episodes.streaming import on_fresh_tasks, streams
from maml_tf.training import shares
from maml_tf.training.operations import TrainingOp, WholeOp

# (first iteration, how many) -> {name: mean over these iterations}
Run = Callable[[int, int], dict[str, tf.Tensor]]


def iterate(
    op: TrainingOp | WholeOp,
    draw: Callable[[Any, int], Any],
    meta_batch_size: int,
    at_once: int | None = None,
    phase_start: int = 0,
) -> Run:
    """Compiles run(first, count) -> {name: mean}, which takes `count` iterations from `first` on.

    Iteration i draws tasks i * meta_batch_size onwards, so that what is learnt depends neither on
    the length of a call nor on where a run was interrupted.

    Args:
      draw: (start, count) -> what `op` takes, as a source's `tasks` returns it.
      at_once: tasks in a share, see shares.py; None: all, and with XLA the iterations are one
        program.
      phase_start: the iteration that the phase begins with; the op counts its steps from there.
    """
    step = one_iteration(op, draw, meta_batch_size, at_once)
    of_iteration = tf.function(
        lambda i: step(i * meta_batch_size, i - phase_start), autograph=False
    )
    whole = at_once in (None, meta_batch_size)
    return loop(of_iteration, jit_compile=op.xla and whole and not streams(draw))


def one_by_one(
    op: Callable[[Any, tf.Tensor], dict[str, tf.Tensor]],
    draw: Callable[[Any, int], Any],
    meta_batch_size: int,
    phase_start: int = 0,
) -> Run:
    """Makes the same run of an op that Python calls, once an iteration.

    Args: as of `iterate`.
    """

    def run(first, count):
        totals = {}
        for i in range(first, first + count):
            log = op(draw(i * meta_batch_size, meta_batch_size), i - phase_start)
            totals = {name: totals.get(name, 0) + value for name, value in log.items()}
        return {name: total / count for name, total in totals.items()}

    return run


def one_iteration(
    op: TrainingOp | WholeOp,
    draw: Callable[[Any, int], Any],
    meta_batch_size: int,
    at_once: int | None = None,
) -> Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    """Makes (first task, step within the phase) -> log, which takes one iteration.

    Args: as of `iterate`.
    """
    if at_once in (None, meta_batch_size):
        return on_fresh_tasks(op, draw, meta_batch_size, op.xla)
    mean_update = shares.mean(op.gradients, draw, meta_batch_size, at_once, op.xla)
    apply = tf.function(op.apply, jit_compile=op.xla, autograph=False)

    def in_shares(start, step):
        update = mean_update(start, step)
        apply(update)
        return update.log

    return in_shares


def loop(step: tf.types.experimental.PolymorphicFunction, jit_compile: bool) -> Run:
    """Makes run(first, count) -> {name: mean} of a tf.function: iteration -> {name: scalar}."""
    # Traced once, here, since the loop needs to know beforehand what is logged; the loop calls the
    # same trace.
    log_specs = step.get_concrete_function(tf.TensorSpec([], tf.int64)).structured_outputs

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(first, count):
        def body(i, totals):
            log = step(first + i)
            added = {
                name: total + tf.cast(log[name], total.dtype) for name, total in totals.items()
            }
            return i + 1, added

        # One at a time: an iteration reads the weights that the one before it wrote.
        # In float64, so that a mean does not tell into how many calls its iterations were cut.
        empty = {name: tf.zeros([], tf.float64) for name in log_specs}
        _, totals = tf.while_loop(
            lambda i, _: i < count, body, (tf.zeros([], tf.int64), empty), parallel_iterations=1
        )
        return {name: total / tf.cast(count, total.dtype) for name, total in totals.items()}

    return lambda first, count: run(tf.constant(first, tf.int64), tf.constant(count, tf.int64))
