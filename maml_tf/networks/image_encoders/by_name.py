"""The encoders of the command line, by name."""

import functools

import keras

from maml_tf.errors import ArgumentError
from maml_tf.networks.cells.cell_encoder import cell_encoder
from maml_tf.networks.cells.flags import CELL_FLAGS, CELLS, cell_of
from maml_tf.networks.encoders import conv4
from maml_tf.networks.graphs.encoders import dense_encoder, graph_encoder
from maml_tf.networks.image_encoders.augmentation import standard_augmentation
from maml_tf.networks.image_encoders.r2d2_encoder import r2d2_encoder
from maml_tf.networks.image_encoders.resnet12 import resnet12
from maml_tf.networks.image_encoders.resnet50 import resnet50
from maml_tf.networks.image_encoders.snail_resnet import snail_resnet

# The flags that `encoder_of` reads besides --num_filters.
ENCODER_FLAGS = ('encoder', 'dropout', 'augment', *CELL_FLAGS)
AUGMENTED = ('conv4', 'r2d2', 'r2d2_64', 'resnet12', 'resnet50', 'snail_resnet', 'cell')
ENCODERS = (*AUGMENTED, 'dense', 'graph')
# Of these, those that heed --num_filters, and those that heed --dropout; AUGMENTED are of images.
FILTERED = ('conv4', 'cell')
DROPPING = ('r2d2', 'r2d2_64', 'resnet12', 'snail_resnet')
# By the number of axes of an input: of vectors and graphs there is one each.
OF_RANK = {1: 'dense', 2: 'graph'}


def encoder_of(flags, input_shape: tuple[int, ...], default: str) -> keras.Model:
    """Returns the encoder that the command line asks for.

    default: one of ENCODERS, the method's own, of images.
    Raises: ArgumentError where the images are too small, or the inputs are none for the encoder,
      and for a --cell that is none.
    """
    name = flags.encoder or OF_RANK.get(len(input_shape), default)
    if name not in fitting(input_shape):
        reason = f'these inputs take {" or ".join(fitting(input_shape))}'
        raise ArgumentError('encoder', name, reason)
    if name == 'dense':
        return dense_encoder(input_shape, seed=flags.seed)
    if name == 'graph':
        return graph_encoder(input_shape, seed=flags.seed)
    augmentation = tuple(standard_augmentation(input_shape) if flags.augment else ())
    if name == 'conv4':
        return conv4(input_shape, flags.num_filters, augmentation=augmentation)
    if name == 'cell':
        cell, cells = cell_of(flags), flags.cells or CELLS
        return cell_encoder(input_shape, cell, flags.num_filters, cells, augmentation)
    make = {
        'r2d2': r2d2_encoder,
        'r2d2_64': functools.partial(r2d2_encoder, filters=(64,) * 4),
        'resnet12': resnet12,
        'resnet50': resnet50,
        'snail_resnet': snail_resnet,
    }[name]
    dropout = {} if flags.dropout is None else {'dropout': flags.dropout}
    return make(input_shape, augmentation=augmentation, **dropout)


def fitting(input_shape: tuple[int, ...]) -> tuple[str, ...]:
    """Returns the names of the encoders that take such inputs.

    input_shape: of one example: (features,), (atoms, columns) of a graph, or that of an image.
    """
    if len(input_shape) in OF_RANK:
        return (OF_RANK[len(input_shape)],)
    return tuple(name for name in ENCODERS if name != 'graph')
