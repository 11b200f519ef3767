"""Errors that a user can mend."""

from collections.abc import Mapping, Sequence


class UserError(ValueError):
    """Says in one line what is wrong, names the argument or file, and says what would be right."""


class ArgumentError(UserError):
    """Names the argument that is wrong. A command line prints the same with the name of its flag.

    Args:
      argument: name of the argument, as in the signature of the function that raises.
      value: its value; None: the message names the argument alone.
      reason: what is wrong with it and what would be right.
    """

    def __init__(self, argument: str, value: object, reason: str):
        self.argument, self.value, self.reason = argument, value, reason
        super().__init__(self._message(argument))

    def of_flag(self, flags: Mapping[str, str]) -> str:
        """Returns a command line's message; `flags` names the flag where it is not the argument."""
        return self._message(f'--{flags.get(self.argument, self.argument)}')

    def _message(self, name: str) -> str:
        shown = name if self.value is None else f'{name}={self.value}'
        return f'{shown}: {self.reason}'


def check_one_of(argument: str, value: str, choices: Sequence[str]) -> None:
    """Raises ArgumentError for a value that is none of the choices."""
    if value not in choices:
        raise ArgumentError(argument, repr(value), f'one of {", ".join(choices)}')
