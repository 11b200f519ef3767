"""ResNet-12 as MetaOptNet has it (Lee, Maji, Ravichandran, Soatto, CVPR 2019, section 4.1)."""

import keras

from maml_tf.networks.encoders import BatchNorm, check_can_be_halved
from maml_tf.networks.image_encoders.random_layers import DropBlock, Dropout

FILTERS = (64, 160, 320, 640)
SLOPE, DROPOUT = 0.1, 0.1


def resnet12(
    input_shape: tuple[int, int, int],
    filters: tuple[int, int, int, int] = FILTERS,
    dropout: float = DROPOUT,
    augmentation: tuple[keras.layers.Layer, ...] = (),
    name: str = 'encoder',
) -> keras.Model:
    """Makes an encoder of four residual blocks, without pooling over the whole map.

    A block is three times a 3x3 convolution, batch norm and a leaky ReLU, the last after adding a
    1x1 convolution of the block's input; then a 2x2 max-pool. Dropout follows in the first two
    blocks, DropBlock in the others, its squares of side 2 in images of up to 32x32 and else 5. So
    84x84 images have 16,000 features, 32x32 ones 2,560.

    Args:
      input_shape: (height, width, channels).
      filters: of each block.
      dropout: the share that is dropped; 0: nothing.
      augmentation: layers before the first.
    Raises: ArgumentError where the images are too small.
    """
    check_can_be_halved(input_shape, 4)
    inputs = x = keras.Input(input_shape)
    for layer in augmentation:
        x = layer(x)
    side = 2 if min(input_shape[:2]) <= 32 else 5
    for number, count in enumerate(filters, start=1):
        shortcut = _normalised(x, count, 1, f'{number}_shortcut')
        for place in (1, 2):
            x = _leaky(_normalised(x, count, 3, f'{number}_{place}'))
        x = _leaky(_normalised(x, count, 3, f'{number}_3') + shortcut)
        x = keras.layers.MaxPooling2D(2)(x)
        if dropout and number <= 2:
            x = Dropout(dropout, name=f'dropout{number}')(x)
        elif dropout:
            x = DropBlock(dropout, side, name=f'dropblock{number}')(x)
    return keras.Model(inputs, keras.layers.Flatten()(x), name=name)


def _normalised(x, filters, size, name):
    """A convolution and its batch norm."""
    x = keras.layers.Conv2D(
        filters,
        size,
        padding='same',
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(2.0, 'fan_out', 'untruncated_normal'),
        name=f'conv{name}',
    )(x)
    return BatchNorm(name=f'norm{name}')(x)


def _leaky(x):
    return keras.layers.LeakyReLU(negative_slope=SLOPE)(x)
