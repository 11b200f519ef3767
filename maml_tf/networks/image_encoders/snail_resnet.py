"""SNAIL's encoder of miniImageNet (Mishra et al., ICLR 2018, section 5.1 and appendix)."""

import keras

from maml_tf.networks.encoders import BatchNorm, check_can_be_halved
from maml_tf.networks.image_encoders.random_layers import Dropout

FILTERS, HIDDEN, FEATURES = (64, 96, 128, 256), 2048, 384
SLOPE, DROPOUT = 0.1, 0.1


def snail_resnet(
    input_shape: tuple[int, int, int],
    filters: tuple[int, int, int, int] = FILTERS,
    dropout: float = DROPOUT,
    augmentation: tuple[keras.layers.Layer, ...] = (),
    hidden: int = HIDDEN,
    features: int = FEATURES,
    name: str = 'encoder',
) -> keras.Model:
    """Makes an encoder of four residual blocks, whose last maps are averaged.

    A block is three times a 3x3 convolution, batch norm and a leaky ReLU, plus a 1x1 convolution of
    the block's input; then a 2x2 max-pool, which takes an odd last row or column by itself, and
    dropout. 84x84 images become maps of 6x6. A 1x1 convolution, the mean of the maps, a ReLU,
    dropout and one more 1x1 convolution follow. The ReLU, its slope and the order within a block
    are as recalled, unverified.

    Args:
      input_shape: (height, width, channels).
      filters: of each block; hidden, features: of the two 1x1 convolutions.
      dropout: the share that is dropped (the paper keeps 0.9); 0: nothing.
      augmentation: layers before the first.
    Raises: ArgumentError where the images are too small.
    """
    check_can_be_halved(input_shape, 4)
    inputs = x = keras.Input(input_shape)
    for layer in augmentation:
        x = layer(x)
    for number, count in enumerate(filters, start=1):
        shortcut = _convolved(x, count, 1, f'{number}_shortcut')
        for place in (1, 2, 3):
            x = BatchNorm(name=f'norm{number}_{place}')(
                _convolved(x, count, 3, f'{number}_{place}', use_bias=False)
            )
            x = keras.layers.LeakyReLU(negative_slope=SLOPE)(x)
        x = keras.layers.MaxPooling2D(2, padding='same')(x + shortcut)
        if dropout:
            x = Dropout(dropout, name=f'dropout{number}')(x)
    # The mean before the 1x1 convolution, both of which are linear: the same, and less to compute.
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(hidden, 'relu', kernel_initializer=_start(), name='hidden')(x)
    if dropout:
        x = Dropout(dropout, name='dropout5')(x)
    x = keras.layers.Dense(features, kernel_initializer=_start(), name='features')(x)
    return keras.Model(inputs, x, name=name)


def _start():
    return keras.initializers.HeNormal()


def _convolved(x, filters, size, name, use_bias=True):
    return keras.layers.Conv2D(
        filters,
        size,
        padding='same',
        use_bias=use_bias,
        kernel_initializer=_start(),
        name=f'conv{name}',
    )(x)
