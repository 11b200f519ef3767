"""Starting weights from a checkpoint: one of this package, or one of the reference (TF1 format)."""

import pathlib

import tensorflow as tf

from maml_tf.errors import UserError
from maml_tf.saving.run_directory import LEARNER, VALUE, checkpoints


def load_weights(learner, path):
    """Assigns the learner's variables from `path`.

    Args:
      learner: any Learner; a checkpoint of the reference fits those with the reference's networks.
      path: a run directory of this package (its latest checkpoint), or a checkpoint's common
        prefix, such as logs/.../model-6000 or the reference's model59000.
    Raises:
      UserError: there is no checkpoint, it lacks a variable, or a variable has another shape.
    """
    prefix = _prefix(pathlib.Path(path))
    reader = tf.train.load_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
    names = learner.named_variables()
    own = {name: f'{LEARNER}/{name}{VALUE}' for name in names}
    keys = own if any(key in shapes for key in own.values()) else reference_names(names, shapes)
    for name, variable in names.items():
        if keys.get(name) not in shapes:
            raise UserError(
                f'--init_from={path}: holds no {name}. It has other layers than these flags '
                'describe: '
                'compare --datasource, --norm, --conv and --algorithm'
            )
        if list(variable.shape) != shapes[keys[name]]:
            raise UserError(
                f'--init_from={path}: {name} is {shapes[keys[name]]} there and '
                f'{list(variable.shape)} '
                'here. Compare --num_classes, --num_filters, --max_pool and --datasource'
            )
    for name, variable in names.items():
        variable.assign(tf.cast(reader.get_tensor(keys[name]), variable.dtype))


def _prefix(path):
    if path.is_dir():
        if not (found := checkpoints(path)):
            raise UserError(
                f'--init_from={path}: no checkpoint in this directory, looked for model-*.index'
            )
        return found[max(found)]
    if not pathlib.Path(f'{path}.index').is_file():
        raise UserError(
            f'--init_from={path}: neither a directory nor a checkpoint, looked for {path}.index'
        )
    return str(path)


def reference_names(names, keys):
    """{our name: the reference's}: biases are model/Variable, model/Variable_1, ...; norms
    model/0/beta upwards.

    Its fully connected net names no weight and numbers its norms 0, 2, 3, 4; so they are matched in
    order.
    """
    scopes = sorted(
        {
            key.split('/')[1]
            for key in keys
            if key.endswith(('/beta', '/gamma')) and key.count('/') == 2
        }
    )
    mapping, unnamed = {}, 0
    for name in names:
        if name.startswith('norm'):
            block, variable = name.removeprefix('norm').split('_')
            mapping[name] = (
                f'model/{scopes[int(block)]}/{variable}' if int(block) < len(scopes) else None
            )
        elif f'model/{name}' in keys:
            mapping[name] = f'model/{name}'
        else:
            mapping[name] = 'model/Variable' + (f'_{unnamed}' if unnamed else '')
            unnamed += 1
    return mapping
