"""ResNet-50 (He, Zhang, Ren, Sun, CVPR 2016), as keras.applications has it."""

import keras

from maml_tf.errors import ArgumentError
from maml_tf.networks.encoders import BatchNorm

SMALLEST_SIDE = 32


def resnet50(
    input_shape: tuple[int, int, int],
    augmentation: tuple[keras.layers.Layer, ...] = (),
    name: str = 'encoder',
) -> keras.Model:
    """Makes an encoder of 2048 features, each averaged over the last map, with random weights.

    The layers are Keras'; batch norm is this package's, with the same momentum and epsilon, whose
    running averages a learner moves alike on one device and on several. Images of 32x32 end as maps
    of 1x1.

    Args:
      input_shape: (height, width, channels).
      augmentation: layers before the first.
    Raises: ArgumentError where the images are smaller than 32x32.
    """
    smallest = min(input_shape[:2])
    if smallest < SMALLEST_SIDE:
        reason = f'ResNet-50 takes images from {SMALLEST_SIDE}x{SMALLEST_SIDE}'
        raise ArgumentError('image_size', smallest, reason)
    made = keras.applications.ResNet50(
        include_top=False, weights=None, input_shape=input_shape, pooling='avg'
    )

    def with_our_norm(layer):
        if isinstance(layer, keras.layers.BatchNormalization):
            return BatchNorm(layer.momentum, layer.epsilon, name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    def without_mask(layer, *args, mask=None, **kwargs):
        del mask  # Keras' batch norm takes one; of images there is none.
        return layer(*args, **kwargs)

    body = keras.models.clone_model(made, clone_function=with_our_norm, call_function=without_mask)
    return keras.Sequential([keras.Input(input_shape), *augmentation, body], name=name)
