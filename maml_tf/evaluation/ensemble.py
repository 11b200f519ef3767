"""Scores of several checkpoints together: of the mean of their predictions."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from maml_tf.learner import Learner
from maml_tf.terminal import progress
from maml_tf.training import shares
from maml_tf.training.distribution.workers import Workers


def ensemble_scores(
    learner: Learner,
    members: Iterable[Callable[[], Any]],
    draw: Callable[[Any, int], Any],
    tasks: int,
    chunk: int,
    at_once: int,
    workers: Workers | None = None,
    further: bool = False,
) -> np.ndarray:
    """Returns float array [tasks, entries], the metric of the members' mean outputs.

    In classification outputs are logits (Antoniou et al. 2019 average these, too). The learner is
    left as the last member.

    Args:
      members: each is called once and loads its variables into the learner.
      draw, chunk, at_once, workers, further: as of evaluate.evaluator.
    """
    steps = learner.evaluation_steps

    def tasks_first(outputs):  # [entries, tasks, ...] -> [tasks, entries, ...], and back
        return tf.transpose(outputs, [1, 0, *range(2, outputs.shape.rank)])

    def outputs(task):
        return tasks_first(learner.query_outputs(task, steps))

    predict = shares.concatenated(outputs, draw, chunk, at_once, learner.xla)
    workers = workers or Workers(tf.distribute.get_strategy())
    chunks, means = range(0, tasks, chunk), []
    starts = workers.part(chunks)
    members = list(members)
    for load in progress.bar(members, 'evaluating', unit='checkpoint', delay=5, leave=False):
        load()
        parts = [predict(tf.constant(start, tf.int64)).numpy() / len(members) for start in starts]
        means = [a + b for a, b in zip(means, parts)] if means else parts

    @tf.function(autograph=False)
    def score(start, mean):
        of = learner.all_scores_of if further else lambda *both: learner.scores_of(*both)[1]
        return tf.transpose(of(draw(start, chunk), tasks_first(mean)))

    scores = [
        score(tf.constant(start, tf.int64), mean).numpy() for start, mean in zip(starts, means)
    ]
    return workers.whole(scores, len(chunks))[:tasks]
