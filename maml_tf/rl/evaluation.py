"""What policies earn before adaptation and after every gradient step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.rl.environments.environment import Trajectories
from maml_tf.rl.meta_policy import MetaPolicy, Tasks
from maml_tf.terminal import progress

AT_ONCE = 20  # tasks
SHOWN = 4  # tasks whose trajectories are kept


class Evaluation(NamedTuple):
    """Returns by task and step, and what the policy did in the first tasks.

    returns: [tasks, steps + 1], means over the rollouts.
    tasks: [shown, task_size], the first tasks.
    trajectories: of these, arrays, before adaptation and after each step.
    """

    returns: np.ndarray
    tasks: np.ndarray
    trajectories: list[Trajectories]


def evaluated(
    policy: MetaPolicy,
    draw: Callable[[Any, int], Tasks],
    tasks: int,
    rollouts: int,
    steps: int,
) -> Evaluation:
    """Lets a policy adapt to tasks by steps on its own trajectories.

    The rollouts that a step is taken on are also those that tell the return before it, as in the
    authors' code. The first step is at the learner's rate of evaluation, later ones at
    Settings.later_steps times it.

    Args:
      draw: (start, count) -> Tasks.
      rollouts: before each step, and after the last.
      steps: gradient steps.
    """
    chunks = []
    # The last chunk may draw more tasks than are asked for: programs are compiled per shape.
    at_once = min(AT_ONCE, tasks)
    starts = range(0, tasks, at_once)
    for start in progress.bar(starts, 'evaluating', unit='chunk', delay=5, leave=False):
        chunks.append(
            _adapted(policy, draw(tf.constant(start, tf.int64), at_once), rollouts, steps)
        )
    first = chunks[0]
    returns = np.concatenate([chunk.returns for chunk in chunks])[:tasks]
    return first._replace(returns=returns)


def _adapted(policy, drawn, rollouts, steps):
    weights = policy.start(drawn.task.shape[0])
    returns, shown = [], []
    for step in range(steps + 1):
        trajectories = policy.rollouts(weights, drawn, rollouts, step)
        returns.append(tf.reduce_mean(trajectories.returns, -1).numpy())
        shown.append(Trajectories(*(part[:SHOWN].numpy() for part in trajectories)))
        if step < steps:
            weights = policy.adapted(weights, policy.samples(trajectories), step)
    return Evaluation(np.stack(returns, 1), drawn.task[:SHOWN].numpy(), shown)
