"""The name of a run, which says what it was trained with."""

from collections.abc import Collection

from maml_tf.datasets.flags import train_update_batch_size
from maml_tf.learner import Learner
from maml_tf.networks.cells.flags import cell_of, of_cells
from maml_tf.networks.image_encoders.resnet12 import DROPOUT as RESNET12_DROPOUT
from maml_tf.networks.image_encoders.snail_resnet import DROPOUT as SNAIL_RESNET_DROPOUT
from maml_tf.rl import flags as rl
from maml_tf.training import outer_optimizers

# Flags of the data and of training that make another run, and stand in its name where they are not
# the default.
TRAINING_FLAGS = (
    *('class_split', 'rotations', 'image_size', 'ink', 'resize', 'train_on', 'train_query'),
    *('train_way_from', 'train_shot_from', 'train_query_from', 'leave_to_query'),
    *('within_groups', 'dimension', 'query_contains_support'),
    *('bands', 'fewest_patches', 'featurise', 'most_atoms', 'task_count'),
    *('channel', 'channel_range', 'channel_messages'),
    'frame_every',
    *('meta_lr', *outer_optimizers.FLAGS, 'clip'),
    *('network', 'encoder', 'dropout', 'augment', 'cells', 'external', 'external_labels'),
    *rl.OF_TRAINING,
    'rl_squared_distance',
)
# What encoders drop unless --dropout says otherwise.
DROPOUT = {'resnet12': RESNET12_DROPOUT, 'snail_resnet': SNAIL_RESNET_DROPOUT}
NORMS = {'batch_norm': 'batchnorm', 'layer_norm': 'layernorm', 'None': 'nonorm'}


def experiment_string(
    flags, learner: Learner, own: Collection[str] = (), foreign: Collection[str] = ()
) -> str:
    """Returns the reference's name of a run, of what the method heeds.

    What the reference does not know (another method, pretraining, a seed) is added at the end.

    own: names of the flags that belong to the method alone.
    foreign: names of those that mean nothing to the data source.
    """
    parts = [f'cls_{flags.train_num_classes or flags.num_classes}.mbs_{flags.meta_batch_size}']
    parts += [f'.ubs_{train_update_batch_size(flags)}']
    said = {
        'num_updates': f'.numstep{learner.inner_steps}',
        'update_lr': f'.updatelr{learner.inner_lr}',
        'num_filters': f'hidden{flags.num_filters}' if flags.num_filters != 64 else '',
        'max_pool': 'maxpool' if flags.max_pool else '',
        'stop_grad': 'stopgrad' if flags.stop_grad else '',
        'bfloat16': 'bfloat16' if flags.bfloat16 else '',
        'baseline': flags.baseline or '',
        'norm': NORMS[flags.norm],
        'conv': '' if flags.conv else '.fc',
    }
    parts += [text for name, text in said.items() if name in learner.heeds and name not in foreign]
    if flags.algorithm != 'maml':
        parts.append(f'.{flags.algorithm}')
    if flags.pretrain_iterations and not flags.baseline:
        # The reference gives its pretrained baseline and its MAML the same name, and resumes one
        # from the other.
        parts.append('.pretrain')
        parts += [str(flags.pretrain_iterations)] if flags.metatrain_iterations else []
    if learner.scheduled or flags.meta_lr_cosine_to is not None:
        parts.append(f'.of{flags.metatrain_iterations}')
        if flags.pretrain_iterations and flags.meta_lr_cosine_to is not None:
            parts.append(f'+{flags.pretrain_iterations}')
    if flags.seed:
        parts.append(f'.seed{flags.seed}')
    # What a flag says that the method does anyway is no other run.
    of_method = outer_optimizers.own_values(learner.outer) | {'encoder': learner.own_encoder}
    of_method['dropout'] = DROPOUT.get(flags.encoder or learner.own_encoder)
    for name in (*TRAINING_FLAGS, *own):
        if flags[name].value not in (flags[name].default, of_method.get(name)):
            parts.append(f'.{name}_{flags[name].value}')
    if of_cells(flags):  # Not its file, which may move and may change.
        parts.append(f'.{cell_of(flags).fingerprint()}')
    return ''.join(parts)
