"""One of several workers: who prints, and what follows when a worker is lost."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

import tensorflow as tf

from maml_tf.terminal import progress
from maml_tf.training.distribution import cluster

# TensorFlow has no error of its own for it.
WORDS = ('collective', 'coordination', 'incarnation')


@contextlib.contextmanager
def one_of_several(strategy: str) -> Iterator[None]:
    """Lets the program be one of the workers that --strategy=multi_worker names.

    The chief alone prints, the others their errors. Where another worker is lost, the program
    starts itself again, as TensorFlow's strategy cannot take a worker back: it waits for the lost
    one to be started again, and all go on from the last checkpoint.

    Raises: UserError for a cluster that cannot be understood.
    """
    found = cluster.find() if strategy == 'multi_worker' else None
    if found is None or len(found.workers) == 1:
        yield
        return
    who = f'worker {found.number} of {len(found.workers)}, at {found.workers[found.number]}'
    chief = found.number == 0
    if chief:
        print(f'This is {who}; waiting for the others')
    else:
        print(f'This is {who}; the chief, at {found.workers[0]}, prints', file=sys.stderr)
    with contextlib.nullcontext() if chief else progress.silence():
        try:
            yield
        except tf.errors.OpError as error:
            if _is_loss(error):
                _start_again(who, error)
            raise
        except KeyboardInterrupt as interrupt:
            if chief:
                raise
            raise SystemExit(getattr(interrupt, 'EXIT_CODE', 1)) from interrupt


def _is_loss(error: tf.errors.OpError) -> bool:
    """Says whether another worker cannot be reached, or is another process than before."""
    if isinstance(error, tf.errors.UnavailableError | tf.errors.AbortedError):
        return True
    return any(word in error.message.lower() for word in WORDS)


def _start_again(who: str, error: tf.errors.OpError) -> NoReturn:
    reason = error.message.split('\n')[0]
    print(
        f'{who}: another worker was lost ({reason}). Waiting until it is started again, to go on '
        'from the last checkpoint',
        file=sys.stderr,
    )
    sys.stdout.flush()
    sys.stderr.flush()
    # Even where it was not to resume an earlier run, it resumes its own.
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], '--resume=True'])
