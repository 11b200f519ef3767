"""The flags of the networks."""

from maml_tf.errors import UserError
from maml_tf.networks.cells import flags as cells
from maml_tf.networks.image_encoders.by_name import (
    AUGMENTED,
    DROPPING,
    ENCODERS,
    FILTERED,
    OF_RANK,
)
from maml_tf.networks.reference import NORMS


def product_dtype(flags) -> str | None:
    """Returns the network argument that --bfloat16 stands for."""
    return 'bfloat16' if flags.bfloat16 else None


def check_flags(
    flags, own_encoder: str | None = None, input_shape: tuple[int, ...] = (1, 1, 1)
) -> None:
    """Raises UserError for a flag of convolutions where the network has none.

    own_encoder: of the method, one of ENCODERS; None: it has no encoder by name.
    input_shape: of one example; encoders of images are for those with three axes.
    """
    for name in ('num_filters', 'max_pool'):
        if not flags.conv and flags[name].value != flags[name].default:
            raise UserError(f'--{name}={flags[name].value}: means nothing with --conv=False')
    cells.check_flags(flags)
    if own_encoder is None:
        return
    encoder = flags.encoder or OF_RANK.get(len(input_shape), own_encoder)
    heeded = ('num_filters', FILTERED), ('dropout', DROPPING), ('augment', AUGMENTED)
    for name, of_these in heeded:
        if encoder not in of_these and flags[name].value != flags[name].default:
            whose = '' if flags.encoder else f', which is that of --algorithm={flags.algorithm}'
            raise UserError(
                f'--{name}={flags[name].value}: means nothing with --encoder={encoder}{whose}'
            )


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
        'resnet12, for deml resnet50, else conv4; of vectors dense, of graphs graph)',
    )
    flags.DEFINE_float(
        'dropout',
        None,
        'share of the entries that the encoders r2d2, resnet12 and snail_resnet drop (default: '
        '0 of r2d2, else 0.1)',
        lower_bound=0,
    )
    flags.DEFINE_bool(
        'augment', False, 'crop, mirror and recolour training images at random, for encoders'
    )
    cells.define_flags(flags)
    flags.DEFINE_bool('max_pool', False, 'max-pooling rather than strided convolutions')
