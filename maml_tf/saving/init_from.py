"""Starting weights from a checkpoint: one of this package, or one of the reference (TF1 format)."""

import pathlib
import re
from collections.abc import Collection, Iterable

import tensorflow as tf

from maml_tf.errors import ArgumentError
from maml_tf.learner import Learner
from maml_tf.saving.checkpoint_files import cannot_be_read, checkpoints
from maml_tf.saving.checkpoints import LEARNER, VALUE


def load_weights(learner: Learner, path: pathlib.Path | str, for_tasks_alone: bool = False) -> None:
    """Assigns the learner's variables from a checkpoint.

    Args:
      learner: any Learner; a checkpoint of the reference fits those with the reference's networks.
      path: a run directory of this package (its latest checkpoint), or a checkpoint's common
        prefix, such as logs/.../model-6000 or the reference's model59000.
      for_tasks_alone: leave out what acts in training alone, such as a classifier of other classes.
    Raises:
      ArgumentError: there is no checkpoint, it is damaged, it lacks a variable, or a variable has
        another shape. The learner is left as it was.
    """
    prefix = _prefix(pathlib.Path(path))
    if why := cannot_be_read(prefix):
        raise ArgumentError('init_from', path, f'{pathlib.Path(prefix).name} {why}')
    reader = tf.train.load_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
    variables = {
        name: variable
        for name, variable in learner.named_variables().items()
        if not for_tasks_alone or learner.acts_in_tasks(name)
    }
    keys = {name: f'{LEARNER}/{name}{VALUE}' for name in variables}
    if not any(key in shapes for key in keys.values()):
        keys = reference_names(variables, shapes)
    for name, variable in variables.items():
        if keys[name] not in shapes:
            raise ArgumentError(
                'init_from',
                path,
                f'holds no {name}. It has other layers than this learner: compare the data source, '
                'the normalisation, the kind of network and the algorithm',
            )
        if list(variable.shape) != shapes[keys[name]]:
            raise ArgumentError(
                'init_from',
                path,
                f'{name} is {shapes[keys[name]]} there and {list(variable.shape)} here. Compare '
                'the number of classes and of filters, max-pooling and the data source',
            )
    for name, variable in variables.items():
        variable.assign(tf.cast(reader.get_tensor(keys[name]), variable.dtype))


def _prefix(path: pathlib.Path) -> str:
    if path.is_dir():
        found = checkpoints(path)
        if not found:
            raise ArgumentError(
                'init_from',
                path,
                'no checkpoint in this directory, looked for model-<iteration>.index',
            )
        return found[max(found)]
    if not pathlib.Path(f'{path}.index').is_file():
        raise ArgumentError(
            'init_from', path, f'neither a directory nor a checkpoint, looked for {path}.index'
        )
    return str(path)


def reference_names(names: Iterable[str], keys: Collection[str]) -> dict[str, str | None]:
    """Returns {our name: the reference's}, None where it has no such variable.

    Its biases are model/Variable, model/Variable_1, ...; its norms model/0/beta upwards. Its fully
    connected net names no weight and numbers its norms 0, 2, 3, 4; so they are matched in order.

    Args:
      names: of our variables, in the order in which they are made.
      keys: of the reference's checkpoint.
    """
    of_norms = [key for key in keys if key.endswith(('/beta', '/gamma')) and key.count('/') == 2]
    scopes = sorted({key.split('/')[1] for key in of_norms})
    mapping, unnamed = {}, 0
    for name in names:
        if norm := re.fullmatch(r'norm(\d+)_(beta|gamma)', name):
            block, variable = int(norm[1]), norm[2]
            there = block < len(scopes)
            mapping[name] = f'model/{scopes[block]}/{variable}' if there else None
        elif f'model/{name}' in keys:
            mapping[name] = f'model/{name}'
        else:
            mapping[name] = f'model/Variable_{unnamed}' if unnamed else 'model/Variable'
            unnamed += 1
    return mapping
