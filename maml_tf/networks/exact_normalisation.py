"""Keras' normalisation layers with exact second derivatives."""

from collections.abc import Iterator

import keras
import tensorflow as tf

from maml_tf.errors import ArgumentError
from maml_tf.ops.layers import normalise
from maml_tf.ops.shapes import sizes
from maml_tf.serialisation.configuration import Configured

_NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
)


class ExactNormalization(Configured, keras.layers.Wrapper):
    """Runs a normalisation layer of Keras so that it can be differentiated twice.

    Keras computes batch, layer and group normalisation by `keras.ops.moments`, whose variance holds
    the mean constant: its second derivatives are wrong. Here batch normalisation uses the
    statistics of the batch at hand, in training or not, and keeps no moving averages: inside an
    inner loop they would take in every task's every step.

    KerasNetwork wraps the layers it finds; a subclassed model does so itself:
    `self.norm = ExactNormalization(keras.layers.BatchNormalization())`.

    Args:
      layer: a BatchNormalization, LayerNormalization or GroupNormalization.
      kwargs: keras.layers.Layer's (name, dtype).
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs):
        super().__init__(layer, **kwargs)
        self.supports_masking = True

    def call(
        self, x: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        del training
        layer, rank = self.layer, x.shape.rank
        axes = layer.axis if isinstance(layer.axis, list) else [layer.axis]
        channels = [axis % rank for axis in axes]
        scale_shape = [size if axis in channels else 1 for axis, size in enumerate(x.shape)]
        inputs = tf.cast(x, layer.variable_dtype)  # float16 would overflow in the squares.
        if isinstance(layer, keras.layers.LayerNormalization):
            y = normalise(inputs, channels, layer.epsilon)
        elif isinstance(layer, keras.layers.GroupNormalization):
            y = _normalise_groups(inputs, channels[0], layer.groups, layer.epsilon)
        elif mask is None:
            others = [axis for axis in range(rank) if axis not in channels]
            y = normalise(inputs, others, layer.epsilon)
        else:
            y = _normalise_masked(inputs, mask, layer.epsilon)
        if layer.gamma is not None:
            y *= tf.reshape(layer.gamma, scale_shape)
        if layer.beta is not None:
            y += tf.reshape(layer.beta, scale_shape)
        return tf.cast(y, layer.compute_dtype)


def _normalise_groups(x, channel, groups, epsilon):
    """Normalises [n, ..., c at axis `channel`, ...] over all axes but the first, group by group."""
    shape = sizes(x)
    x_groups = tf.reshape(
        x, [*shape[:channel], groups, x.shape[channel] // groups, *shape[channel + 1 :]]
    )
    others = [axis for axis in range(1, x_groups.shape.rank) if axis != channel]
    return tf.reshape(normalise(x_groups, others, epsilon), shape)


def _normalise_masked(x, mask, epsilon):
    """Normalises [n, ..., c] per channel by the statistics of where the mask [n, ...] is true."""
    axes = range(x.shape.rank - 1)
    share = tf.cast(mask, x.dtype)[..., tf.newaxis]
    share /= tf.reduce_sum(share)
    centred = x - tf.reduce_sum(share * x, axes, keepdims=True)
    variance = tf.reduce_sum(share * tf.square(centred), axes, keepdims=True)
    return centred * tf.math.rsqrt(variance + epsilon)


def with_exact_normalisation(model: keras.Model) -> keras.Model:
    """Wraps a model's normalisations in ExactNormalization.

    Returns: a model on the same variables; the model itself where nothing is to be wrapped.
    Raises: ArgumentError for a normalisation inside a subclassed model or layer, where it cannot be
      replaced.
    """
    if not list(_inexact(model)):
        return model
    if symbolic_ends(model) is not None:  # A subclassed model has no graph to replace a layer in.
        # The new model shares its layers with the old: nothing here writes to a variable. It is
        # made from inputs and outputs, for clone_model would compile a copy of a compiled model,
        # which needs a serialisable loss.
        graph = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
        model = keras.models.clone_model(graph, clone_function=_wrapped, recursive=True)
    for layer in _inexact(model):
        raise ArgumentError(
            'model',
            model.name,
            f'{type(layer).__name__} {layer.name} has wrong second derivatives and cannot be '
            f'replaced here; wrap it in {__name__}.ExactNormalization where the model makes it',
        )
    return model


def symbolic_ends(model: keras.Model) -> tuple[list, list] | None:
    """Returns a model's symbolic inputs and outputs; None: it is subclassed and has none."""
    try:
        return model.inputs, model.outputs
    except AttributeError:
        return None


def _wrapped(layer):
    if type(layer) in _NORMALIZATIONS and list(_inexact(layer)):
        return ExactNormalization(layer)
    return layer


def _inexact(layer) -> Iterator[keras.layers.Layer]:
    """Normalisations in a layer or model, itself included, that cannot be differentiated twice."""
    layers = layer._flatten_layers()
    wrapped = {id(layer.layer) for layer in layers if isinstance(layer, ExactNormalization)}
    for layer in layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            exact = not layer.trainable  # By its moving averages, which are constants.
        elif isinstance(layer, keras.layers.LayerNormalization):
            exact = layer.rms_scaling  # Not by ops.moments.
        else:
            exact = not isinstance(layer, keras.layers.GroupNormalization)
        if not (exact or id(layer) in wrapped):
            yield layer
