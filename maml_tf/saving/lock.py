"""A lock on a run directory, so that no two processes train in it."""

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
def held(directory: pathlib.Path) -> Iterator[None]:
    """Holds `directory` for this process alone while the block runs.

    The operating system keeps the lock, on a file beside the directory that says who holds it, and
    gives it up when the process ends, whatever ends it. The directory itself may be renamed
    meanwhile. A file that a killed process left is taken over.

    Raises: UserError, at once, where another process holds it.
    """
    path = directory.with_name(f'.{directory.name}.lock')
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        file = _locked(path, directory)
        try:
            os.truncate(file, 0)
            os.write(file, f'process {os.getpid()} on {socket.gethostname()}'.encode())
            yield
        finally:
            path.unlink(missing_ok=True)  # Before it is unlocked: then it may be another's.
            os.close(file)
    finally:
        with contextlib.suppress(OSError):  # What is not empty by now stays.
            for parent in made:
                parent.rmdir()


def _locked(path: pathlib.Path, directory: pathlib.Path) -> int:
    """Returns the descriptor of the locked file."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 200).decode(errors='replace') or 'another process'
            os.close(file)
            raise UserError(
                f'{directory}: {holder} trains in it; wait until it has ended, or name another '
                'directory'
            ) from None
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                os.close(file)
                raise
            print(
                f'{directory}: its file system has no locks ({error.strerror}); let no other '
                'process train in it'
            )
            return file
        # The one before may have removed the file between the two lines above.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        os.close(file)
