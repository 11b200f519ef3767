"""One run directory for several workers: the chief reads and writes it, and tells the others."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from maml_tf.saving.run_directory import RunDirectory
from maml_tf.training.distribution.workers import Workers


class SharedRunDirectory:
    """Has the methods of a RunDirectory, of which every worker calls the same ones in the same
    order.

    The chief's disk alone is used. What is restored goes to all workers over the network, so that
    no disk has to be shared; what the chief cannot read or write stops all.

    Args:
      directory: the run directory, whose files the chief has.
      workers: those that share it.
    """

    def __init__(self, directory: RunDirectory, workers: Workers):
        self._directory, self._workers = directory, workers

    @property
    def path(self) -> pathlib.Path:
        """Returns the path on the chief's disk."""
        return self._directory.path

    @property
    def of_chief(self) -> RunDirectory:
        """Returns the run directory itself, for what the chief does alone."""
        return self._directory

    def set_aside(self) -> str | None:
        """Renames an earlier run, see RunDirectory.set_aside."""
        return self._workers.from_chief(lambda: _text(self._directory.set_aside()))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        # What is left takes and returns Python's own types.
        method = getattr(self._directory, name)

        def of_chief(*arguments):
            value = self._workers.from_chief(lambda: method(*arguments))
            if name.startswith('restore'):  # whatever it reads, all are to have
                self._workers.share(self._directory.variables())
            return value

        return of_chief

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds the directory for this run alone, see RunDirectory.held; the chief has the lock."""
        with contextlib.ExitStack() as stack:
            self._workers.from_chief(lambda: stack.enter_context(self._directory.held()))
            yield


def _text(path: pathlib.Path | None) -> str | None:
    return path and str(path)
