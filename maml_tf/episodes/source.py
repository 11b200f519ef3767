"""What every source of tasks can be asked for."""

import abc
from typing import Any

import tensorflow as tf

from maml_tf.episodes.streaming import streams
from maml_tf.episodes.task import Draw, Spec, Task
from maml_tf.errors import ArgumentError
from maml_tf.objectives.objective import Objective


class EpisodeSource(abc.ABC):
    """An endless supply of tasks, each a pure function of (seed, split, its number).

    Subclasses write `tasks`.

    Attributes:
      input_shape: of one example.
      objective: the loss and the metric that its labels call for.
      splits: what there is of 'train', 'val', 'test'.
      identity: what tells this source from others that the same flags could describe, a short word
        for the name of a run; '' where the flags say all.
      external_classes: how many labels tell apart what is drawn beside tasks, where that is of
        another source; None: nothing is.
    """

    input_shape: tuple[int, ...]
    objective: Objective
    splits: tuple[str, ...] = ('train', 'val', 'test')
    identity: str = ''
    external_classes: int | None = None

    @abc.abstractmethod
    def tasks(self, split: str, spec: Spec, seed: int) -> Draw:
        """Returns draw(start, count), which gives tasks start ... start + count - 1 of a split.

        Args:
          split: one of `splits`, or 'trainval', 'train' and 'val' together.
          spec: says what is drawn: an EpisodeSpec a Task, a BatchSpec a Batch of count * spec.size
            examples, a TaskAndBatchSpec a TaskAndBatch, a SequenceSpec a Sequence.
          seed: a number from 0 to 2**40 - 1.
        Raises: UserError where the source cannot give what `spec` asks for.
        """

    def phases(self, learner: Any, outer: Any) -> list[Any]:
        """Returns the phases in which a learner is trained on these tasks; by default its own.

        A source whose tasks are no examples (a simulator's) has others.

        Args: learner, a Learner; outer, an OuterLoop (training/phases.py).
        """
        return learner.phases(outer)

    def count_classes(self, split: str) -> int | None:
        """Returns how many classes a plain batch tells apart; None: the tasks have no classes."""
        del split

    def curves(self, split: str, spec: Spec, seed: int, count: int, points: int) -> Task | None:
        """Returns the first `count` tasks with queries on an even grid of `points`, for pictures.

        None: the tasks are no functions of one variable.
        """
        del split, spec, seed, count, points

    def dataset(
        self, spec: Spec, meta_batch_size: int, split: str = 'train', seed: int = 0
    ) -> tf.data.Dataset:
        """Returns the same meta-batches as an endless tf.data.Dataset, for `fit` of Keras.

        Element i is draw(i * meta_batch_size, meta_batch_size), which is what iteration i of the
        command line trains on. Masks of tasks that have none are None. `fit` needs
        `steps_per_epoch`, for there is no end.

        Raises: ArgumentError where meta_batch_size is not positive, else as `tasks`.
        """
        if meta_batch_size < 1:
            raise ArgumentError('meta_batch_size', meta_batch_size, 'at least 1')
        draw = self.tasks(split, spec, seed)
        # Compiled, as in training: the functions' values are rounded alike.
        element = tf.function(
            lambda i: draw(i * meta_batch_size, meta_batch_size),
            jit_compile=not streams(draw),
            autograph=False,
        )
        # Drawn while the step before is computed.
        return tf.data.Dataset.counter().map(element).prefetch(2)
