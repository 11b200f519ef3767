"""A meta-batch in shares of a few tasks: every core works through some of them, and the results are
averaged.

Operations on all tasks at once wait for each other's cores and stream through main memory; shares
need not, and what a few tasks leave behind stays in a core's cache. It bounds the memory, too: only
the shares under way hold activations.
"""

import os

import tensorflow as tf

from maml_tf.episodes.streaming import on_fresh_tasks

# About so many examples, support and query, make a share. Measured with images of 28x28 and 84x84
# on two cores.
EXAMPLES = 60


def share(tasks, examples, at_most=None):
    """How many of `tasks` make a share: a divisor, so that all shares are alike and compiled once.

    examples: of one task, support and query.
    at_most: no more than so many tasks; None: as EXAMPLES says, but all on a GPU, which wants much
      at a time.
    """
    if at_most is None:
        if tf.config.list_physical_devices('GPU'):
            return tasks
        at_most = -(-EXAMPLES // examples)
    return max(size for size in range(1, min(tasks, at_most) + 1) if tasks % size == 0)


def mean(function, draw, tasks, at_once, xla=True):
    """Makes start -> the mean over shares of function(Task), a tf.function.

    Args:
      function: Task -> a structure of tensors, each a mean over the tasks.
      draw: (start, count) -> Task, as a source's `tasks` returns it.
      tasks: in the meta-batch; at_once: in a share.
    Raises ValueError where at_once does not divide tasks.
    """
    _check_divides(tasks, at_once)
    of_share = on_fresh_tasks(function, draw, at_once, xla)
    shares = tasks // at_once
    if shares == 1:
        return of_share
    lanes = min(shares, _cores())

    @tf.function(autograph=False)
    def of_all(start):
        specs = of_share.get_concrete_function(tf.TensorSpec([], tf.int64)).structured_outputs
        zeros = tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), specs)

        def lane(first, last):
            def body(i, total):
                value = of_share(start + i * at_once)
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


def concatenated(function, draw, tasks, at_once, xla=True):
    """As `mean`, for tensors with a leading task axis: their concatenation."""
    _check_divides(tasks, at_once)
    of_share = on_fresh_tasks(function, draw, at_once, xla)
    if tasks == at_once:
        return of_share
    return tf.function(
        lambda start: tf.concat([of_share(start + i) for i in range(0, tasks, at_once)], 0),
        autograph=False,
    )


def _check_divides(tasks, at_once):
    if tasks % at_once:
        raise ValueError(f'at_once={at_once} does not divide {tasks} tasks')


def _cores():
    """Threads that may compute at a time: what this process may use, which os.cpu_count() does not
    know."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return tf.config.threading.get_inter_op_parallelism_threads() or usable


def define_flags(flags):
    """Flags of the shares."""
    flags.DEFINE_integer(
        'tasks_at_once',
        None,
        'compute so many tasks of a meta-batch at a time on each core, or the '
        'next smaller divisor: fewer need less memory, and the gradient stays the same (default: '
        'by '
        'the size of a task; on a GPU all)',
        lower_bound=1,
    )
