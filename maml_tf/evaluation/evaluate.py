"""Evaluation: the metric on many tasks, for every entry of what the learner predicts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from maml_tf.episodes.task import EpisodeSpec, SequenceSpec
from maml_tf.learner import Learner
from maml_tf.terminal import progress
from maml_tf.training import shares
from maml_tf.training.distribution.workers import Workers

# Not the training seed: every run, whatever its method and seed, is scored on the same tasks.
TASK_SEED = 1


def evaluator(
    learner: Learner,
    draw: Callable[[Any, int], Any],
    steps: int | None = None,
    chunk: int = 25,
    at_once: int | None = None,
    workers: Workers | None = None,
    further: bool = False,
) -> Callable[..., np.ndarray]:
    """Compiles evaluate(tasks) -> float array [tasks, entries], the metric on the first tasks.

    A progress bar appears when it takes more than some seconds. evaluate(tasks, leave_off) asks
    leave_off() after each chunk; when it says True, the scores of the rest are NaN.

    Args:
      draw: (start, count) -> Task.
      steps: inner steps; None: the learner's `evaluation_steps`.
      chunk: tasks that are scored between two moves of the bar.
      at_once: tasks in a share, see training/shares.py; None: all of them.
      workers: who divide the chunks; every one gets all scores. None: this process alone.
      further: scores by the objective's further metrics, too: the array is then [tasks, entries, 1
        + further metrics].
    """
    steps = learner.evaluation_steps if steps is None else steps

    def scores(task):
        if further:
            return tf.transpose(learner.all_scores(task, steps))
        return tf.transpose(learner.query_scores(task, steps)[1])

    score = shares.concatenated(scores, draw, chunk, at_once or chunk, learner.xla)
    workers = workers or Workers(tf.distribute.get_strategy())

    def evaluate(tasks, leave_off=lambda: False):
        # The last chunk may draw more tasks than are asked for: XLA compiles per shape, and tasks
        # are endless.
        starts = range(0, tasks, chunk)
        mine, chunks, left_off = workers.part(starts), [], False
        counts = [min(chunk, tasks - start) for start in mine]
        with progress.bar(
            total=sum(counts), description='evaluating', unit='task', delay=5, leave=False
        ) as bar:
            for start, count in zip(mine, counts):
                if left_off:
                    chunks.append(np.full_like(chunks[0], np.nan))
                    continue
                chunks.append(score(tf.constant(start, tf.int64)).numpy())
                bar.update(count)
                left_off = leave_off()
        return workers.whole(chunks, len(starts))[:tasks]

    return evaluate


def chunk(spec: EpisodeSpec | SequenceSpec, examples: int = 1000) -> int:
    """Returns how many tasks to evaluate at once: about `examples` examples, at most 24 tasks."""
    return max(1, min(24, examples // spec.examples))


def define_flags(flags) -> None:
    """Defines the flags of evaluation."""
    flags.DEFINE_bool('train', True, 'True: train, then evaluate; False: evaluate a trained model')
    flags.DEFINE_bool(
        'transductive',
        None,
        'evaluate and export with the queries of a task normalised together; '
        'False: each query by itself (MAML: beside the support set). Default: as the '
        "method's authors "
        'did, maml, its relatives and relation True, else False',
    )
    flags.DEFINE_bool(
        'test_set', False, 'evaluate on the test classes; False: on the validation classes'
    )
    flags.DEFINE_integer('test_tasks', 600, 'number of tasks to evaluate on', lower_bound=2)
    flags.DEFINE_integer(
        'ensemble',
        1,
        'average the predictions of so many checkpoints, the best in validation; training keeps '
        'them (MAML++ reports 5)',
        lower_bound=1,
    )
    flags.DEFINE_string(
        'write_tasks',
        None,
        'write the evaluation tasks, classes and images by name, to this file',
    )
    flags.DEFINE_string(
        'tasks_file',
        None,
        'evaluate on the tasks of this file, which --write_tasks wrote: on all of them unless '
        '--test_tasks says fewer, and by their own way, shots and queries',
    )
