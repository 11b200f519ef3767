"""What a meta-learner eats: a stack of tasks, and the specification they are drawn by."""

import dataclasses
from typing import NamedTuple

import tensorflow as tf


class Task(NamedTuple):
    """Tasks stacked along their first axis; examples lie class by class.

    support_x: [tasks, way*shot, ...] float; support_y: [tasks, way*shot, way] one-hot (regression:
      targets)
    query_x:   [tasks, way*query, ...];      query_y:   [tasks, way*query, way]

    Tasks of different sizes are filled up to the largest: the masks [tasks, examples] are 1 where
    an example counts and 0 where it is filling. None: all count. In classification the one-hot row
    of a filling example is all zero.
    """

    support_x: tf.Tensor
    support_y: tf.Tensor
    query_x: tf.Tensor
    query_y: tf.Tensor
    support_mask: tf.Tensor | None = None
    query_mask: tf.Tensor | None = None

    def map(self, function):
        """The Task of function(tensor) for each tensor."""
        return Task(*(None if x is None else function(x) for x in self))


@dataclasses.dataclass(frozen=True)
class EpisodeSpec:
    """Sizes of a task: `way` classes (1 for regression), `shot` support and `query` query examples
    of each.

    Attributes:
      least_way, least_shot: drawn for each task anew, uniformly from here to `way` (`shot`); None:
        always that.
      leave_to_query: a task that drew fewer shots queries the others, so that shot + query stays
        (R2-D2, Bertinetto et al. 2019, section 4).
      within_groups: all classes of a task from one group (Omniglot: one alphabet).
    """

    way: int
    shot: int
    query: int
    least_way: int | None = None
    least_shot: int | None = None
    leave_to_query: bool = False
    within_groups: bool = False

    @property
    def varies(self):
        """Whether tasks differ in size, and so carry masks."""
        return self.least_way is not None or self.least_shot is not None
