"""Gives memory back that TensorFlow keeps of programs which are no longer used."""

import sys


def free():
    """Frees the graphs of tests that are over: the suite would hold several gigabytes in the end.

    No graph that lives on may be differentiated afterwards.
    """
    if 'tensorflow' not in sys.modules:
        return
    from maml_tf.training.memory import free_programs

    free_programs()
