"""Any Keras model as a network: model-agnostic, task by task."""
import re

import keras
import tensorflow as tf

from maml_tf.errors import UserError
from maml_tf.layers import normalise

_NORMALIZATIONS = keras.layers.BatchNormalization, keras.layers.LayerNormalization, keras.layers.GroupNormalization


class KerasNetwork:
    """Runs a built Keras model with other weights than its own, as networks.py's networks do.

    Each trainable variable is a weight, named by its place and path (so name the layers, if checkpoints should
    outlive this process); where it starts is where the model stands. Keras checks the shapes of replaced
    variables, so stacked weights do not pass through a model: the tasks run one after another. Layers run in
    inference mode (no dropout) and in the model's own precision; regularisers do not enter the loss. The model
    itself is never changed.

    Keras' batch, layer and group normalisation have wrong second derivatives: they are run by
    `ExactNormalization`, batch normalisation then always by the statistics of the batch at hand, as in MAML's
    authors' code. A frozen BatchNormalization (`trainable=False`) stays as it is.

    XLA compiles a recurrent layer only with `unroll=True`; that also keeps a GPU from cuDNN's recurrent
    kernels, which have no second derivatives.

    Args:
      model: a built keras.Model with one input and one output.
      adapted: name -> whether the inner loop changes this weight; default: all but the normalisations' scales
        and offsets, as networks.py.
    Raises:
      UserError: the model is not built, or holds a normalisation that cannot be replaced.
    """

    def __init__(self, model, adapted=None):
        if not model.built:
            raise UserError(f'{model.name}: not built yet; call it once, or give it an Input')
        self.model = _with_exact_normalization(model)
        self._variables = {f'w{i}_{re.sub("[^0-9a-zA-Z_]", "_", v.path)}': v
                           for i, v in enumerate(self.model.trainable_variables)}
        norms = {id(v) for layer in self.model._flatten_layers() if isinstance(layer, ExactNormalization)
                 for v in layer.trainable_variables}
        self.adapted = adapted or (lambda name: id(self._variables[name]) not in norms)

    def construct_weights(self, seed):
        """{name: the model's own value}; the model was seeded when it was made."""
        del seed
        return {name: variable.numpy() for name, variable in self._variables.items()}

    def forward(self, x, weights):
        """x: [tasks, n, *input_shape] -> [tasks, n, output_dim]; weights: {name: [(tasks,) ...]}."""
        stacked = {name: w for name, w in weights.items() if w.shape.rank > len(self._variables[name].shape)}
        dtype = next(iter(weights.values())).dtype

        def one_task(inputs):
            x, own = inputs
            values = [(variable, (own if name in own else weights)[name]) for name, variable in self._variables.items()]
            # What Model.stateless_call does, but that hands `training` to models whose call does not take it.
            with keras.StatelessScope(values):
                return tf.cast(self.model(x, training=False), dtype)

        return tf.map_fn(one_task, (x, stacked), fn_output_signature=dtype)


class ExactNormalization(keras.layers.Wrapper):
    """Runs a BatchNormalization, LayerNormalization or GroupNormalization so that it can be differentiated twice.

    Keras computes all three by `keras.ops.moments`, whose variance holds the mean constant. Batch normalisation
    uses the statistics of the batch at hand, in training or not, and keeps no moving averages: inside an inner
    loop they would take in every task's every step.

    KerasNetwork wraps the layers it finds; a subclassed model does so itself:
    `self.norm = ExactNormalization(keras.layers.BatchNormalization())`.
    """

    def __init__(self, layer, **kwargs):
        super().__init__(layer, **kwargs)
        self.supports_masking = True

    def call(self, x, training=None, mask=None):
        del training
        layer, rank = self.layer, x.shape.rank
        channels = [axis % rank for axis in (layer.axis if isinstance(layer.axis, list) else [layer.axis])]
        scale_shape = [size if axis in channels else 1 for axis, size in enumerate(x.shape)]
        inputs = tf.cast(x, layer.variable_dtype)  # float16 would overflow in the squares.
        if isinstance(layer, keras.layers.LayerNormalization):
            y = normalise(inputs, channels, layer.epsilon)
        elif isinstance(layer, keras.layers.GroupNormalization):
            y = _normalise_groups(inputs, channels[0], layer.groups, layer.epsilon)
        elif mask is not None:
            raise UserError(f'{layer.path}: batch normalisation of masked inputs is not supported')
        else:
            y = normalise(inputs, [axis for axis in range(rank) if axis not in channels], layer.epsilon)
        if layer.gamma is not None:
            y *= tf.reshape(layer.gamma, scale_shape)
        if layer.beta is not None:
            y += tf.reshape(layer.beta, scale_shape)
        return tf.cast(y, layer.compute_dtype)


def _normalise_groups(x, channel, groups, epsilon):
    """x: [n, ..., c at axis `channel`, ...], normalised over all axes but the first, per group of channels."""
    shape = tf.unstack(tf.shape(x))
    x_groups = tf.reshape(x, [*shape[:channel], groups, x.shape[channel] // groups, *shape[channel + 1:]])
    y = normalise(x_groups, [axis for axis in range(1, x_groups.shape.rank) if axis != channel], epsilon)
    return tf.reshape(y, shape)


def _with_exact_normalization(model):
    """The model with its normalisations wrapped, on the same variables; the model itself where it has none."""
    if not _inexact(model):
        return model
    wrap = lambda layer: ExactNormalization(layer) if type(layer) in _NORMALIZATIONS and _inexact(layer) else layer
    try:
        # Layers are shared with the model, not copied: nothing here writes to a variable.
        model = keras.models.clone_model(model, clone_function=wrap, recursive=True)
    except ValueError:
        pass  # A subclassed model has no graph in which to replace a layer.
    for layer in _inexact(model):
        raise UserError(f'{model.name}: {type(layer).__name__} {layer.name} has wrong second derivatives and cannot be '
                        'replaced here; wrap it in maml_tf.keras_network.ExactNormalization where the model makes it')
    return model


def _inexact(layer):
    """The normalisations in a layer or model, itself included, that cannot be differentiated twice."""
    layers = layer._flatten_layers()
    wrapped = {id(layer.layer) for layer in layers if isinstance(layer, ExactNormalization)}
    frozen = lambda layer: isinstance(layer, keras.layers.BatchNormalization) and not layer.trainable
    return [layer for layer in layers
            if isinstance(layer, _NORMALIZATIONS) and not frozen(layer) and id(layer) not in wrapped]
