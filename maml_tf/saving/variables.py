"""Names of variables, as checkpoints use them."""

import re


def named(variables):
    """Keras variables -> {identifier: tf.Variable}. The owner's own name, which Keras counts up, is
    left out.

    Raises ValueError where two variables would share a name.
    """
    names = [
        re.sub('[^0-9a-zA-Z_]', '_', variable.path.split('/', 1)[-1]) for variable in variables
    ]
    if len(set(names)) < len(names):
        raise ValueError(
            f'variables share a name: {sorted(name for name in names if names.count(name) > 1)}'
        )
    return {name: variable.value for name, variable in zip(names, variables)}
