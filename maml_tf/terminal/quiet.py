"""Starts TensorFlow without its start-up messages, so that a program's own output is readable."""

import contextlib
import os


@contextlib.contextmanager
def _stderr_closed():
    # TensorFlow writes these messages from C++, past sys.stderr. Python's errors are raised, not
    # printed.
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def import_tensorflow() -> None:
    """Imports TensorFlow and starts its devices. TF_CPP_MIN_LOG_LEVEL=0 in the environment brings
    messages back."""
    if os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2') == '0':
        return
    with _stderr_closed():
        import tensorflow as tf

        tf.config.list_physical_devices()
