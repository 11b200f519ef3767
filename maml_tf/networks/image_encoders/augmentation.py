"""Augmentation: layers that change training images at random, each image by itself."""

import keras
import tensorflow as tf

from maml_tf.networks.image_encoders.random_layers import Draws, RandomLayer

_GREY = (0.299, 0.587, 0.114)


class RandomCrop(RandomLayer):
    """Moves images [n, h, w, c] by up to `padding` pixels each way, and brings in zeros."""

    def __init__(self, padding: int, name: str = 'random_crop', **kwargs):
        super().__init__(name, **kwargs)
        self.padding = padding

    def drawn(self, x: tf.Tensor, draws: Draws) -> tf.Tensor:
        n, (height, width) = tf.shape(x)[0], x.shape[1:3]
        places = tf.cast(self.uniform([n, 2], draws, 0.0, 2.0 * self.padding + 1), tf.int32)
        border = [self.padding, self.padding]
        x = tf.pad(x, [[0, 0], border, border, [0, 0]])
        x = tf.gather(x, places[:, :1] + tf.range(height), batch_dims=1)
        columns = tf.gather(
            tf.transpose(x, [0, 2, 1, 3]), places[:, 1:] + tf.range(width), batch_dims=1
        )
        return tf.transpose(columns, [0, 2, 1, 3])


class RandomFlip(RandomLayer):
    """Mirrors images [n, h, w, c], left and right, each with a chance of one half."""

    def __init__(self, name: str = 'random_flip', **kwargs):
        super().__init__(name, **kwargs)

    def drawn(self, x: tf.Tensor, draws: Draws) -> tf.Tensor:
        flipped = self.uniform([tf.shape(x)[0], 1, 1, 1], draws) < 0.5
        return tf.where(flipped, tf.reverse(x, [2]), x)


class ColourJitter(RandomLayer):
    """Changes brightness, contrast and saturation of images of three channels in [0, 1].

    Each is multiplied by a factor between 1 - strength and 1 + strength, in this order, and cut to
    [0, 1].
    """

    def __init__(self, strength: float, name: str = 'colour_jitter', **kwargs):
        super().__init__(name, **kwargs)
        self.strength = strength

    def drawn(self, x: tf.Tensor, draws: Draws) -> tf.Tensor:
        shape = [3, tf.shape(x)[0], 1, 1, 1]
        factors = self.uniform(shape, draws, 1 - self.strength, 1 + self.strength)
        brightness, contrast, saturation = tf.unstack(tf.cast(factors, x.dtype))
        grey = lambda x: tf.reduce_sum(x * tf.constant(_GREY, x.dtype), -1, keepdims=True)
        mix = lambda x, plain, factor: tf.clip_by_value(plain + factor * (x - plain), 0, 1)
        x = mix(x, tf.zeros_like(x), brightness)
        x = mix(x, tf.reduce_mean(grey(x), (1, 2), keepdims=True), contrast)
        return mix(x, grey(x), saturation)


def standard_augmentation(input_shape: tuple[int, int, int]) -> list[keras.layers.Layer]:
    """Returns crop, jitter of colours and flip, as Lee et al. 2019 (section 4.1) have them.

    The crop moves by 4 pixels in images of up to 32x32, else by 8.
    """
    channels = input_shape[-1]
    jitter = [ColourJitter(0.4)] if channels == 3 else []
    return [RandomCrop(4 if min(input_shape[:2]) <= 32 else 8), *jitter, RandomFlip()]
