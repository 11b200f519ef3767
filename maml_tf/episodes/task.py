"""What sources draw (tasks, batches, sequences), and the specifications they draw it by."""

import dataclasses
from collections.abc import Callable
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

    key: uint32 [tasks, 2], random bits of each task's own, for random_bits.keyed_bits; None: the
      task was made by hand.
    """

    support_x: tf.Tensor
    support_y: tf.Tensor
    query_x: tf.Tensor
    query_y: tf.Tensor
    support_mask: tf.Tensor | None = None
    query_mask: tf.Tensor | None = None
    key: tf.Tensor | None = None

    def map(self, function: Callable[[tf.Tensor], tf.Tensor]) -> 'Task':
        """Returns the Task of function(tensor) for each tensor, the keys among them."""
        return Task(*(None if x is None else function(x) for x in self))

    def cast(self, dtype: tf.DType | str) -> 'Task':
        """Returns the Task in another floating dtype; its keys, which are integers, stay."""
        return self.map(lambda x: tf.cast(x, dtype) if x.dtype.is_floating else x)


class Batch(NamedTuple):
    """Labelled examples of all classes of a split.

    x: [examples, ...] float; y: [examples, classes] one-hot
    """

    x: tf.Tensor
    y: tf.Tensor


class Sequence(NamedTuple):
    """Labelled examples one after the other, sequences stacked along the first axis.

    Which label a class has is drawn for each sequence, and the examples of all classes come in
    random order. A learner that is told each label one step late shifts y itself.

    x: [tasks, length, ...] float; y: [tasks, length, way] one-hot
    key: uint32 [tasks, 2], as in Task
    """

    x: tf.Tensor
    y: tf.Tensor
    key: tf.Tensor | None = None


class TaskAndBatch(NamedTuple):
    """Tasks, and beside each of them labelled examples of other classes.

    batch: x [tasks, examples, ...]; y [tasks, examples, classes] one-hot
    """

    task: Task
    batch: Batch


@dataclasses.dataclass(frozen=True)
class EpisodeSpec:
    """Sizes of a task: `way` classes (1 for regression), `shot` support and `query` query examples
    of each.

    Attributes:
      least_way, least_shot: drawn for each task anew, uniformly from here to `way` (`shot`); None:
        always that.
      least_query: the same of the queries; in regression only.
      leave_to_query: a task that drew fewer shots queries the others, so that shot + query stays
        (R2-D2, Bertinetto et al. 2019, section 4).
      within_groups: all classes of a task from one group (Omniglot: one alphabet).
    """

    way: int
    shot: int
    query: int
    least_way: int | None = None
    least_shot: int | None = None
    least_query: int | None = None
    leave_to_query: bool = False
    within_groups: bool = False

    @property
    def varies(self) -> bool:
        """Whether tasks differ in size, and so carry masks."""
        return any(
            least is not None for least in (self.least_way, self.least_shot, self.least_query)
        )

    @property
    def examples(self) -> int:
        """How many examples a task has, support and query."""
        return self.way * (self.shot + self.query)


@dataclasses.dataclass(frozen=True)
class BatchSpec:
    """Size of a plain labelled batch, in examples."""

    size: int


@dataclasses.dataclass(frozen=True)
class TaskAndBatchSpec:
    """Sizes of a task, and how many labelled examples there are beside each."""

    task: EpisodeSpec
    size: int


@dataclasses.dataclass(frozen=True)
class SequenceSpec:
    """Size of a sequence: `way` classes, `length` examples in all."""

    way: int
    length: int

    @property
    def examples(self) -> int:
        """How many examples a sequence has."""
        return self.length


Spec = EpisodeSpec | BatchSpec | TaskAndBatchSpec | SequenceSpec
# (start, count) -> tasks (batches, sequences) start ... start + count - 1.
Draw = Callable[[tf.Tensor | int, int], Task | Batch | TaskAndBatch | Sequence]
