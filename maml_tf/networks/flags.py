"""The flags of the networks."""

from maml_tf.errors import UserError
from maml_tf.networks.reference import NORMS


def product_dtype(flags) -> str | None:
    """Returns the network argument that --bfloat16 stands for."""
    return 'bfloat16' if flags.bfloat16 else None


def check_flags(flags) -> None:
    """Raises UserError for a flag of convolutions where the network has none."""
    for name in ('num_filters', 'max_pool'):
        if not flags.conv and flags[name].value != flags[name].default:
            raise UserError(f'--{name}={flags[name].value}: means nothing with --conv=False')


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
    flags.DEFINE_bool('max_pool', False, 'max-pooling rather than strided convolutions')
