"""Two tasks of two weights: where pre-training and meta-learning end, and one step further.

The tasks are lines, y = slope x + intercept, one seen in a wide range of x, one in a narrow range.
So the first is a valley with steep walls in the plane of (slope, intercept); the second is flat.
The steep walls pull pre-training to their side. From high on such a wall one gradient step leads
far. Both start points are learnt by the package's own MAML: by its pretraining op, which fits one
line to all points, and by its meta-training op.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.episodes.task import Task
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.regression import Regression
from maml_tf.training.operations import TrainingOp
from maml_tf.training.outer_optimizers import adam
from maml_tf.training.phases import Update

# (slope, intercept) and the range of x of each task.
LINES = ((1.5, 0.4), (-1.5, 1.0))
RANGES = ((-2.3, 2.3), (-0.9, 0.9))
POINTS = 20
START = (0.2, -0.8)
INNER_LR = 0.25
OUTER_LR = 0.02


class Journey(NamedTuple):
    """How a start point is learnt, and where a step from it leads.

    path: [iterations + 1, 2], the start point's (slope, intercept) in the course of training.
    adapted: [tasks, 2], after one inner step on each task.
    before, after: [tasks], the losses at the start point and after the step.
    """

    path: np.ndarray
    adapted: np.ndarray
    before: np.ndarray
    after: np.ndarray


def two_tasks() -> Task:
    """Returns both tasks, support and queries the same points: x [2, POINTS, 1], y alike."""
    x = np.stack([np.linspace(*ends, POINTS) for ends in RANGES])[..., np.newaxis]
    slopes, intercepts = np.array(LINES).T[..., np.newaxis, np.newaxis]
    x, y = tf.constant(x, tf.float32), tf.constant(slopes * x + intercepts, tf.float32)
    return Task(x, y, x, y)


def travel(iterations: int = 600, inner_lr: float = INNER_LR) -> dict[str, Journey]:
    """Returns {'pre-training': Journey, 'meta-learning': Journey} from one start.

    inner_lr: of the inner step, in meta-learning and after both.
    """
    task = two_tasks()
    journeys = {}
    for name in ('pre-training', 'meta-learning'):
        learner = MAML(FullyConnected((1,), 1, ()), Regression(), inner_lr, inner_steps=1)
        gradients = learner.pretrain_gradients if name == 'pre-training' else learner.meta_gradients
        path = _path(learner, gradients, task, iterations)
        fast_weights = learner.adapt(task.support_x, task.support_y, steps=1)
        losses, _ = learner.query_scores(task, 1)
        journeys[name] = Journey(path, _points(fast_weights), *losses.numpy())
    return journeys


def loss_at(points: np.ndarray) -> np.ndarray:
    """Returns each task's loss at (slope, intercept) [n, 2] -> [tasks, n]."""
    network, task, count = FullyConnected((1,), 1, ()), two_tasks(), len(points)
    slope, intercept = np.asarray(points, np.float32).T
    weights = {
        'w1': tf.constant(slope[:, np.newaxis, np.newaxis]),
        'b1': tf.constant(intercept[:, np.newaxis]),
    }
    losses = []
    for x, y in zip(task.query_x, task.query_y):
        outputs = network.forward(tf.broadcast_to(x, [count, *x.shape]), weights)
        losses.append(Regression().loss(y, outputs, 1).numpy())
    return np.stack(losses)


def _path(
    learner: MAML, gradients: Callable[..., Update], task: Task, iterations: int
) -> np.ndarray:
    """Trains; returns the start point before every iteration and after the last."""
    slope, intercept = (learner.meta_weights[name] for name in ('w1', 'b1'))
    slope.assign([[START[0]]])
    intercept.assign([START[1]])
    op = TrainingOp(learner, adam(OUTER_LR), gradients)
    step = tf.function(lambda number: op(task, number), autograph=False)
    now = lambda: (float(slope.numpy()[0, 0]), float(intercept.numpy()[0]))
    path = [now()]
    for number in range(iterations):
        step(tf.constant(number, tf.int64))
        path.append(now())
    return np.array(path)


def _points(weights):
    return np.stack([weights['w1'].numpy()[:, 0, 0], weights['b1'].numpy()[:, 0]], axis=1)
