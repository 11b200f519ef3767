"""Errors that a user can mend, as one line on the screen and an exit code."""

import contextlib
import errno
import re
import sys
from collections.abc import Iterator, Mapping

from maml_tf.errors import ArgumentError, UserError
from maml_tf.terminal.interrupts import Terminated
from maml_tf.terminal.text import shown

ROOM = '; make room, and give the same command again'
PERMIT = '; make it readable and writable, or name another'
WAYS_OUT = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: ROOM,
    errno.EACCES: PERMIT,
    errno.EPERM: PERMIT,
    errno.EROFS: PERMIT,
}


@contextlib.contextmanager
def errors_as_one_line(
    flags: Mapping[str, str] | None = None,
    file: str = 'file',
    interrupted: str = 'interrupted',
) -> Iterator[None]:
    """Ends the program with one line, and exit code 1, where a user can mend what went wrong.

    That is a UserError, an OSError (a full disk, a directory that may not be written) or Ctrl-C.
    After SIGTERM the exit code is the one that schedulers know it by.
    Any other error is one of the program, and keeps its stack trace. Works as a decorator, too.

    Args:
      flags: {argument: flag} of the arguments whose flag has another name; an ArgumentError is then
        printed with its flag. None: with the name of the argument, as of a program without flags.
      file: what an OSError is about that names no file.
      interrupted: what is printed after Ctrl-C and SIGTERM that say nothing themselves.
    Raises: SystemExit.
    """
    try:
        yield
    except ArgumentError as error:
        _exit(str(error) if flags is None else error.of_flag(flags))
    except UserError as error:
        _exit(str(error))
    except OSError as error:
        way_out = WAYS_OUT.get(error.errno, '')
        _exit(f'{error.filename or file}: {error.strerror or error}{way_out}')
    except Terminated as error:
        print(str(error) or interrupted, file=sys.stderr)
        sys.exit(Terminated.EXIT_CODE)
    except KeyboardInterrupt as error:
        sys.exit(str(error) or interrupted)
    except Exception as error:
        if (message := _within(error)) is None:
            raise
        _exit(message)


def _within(error: Exception) -> str | None:
    """Returns the message of a UserError that was raised in a function which TensorFlow called."""
    if not type(error).__module__.startswith('tensorflow.'):
        return None
    found = re.search(rf'\b{UserError.__name__}: (.*)', str(error))
    return found and found[1]


def _exit(message: str) -> None:
    sys.exit(f'error: {shown(message)}')
