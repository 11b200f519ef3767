"""Ctrl-C and SIGTERM as a question to be asked, so that a step is never cut in two."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Any

from maml_tf.errors import UserError

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM came, as a scheduler sends it: the program is to end, and may be started again."""

    # What shells and schedulers know as the end by this signal.
    EXIT_CODE = 128 + signal.SIGTERM


class Interrupts:
    """While entered, notes SIGINT and SIGTERM. A second Ctrl-C interrupts at once.

    Attributes:
      asked: the number of the signal that came, 0: none.
    """

    def __init__(self):
        self.asked = 0

    def __enter__(self):
        self._handling = handled_by(self._note, *NUMBERS)
        self._handling.__enter__()
        return self

    def __exit__(self, *exception):
        self._handling.__exit__(None, None, None)
        # What fails between a signal and its answer mostly fails for the same reason: on a cluster,
        # the other processes may be gone.
        error = exception[1]
        told = isinstance(error, UserError | OSError) or not isinstance(error, Exception)
        if self.asked and not told:
            raise interruption(self.asked) from error

    def _note(self, number, frame):
        del frame
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = max(self.asked, int(number))


def interruption(number: int, iteration: int | None = None) -> KeyboardInterrupt:
    """Returns what to raise after a signal, once the iteration (None: of nothing) is saved."""
    kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
    if iteration is None:
        return kind()
    return kind(f'interrupted at iteration {iteration}: the same command goes on from there')


@contextlib.contextmanager
def ended_at_once(*numbers: signal.Signals) -> Iterator[None]:
    """While entered, these signals end the process though it waits for something outside Python.

    Python would hear of them only afterwards. Nothing is cleaned up, so nothing may be half done.
    """
    sys.stdout.flush()  # What was printed would be lost.
    with handled_by(signal.SIG_DFL, *numbers):
        yield


@contextlib.contextmanager
def handled_by(handler: Any, *numbers: signal.Signals) -> Iterator[None]:
    """While entered, these signals go to a handler, see signal.signal."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
