"""Starts TensorFlow without its start-up messages, so that a program's own output is readable."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def stderr_closed() -> Iterator[None]:
    """Lets nothing through that is written to standard error, by C++ as well.

    TensorFlow writes its messages past sys.stderr. Python's errors are raised, not printed.
    TF_CPP_MIN_LOG_LEVEL=0 in the environment lets them through.
    """
    if os.environ.get('TF_CPP_MIN_LOG_LEVEL') == '0':
        yield
        return
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def import_tensorflow() -> None:
    """Imports TensorFlow and starts its devices."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    with stderr_closed():
        import tensorflow as tf

        tf.config.list_physical_devices()
