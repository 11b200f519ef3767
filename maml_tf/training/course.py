"""The course of training: how often something happens, which phase is when, what is averaged."""

import dataclasses

import numpy as np

from maml_tf.training.phases import Phase

SAVE_EVERY = 1000


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Says how often something happens, in iterations; `validate_every` None: never.

    seconds_per_call: a call that would take longer has fewer iterations. A scheduler gives seconds
      from SIGTERM to the end, and in a call nothing can be saved.
    """

    iterations_per_call: int
    print_every: int
    validate_every: int | None = None
    save_every: int = SAVE_EVERY
    seconds_per_call: float = 4.0

    def count(self, start: int, ends: list[int], seconds: float | None = None) -> int:
        """Returns how many iterations the call that begins with `start` takes.

        No call crosses a point where something happens.

        Args:
          ends: of the phases; start: before the last of them.
          seconds: of an iteration; None: not known yet.
        """
        marks = [self.iterations_per_call, self.print_every, self.save_every]
        next_marks = [(start // every + 1) * every for every in marks]
        count = min(next_marks + [end for end in ends if end > start]) - start
        if not seconds:
            return count
        return max(1, int(min(count, self.seconds_per_call / seconds)))


class Course:
    """The phases one after another."""

    def __init__(self, phases: list[Phase]):
        self._phases = [phase for phase in phases if phase.iterations]
        self.ends = np.cumsum([phase.iterations for phase in self._phases]).tolist()
        self.iterations = self.ends[-1]

    def at(self, iteration: int) -> tuple[Phase, int]:
        """Returns (the phase of an iteration, that phase's first iteration)."""
        for phase, end in zip(self._phases, self.ends):
            if iteration < end:
                return phase, end - phase.iterations
        raise IndexError(iteration)


class Mean:
    """Mean of logs, weighted by their iterations, since the last `take`."""

    def __init__(self):
        self._totals, self._count = {}, 0

    def add(self, log: dict[str, float], count: int) -> None:
        """Takes in the log of a call, a mean over `count` iterations."""
        for name, value in log.items():
            self._totals[name] = self._totals.get(name, 0.0) + value * count
        self._count += count

    def take(self) -> dict[str, float]:
        """Returns the means, in float32, so that they do not depend on how calls were cut."""
        means = {n: float(np.float32(total / self._count)) for n, total in self._totals.items()}
        self.__init__()
        return means


class Pace:
    """Measures how long an iteration takes, to cut calls by."""

    def __init__(self):
        self.seconds: float | None = None
        self._first = True

    def add(self, seconds: float, count: int, limit: float) -> None:
        """Takes in the seconds of a call of `count` iterations.

        The first one compiles, and says something of iterations only where it was short. Where it
        took longer than the limit, the next call is to try a single iteration.
        """
        if not self._first:
            self.seconds = seconds / count
        elif seconds > limit:
            self.seconds = limit
        self._first = False
