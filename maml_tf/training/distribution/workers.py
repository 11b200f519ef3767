"""What the workers of a cluster tell each other besides gradients: what the chief found, what each
scored, when to stop."""

import ast
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np
import tensorflow as tf

from maml_tf.errors import UserError
from maml_tf.training.distribution.cluster import Cluster

T = TypeVar('T')


class Workers:
    """The processes that train together, seen from one of them.

    All must ask the same in the same order: everything but `number`, `count`, `chief` and `part`
    waits for the others. Alone, nothing waits.

    Args:
      strategy: which spans the workers.
      cluster: None: this process is alone.

    Attributes:
      count: of workers. number: of this one. chief: whether it is the one that prints and writes.
    """

    def __init__(self, strategy: tf.distribute.Strategy, cluster: Cluster | None = None):
        self._strategy = strategy
        self.number, self.count = (cluster.number, len(cluster.workers)) if cluster else (0, 1)
        self.chief = self.number == 0

    def sum(self, array: np.ndarray) -> np.ndarray:
        """Returns the sum over all workers of an array of one shape, of int64 or floats."""
        if self.count == 1:
            return array
        replicas = self._strategy.num_replicas_in_sync // self.count

        def of_replica(context):
            # A worker may have several replicas, and speaks once.
            first = context.replica_id_in_sync_group % replicas == 0
            return tf.constant(array if first else np.zeros_like(array))

        values = self._strategy.experimental_distribute_values_from_function(of_replica)
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None).numpy()

    def most(self, *numbers: float) -> list[float]:
        """Returns of each number the largest that any worker has."""
        if self.count == 1:
            return list(numbers)
        table = np.zeros([self.count, len(numbers)])
        table[self.number] = numbers
        return self.sum(table).max(axis=0).tolist()

    def part(self, sequence: Sequence[T]) -> Sequence[T]:
        """Returns what of a sequence is this worker's: every `count`th item."""
        return sequence[self.number :: self.count]

    def whole(self, part: Sequence[np.ndarray], items: int) -> np.ndarray:
        """Joins what the workers have made of their parts of a sequence.

        Args:
          part: floats [rows, ...], all of one shape, for each item of `part(sequence)`.
          items: of the whole sequence.
        Returns: [items * rows, ...], in the order of the sequence.
        """
        if self.count == 1:
            return np.concatenate(part)
        # There may be fewer items than workers, and then some have no array to know these from.
        rank, size = self.most(part[0].ndim, part[0].itemsize) if part else self.most(0, 0)
        shape = self.most(*(part[0].shape if part else [0] * int(rank)))
        table = np.zeros([items, *map(int, shape)], f'f{size:.0f}')
        for mine, array in zip(range(self.number, items, self.count), part):
            table[mine] = array
        return np.concatenate(self.sum(table))

    def from_chief(self, function: Callable[[], Any]) -> Any:
        """Returns function() of the chief to all, a Python literal (numbers, text, dict, None ...).

        Raises: what it raises at the chief; at the others a UserError that says so.
        """
        if self.count == 1:
            return function()
        if not self.chief:
            value, message = ast.literal_eval(self._bytes_of_chief(b'').decode())
            if message:
                raise UserError(f'worker {self.number} stops, as the chief does: {message}')
            return value
        try:
            value = function()
        except (UserError, OSError) as error:
            self._fail(error)
        self._bytes_of_chief(repr((value, '')).encode())
        return value

    def share(self, variables: Iterable[tf.Variable]) -> None:
        """Gives the chief's values of variables to all."""
        if self.count == 1:
            return
        variables = list(variables)
        values = [variable.numpy() for variable in variables]
        content = self._bytes_of_chief(b''.join(value.tobytes() for value in values))
        if self.chief:
            return
        place = 0
        for variable, value in zip(variables, values):
            new = np.frombuffer(content, value.dtype, value.size, place).reshape(value.shape)
            variable.assign(new)
            place += value.nbytes

    def check_alike(self, settings: dict[str, Any]) -> None:
        """Raises UserError, at every worker, where one was started with other settings.

        settings: {name of a flag: value}.
        """
        theirs = self.from_chief(lambda: {name: str(value) for name, value in settings.items()})
        other = [name for name, value in settings.items() if theirs.get(name) != str(value)]
        (alike,) = self.most(self.number if other else 0)
        if other:
            name = other[0]
            raise UserError(
                f'--{name}={settings[name]}: the chief has --{name}={theirs.get(name)}; all '
                'workers are started with the same flags'
            )
        if alike:
            raise UserError(f'worker {alike:.0f} was started with other flags than the chief')

    def _fail(self, error: Exception) -> NoReturn:
        self._bytes_of_chief(repr((None, str(error) or type(error).__name__)).encode())
        raise error

    def _bytes_of_chief(self, content: bytes) -> bytes:
        """Returns the chief's bytes; what the others pass counts for nothing."""
        # Sums are what all devices and transports can do: of the chief's numbers and of zeros.
        size = int(self.sum(np.array([len(content) if self.chief else 0], np.int64))[0])
        numbers = np.zeros(-(-size // 8), np.int64)
        if self.chief:
            numbers = np.frombuffer(content.ljust(numbers.nbytes, b'\0'), np.int64)
        return self.sum(numbers).tobytes()[:size]
