"""The encoder of R2-D2 (Bertinetto, Henriques, Torr, Vedaldi, ICLR 2019, section 4.2)."""

import keras

from maml_tf.networks.encoders import BatchNorm, check_can_be_halved, torch_default
from maml_tf.networks.image_encoders.random_layers import Dropout

FILTERS = (96, 192, 384, 512)
SLOPE = 0.1


def r2d2_encoder(
    input_shape: tuple[int, int, int],
    filters: tuple[int, int, int, int] = FILTERS,
    dropout: float = 0.0,
    augmentation: tuple[keras.layers.Layer, ...] = (),
    name: str = 'encoder',
) -> keras.Model:
    """Makes an encoder of four blocks, whose last two blocks' maps are the features.

    A block is a 3x3 convolution, batch norm, 2x2 max-pool (the last block's with stride 1) and a
    leaky ReLU; dropout follows in the last two. The maps of the third block are pooled once more,
    with stride 1. So 28x28 images have 3,584 features, 32x32 ones 8,064, 84x84 ones 72,576.

    Args:
      input_shape: (height, width, channels).
      filters: of each block; the authors' smaller encoder has 64 in all.
      dropout: the share that is dropped.
      augmentation: layers before the first.
    Raises: ArgumentError where the images are too small.
    """
    check_can_be_halved(input_shape, 4)
    inputs = x = keras.Input(input_shape)
    for layer in augmentation:
        x = layer(x)
    maps = []
    for number, count in enumerate(filters, start=1):
        start = torch_default(9 * x.shape[-1])
        x = keras.layers.Conv2D(
            count,
            3,
            padding='same',
            kernel_initializer=start,
            bias_initializer=start,
            name=f'conv{number}',
        )(x)
        x = BatchNorm(name=f'norm{number}')(x)
        # The activation grows with its input, so it may follow the pooling, where there is less.
        x = keras.layers.MaxPooling2D(2, strides=1 if number == 4 else 2)(x)
        x = keras.layers.LeakyReLU(negative_slope=SLOPE)(x)
        if dropout and number > 2:
            x = Dropout(dropout, name=f'dropout{number}')(x)
        maps.append(x)
    third = keras.layers.MaxPooling2D(2, strides=1)(maps[2])
    features = [keras.layers.Flatten()(part) for part in (third, maps[3])]
    return keras.Model(inputs, keras.layers.Concatenate()(features), name=name)
