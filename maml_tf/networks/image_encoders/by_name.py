"""The encoders of the command line, by name."""

import functools

import keras

from maml_tf.networks.encoders import conv4
from maml_tf.networks.image_encoders.augmentation import standard_augmentation
from maml_tf.networks.image_encoders.r2d2_encoder import r2d2_encoder
from maml_tf.networks.image_encoders.resnet12 import resnet12
from maml_tf.networks.image_encoders.snail_resnet import snail_resnet

# The flags that `encoder_of` reads besides --num_filters.
ENCODER_FLAGS = ('encoder', 'dropout', 'augment')
ENCODERS = ('conv4', 'r2d2', 'r2d2_64', 'resnet12', 'snail_resnet')


def encoder_of(flags, input_shape: tuple[int, ...], default: str) -> keras.Model:
    """Returns the encoder that the command line asks for.

    default: one of ENCODERS, the method's own.
    Raises: ArgumentError where the images are too small.
    """
    augmentation = tuple(standard_augmentation(input_shape) if flags.augment else ())
    name = flags.encoder or default
    if name == 'conv4':
        return conv4(input_shape, flags.num_filters, augmentation=augmentation)
    make = {
        'r2d2': r2d2_encoder,
        'r2d2_64': functools.partial(r2d2_encoder, filters=(64,) * 4),
        'resnet12': resnet12,
        'snail_resnet': snail_resnet,
    }[name]
    dropout = {} if flags.dropout is None else {'dropout': flags.dropout}
    return make(input_shape, augmentation=augmentation, **dropout)
