"""What a meta-learner eats: a stack of tasks, and the specification they are drawn by."""
import dataclasses
from typing import NamedTuple

import tensorflow as tf


class Task(NamedTuple):
    """Tasks stacked along their first axis; examples lie class by class.

    support_x: [tasks, way*shot, ...] float; support_y: [tasks, way*shot, way] one-hot (regression: targets)
    query_x:   [tasks, way*query, ...];      query_y:   [tasks, way*query, way]
    """
    support_x: tf.Tensor
    support_y: tf.Tensor
    query_x: tf.Tensor
    query_y: tf.Tensor


@dataclasses.dataclass(frozen=True)
class EpisodeSpec:
    """Sizes of a task: `way` classes (1 for regression), `shot` support and `query` query examples of each."""
    way: int
    shot: int
    query: int
