"""What tests of float64 share. Nothing here starts TensorFlow before it is called."""

import contextlib


@contextlib.contextmanager
def float64():
    """Make learners in float64: their layers by the policy, their inputs by floatx."""
    import keras

    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy('float64')
    keras.config.set_floatx('float64')
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        keras.config.set_floatx(floatx)


def in_float64(draw):
    """Draw the same tasks or batches, but for keys in float64."""
    import tensorflow as tf

    def cast(x):
        return x if x is None or not x.dtype.is_floating else tf.cast(x, 'float64')

    def drawn(first, count):
        return tf.nest.map_structure(cast, draw(first, count))

    return drawn
