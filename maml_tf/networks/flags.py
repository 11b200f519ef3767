"""The flags of the networks."""

from maml_tf.errors import UserError
from maml_tf.networks.image_encoders.by_name import ENCODERS
from maml_tf.networks.reference import NORMS


def product_dtype(flags) -> str | None:
    """Returns the network argument that --bfloat16 stands for."""
    return 'bfloat16' if flags.bfloat16 else None


def check_flags(flags) -> None:
    """Raises UserError for a flag of convolutions where the network has none."""
    for name in ('num_filters', 'max_pool'):
        if not flags.conv and flags[name].value != flags[name].default:
            raise UserError(f'--{name}={flags[name].value}: means nothing with --conv=False')
    if flags.num_filters != flags['num_filters'].default and flags.encoder not in (None, 'conv4'):
        raise UserError(
            f'--num_filters={flags.num_filters}: means nothing with --encoder={flags.encoder}'
        )
    if flags.dropout and flags.encoder == 'conv4':
        raise UserError(f'--dropout={flags.dropout}: means nothing with --encoder=conv4')


def define_flags(flags) -> None:
    """Defines the flags of the networks."""
    flags.DEFINE_enum('norm', 'batch_norm', NORMS, 'normalisation of the hidden layers')
    flags.DEFINE_integer(
        'num_filters',
        64,
        'number of filters of the convolutional net: 64 for omniglot, 32 for miniimagenet',
        lower_bound=1,
    )
    flags.DEFINE_bool(
        'conv', True, 'convolutional network for images; False: fully connected, 256-128-64-64'
    )
    flags.DEFINE_bool(
        'bfloat16',
        False,
        'multiply in bfloat16; weights, their updates, normalisation and losses stay in float32',
    )
    flags.DEFINE_enum(
        'encoder',
        None,
        ENCODERS,
        'encoder of the images (default: by method, for r2d2 and lrd2 r2d2, for metaoptnet '
        'resnet12, else conv4)',
    )
    flags.DEFINE_float(
        'dropout',
        None,
        'share of the entries that the encoders r2d2 and resnet12 drop (default: 0, of resnet12 '
        '0.1)',
        lower_bound=0,
    )
    flags.DEFINE_bool(
        'augment', False, 'crop, mirror and recolour training images at random, for encoders'
    )
    flags.DEFINE_bool('max_pool', False, 'max-pooling rather than strided convolutions')
