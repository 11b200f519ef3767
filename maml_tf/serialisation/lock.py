"""Locks that the operating system gives up when their process ends, whatever ends it."""

import contextlib
import errno
import fcntl
import os
import pathlib
import socket
from collections.abc import Iterator

from maml_tf.errors import UserError

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of some network file systems


@contextlib.contextmanager
def held(
    directory: pathlib.Path, doing: str = 'trains in it', wait: bool = False
) -> Iterator[bool]:
    """Holds `directory` for this process alone while the block runs.

    The lock is on a file beside the directory that says who holds it. The directory itself may be
    missing, and be renamed meanwhile. A file that a killed process left is taken over.

    Args:
      doing: what a process does that holds it, for the others.
      wait: for the process that holds it.
    Gives whether it is locked: some file systems have no locks, and a line says so.
    Raises: UserError, at once, where another process holds it, unless this one is to wait.
    """
    path = directory.with_name(f'.{directory.name}.lock')
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        file, locked = _locked(path, directory, doing, wait)
        try:
            with contextlib.suppress(OSError):  # A full disk, maybe; the lock is what counts.
                os.truncate(file, 0)
                os.write(file, f'process {os.getpid()} on {socket.gethostname()}'.encode())
            yield locked
        finally:
            path.unlink(missing_ok=True)  # Before it is unlocked: then it may be another's.
            os.close(file)
    finally:
        with contextlib.suppress(OSError):  # What is not empty by now stays.
            for parent in made:
                parent.rmdir()


def taken(file: int, wait: bool = False) -> bool | None:
    """Locks an open file until it is closed or the process ends.

    Returns: False where another process has locked it; None where its file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        return None
    return True


def _locked(
    path: pathlib.Path, directory: pathlib.Path, doing: str, wait: bool
) -> tuple[int, bool]:
    """Returns (the descriptor of the file, whether it is locked)."""
    told = False
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            mine = taken(file, wait=told)
            if mine is None:
                print(f'{directory}: its file system has no locks; let no other process use it')
            # The one before may have removed the file since it was opened.
            if mine is None or (mine and _is(file, path)):
                return file, bool(mine)
            if mine is False:
                holder = os.read(file, 200).decode(errors='replace') or 'another process'
                if not wait:
                    raise UserError(
                        f'{directory}: {holder} {doing}; wait until it has ended, or name another '
                        'directory'
                    )
                print(f'{directory}: {holder} {doing}; waiting for it', flush=True)
                told = True
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _is(file: int, path: pathlib.Path) -> bool:
    """Says whether an open file still has its name."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file), os.stat(path))
    return False
