"""A meta-batch in shares of a few tasks: every core works through some, and results are averaged.

Operations on all tasks at once wait for each other's cores and stream through main memory; shares
need not, and what a few tasks leave behind stays in a core's cache. It bounds the memory, too: only
the shares under way hold activations.
"""

import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from maml_tf.episodes.streaming import on_fresh_tasks

# About so many examples, support and query, make a share. Measured with images of 28x28 and 84x84
# on two cores.
EXAMPLES = 60


def share(tasks: int, examples: int, at_most: int | None = None) -> int:
    """Returns how many of `tasks` make a share: a divisor, so that all are alike and compiled once.

    Args:
      examples: of one task, support and query.
      at_most: no more than so many tasks; None: as EXAMPLES says, but all on a GPU, which wants
        much at a time.
    """
    if at_most is None:
        if tf.config.list_physical_devices('GPU'):
            return tasks
        at_most = -(-EXAMPLES // examples)
    return max(size for size in range(1, min(tasks, at_most) + 1) if tasks % size == 0)


def mean(
    function: Callable[[Any, tf.Tensor], Any],
    draw: Callable[[Any, int], Any],
    tasks: int,
    at_once: int,
    xla: bool = True,
) -> tf.types.experimental.PolymorphicFunction:
    """Makes (start, step) -> the mean over shares of function(Task, step), a tf.function.

    Args:
      function: (Task, step) -> a structure of tensors, each a mean over the tasks.
      draw: (start, count) -> Task, as a source's `tasks` returns it.
      tasks: in the meta-batch; at_once: in a share.
    Raises: ValueError where at_once does not divide tasks.
    """
    _check_divides(tasks, at_once)
    of_share = on_fresh_tasks(function, draw, at_once, xla)
    shares = tasks // at_once
    if shares == 1:
        return of_share
    lanes = min(shares, _cores())

    @tf.function(autograph=False)
    def of_all(start, step):
        number = tf.TensorSpec([], tf.int64)
        specs = of_share.get_concrete_function(number, number).structured_outputs
        zeros = tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), specs)

        def lane(first, last):
            def body(i, total):
                value = of_share(start + i * at_once, step)
                return i + 1, tf.nest.map_structure(tf.add, total, value)

            loop = tf.while_loop(
                lambda i, _: i < last,
                body,
                (tf.constant(first, tf.int64), zeros),
                parallel_iterations=1,
            )
            return loop[1]

        totals = [lane(shares * i // lanes, shares * (i + 1) // lanes) for i in range(lanes)]
        return tf.nest.map_structure(lambda *parts: tf.add_n(parts) / shares, *totals)

    return of_all


def concatenated(
    function: Callable[[Any], tf.Tensor],
    draw: Callable[[Any, int], Any],
    tasks: int,
    at_once: int,
    xla: bool = True,
) -> tf.types.experimental.PolymorphicFunction:
    """Makes start -> function(Task) of all tasks, computed in shares and concatenated.

    Args: as of `mean`, but function: Task -> a tensor with a leading task axis.
    """
    _check_divides(tasks, at_once)
    of_share = on_fresh_tasks(lambda task, step: function(task), draw, at_once, xla)
    if tasks == at_once:
        return tf.function(lambda start: of_share(start, start), autograph=False)

    def of_all(start):
        parts = range(0, tasks, at_once)
        return tf.concat([of_share(start + i, start) for i in parts], 0)

    return tf.function(of_all, autograph=False)


def _check_divides(tasks: int, at_once: int) -> None:
    if tasks % at_once:
        raise ValueError(f'at_once={at_once} does not divide {tasks} tasks')


def _cores() -> int:
    """Threads that may compute at a time: what this process may use, which is not cpu_count()."""
    if threads := tf.config.threading.get_inter_op_parallelism_threads():
        return threads
    if hasattr(os, 'sched_getaffinity'):  # not on every operating system
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def define_flags(flags) -> None:
    """Defines the flags of the shares."""
    flags.DEFINE_integer(
        'tasks_at_once',
        None,
        'compute so many tasks of a meta-batch at a time on each core, or the '
        'next smaller divisor: fewer need less memory, and the gradient stays the same (default: '
        'by the size of a task; on a GPU all)',
        lower_bound=1,
    )
