"""Names of variables in checkpoints, which depend on how a learner is built and on nothing else.

Keras' own names do not: it counts layers and models over the whole process (dense_3, adam_1), so
that they depend on what was made before.
"""

import re
from collections.abc import Iterable, Sequence

import keras
import tensorflow as tf


def named(variables: Sequence[keras.Variable], owner: str) -> dict[str, tf.Variable]:
    """Returns {identifier: tf.Variable}, the names that checkpoints know the variables by.

    A name is the path of layers, joined by `_`: encoder_conv1_kernel.

    Args:
      variables: of one learner, in its order.
      owner: the learner's name, which is left out.
    """
    names = structural_names([variable.path for variable in variables], owner)
    return {name: variable.value for name, variable in zip(names, variables)}


def optimizer_names(
    optimizer: keras.optimizers.Optimizer, learner: keras.Model
) -> dict[str, tf.Variable]:
    """Returns {identifier: tf.Variable} of an optimizer: iteration, w1_momentum, w1_velocity, ...

    Args:
      optimizer: built for variables of the learner.
      learner: `named` names its variables.
    Raises:
      ValueError: the optimizer is not built, so that variables are still to come.
    """
    if not optimizer.built:
        raise ValueError(f'optimizer={optimizer.name}: build it for the variables that it trains')
    names = structural_names([variable.path for variable in learner.variables], learner.name)
    # Keras calls a slot by the variable's path and the slot's name: maml_1_w1_momentum.
    prefixes = [f'{variable.path.replace("/", "_")}_' for variable in learner.variables]
    of_prefix = {}
    for prefix, name in zip(prefixes, names):
        of_prefix.setdefault(prefix, []).append(name)
    seen, found = {}, []
    for slot in optimizer.variables:
        prefix = max(filter(slot.name.startswith, of_prefix), key=len, default=None)
        if prefix is None:
            found.append(slot.name)
            continue
        # Variables of one path have slots of one name, in the same order.
        owners, number = of_prefix[prefix], seen.setdefault(slot.name, 0)
        seen[slot.name] += 1
        found.append(f'{owners[number % len(owners)]}_{slot.name.removeprefix(prefix)}')
    return dict(zip(_distinct(found), (slot.value for slot in optimizer.variables)))


def structural_names(paths: Sequence[str], owner: str = '') -> list[str]:
    """Returns an identifier for each path of a Keras variable, such as maml_1/dense_3/kernel.

    The owner is left out. Numbers at the end of layers' names are counted anew, by the order in
    which the layers of one parent appear: dense_3, dense_7 become dense, dense_1. Where two paths
    would have the same name, a number tells them apart.
    """
    numbers, names = {}, []
    for path in paths:
        *layers, variable = path.removeprefix(f'{owner}/').split('/')
        canonical = []
        for depth, layer in enumerate(layers):
            kind = re.sub(r'(_\d+)+$', '', layer)
            alike = numbers.setdefault((*layers[:depth], kind), {})
            number = alike.setdefault(layer, len(alike))
            canonical.append(f'{kind}_{number}' if number else kind)
        names.append('_'.join([*canonical, variable]))
    return _distinct(names)


def _distinct(names: Iterable[str]) -> list[str]:
    """Identifiers for names, those that are there already with a number."""
    taken = {}
    for name in names:
        identifier = candidate = re.sub('[^0-9a-zA-Z_]', '_', name)
        number = 0
        while candidate in taken:
            number += 1
            candidate = f'{identifier}_{number}'
        taken[candidate] = None
    return list(taken)
