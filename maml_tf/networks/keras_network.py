"""Any Keras model as a network: model-agnostic, task by task."""

import re

import keras
import tensorflow as tf

from maml_tf.errors import UserError
from maml_tf.ops.layers import normalise
from maml_tf.ops.shapes import sizes

_NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
)


class KerasNetwork:
    """Runs a built Keras model with other weights than its own, as networks.py's networks do.

    Each trainable variable is a weight, named by its place and path (name the layers, if
    checkpoints are to outlive the process); where it starts is where the model stands. Keras checks
    the shapes of replaced variables,
    so stacked weights do not pass through a model: the tasks run one after another. Layers run in
    inference mode (no dropout) and in the model's own precision; regularisers do not enter the
    loss. The model is never changed.

    Keras' batch, layer and group normalisation have wrong second derivatives. They are run by
    `ExactNormalization`, batch normalisation then always by the statistics of the batch at hand, as
    in MAML's authors' code; their scales and offsets are trained by the outer loop and not adapted.
    A frozen BatchNormalization (`trainable=False`) stays as it is. Custom layers must not use
    `keras.ops.moments`.

    Args:
      model: a built keras.Model with one input and one output.
      adapted: name -> whether the inner loop changes this weight; default: all but those of
        normalisations.
      unroll_tasks: one copy of the model per task in the graph, where the number of tasks is known,
        rather than a loop in the graph. Unrolled, every model compiles under XLA; inside the loop
        none with a recurrent layer, attention or another transpose does. But compiling takes longer
        the more tasks there are: a small convolutional net with 16 tasks 80 seconds on a CPU core,
        with False 10.
    Raises:
      UserError: the model is not built, has several inputs or outputs, or holds a normalisation
        that cannot be replaced.
    """

    def __init__(self, model, adapted=None, unroll_tasks=True):
        if not model.built:
            raise UserError(f'{model.name}: not built yet; call it once, or give it an Input')
        if hasattr(model, 'inputs') and (len(model.inputs), len(model.outputs)) != (1, 1):
            raise UserError(
                f'{model.name}: {len(model.inputs)} inputs and {len(model.outputs)} outputs; only '
                'models '
                'with one of each can be meta-learned'
            )
        self.model = _with_exact_normalization(model)
        self._variables = {
            f'w{i}_{re.sub("[^0-9a-zA-Z_]", "_", v.path)}': v
            for i, v in enumerate(self.model.trainable_variables)
        }
        norms = {
            id(v)
            for layer in self.model._flatten_layers()
            if isinstance(layer, ExactNormalization)
            for v in layer.trainable_variables
        }
        self.adapted = adapted or (lambda name: id(self._variables[name]) not in norms)
        self.unroll_tasks = unroll_tasks

    def construct_weights(self, seed):
        """{name: the model's own value}; the model was seeded when it was made."""
        del seed
        return {name: variable.numpy() for name, variable in self._variables.items()}

    def forward(self, x, weights):
        """x: [tasks, n, *input_shape] -> [tasks, n, output_dim]; weights: {name: [(tasks,)
        ...]}."""
        stacked = {
            name: w
            for name, w in weights.items()
            if len(w.shape) > len(self._variables[name].shape)
        }
        dtype = next(iter(weights.values())).dtype

        def one_task(inputs):
            x, own = inputs
            values = [
                (variable, (own if name in own else weights)[name])
                for name, variable in self._variables.items()
            ]
            # As Model.stateless_call, which however hands `training` to models whose call does not
            # take it.
            with keras.StatelessScope(values):
                return tf.cast(self.model(x, training=False), dtype)

        tasks = x.shape[0]
        if self.unroll_tasks and tasks is not None:
            stacked = {name: tf.unstack(w, tasks) for name, w in stacked.items()}
            return tf.stack(
                [
                    one_task((x[i], {name: w[i] for name, w in stacked.items()}))
                    for i in range(tasks)
                ]
            )
        return tf.map_fn(one_task, (x, stacked), fn_output_signature=dtype)


class ExactNormalization(keras.layers.Wrapper):
    """Runs a BatchNormalization, LayerNormalization or GroupNormalization so that it can be
    differentiated twice.

    Keras computes all three by `keras.ops.moments`, whose variance holds the mean constant. Batch
    normalisation
    uses the statistics of the batch at hand, in training or not, and keeps no moving averages:
    inside an inner loop they would take in every task's every step.

    KerasNetwork wraps the layers it finds; a subclassed model does so itself:
    `self.norm = ExactNormalization(keras.layers.BatchNormalization())`.
    """

    def __init__(self, layer, **kwargs):
        super().__init__(layer, **kwargs)
        self.supports_masking = True

    def call(self, x, training=None, mask=None):
        del training
        layer, rank = self.layer, x.shape.rank
        channels = [
            axis % rank for axis in (layer.axis if isinstance(layer.axis, list) else [layer.axis])
        ]
        scale_shape = [size if axis in channels else 1 for axis, size in enumerate(x.shape)]
        inputs = tf.cast(x, layer.variable_dtype)  # float16 would overflow in the squares.
        if isinstance(layer, keras.layers.LayerNormalization):
            y = normalise(inputs, channels, layer.epsilon)
        elif isinstance(layer, keras.layers.GroupNormalization):
            y = _normalise_groups(inputs, channels[0], layer.groups, layer.epsilon)
        elif mask is None:
            y = normalise(
                inputs, [axis for axis in range(rank) if axis not in channels], layer.epsilon
            )
        else:
            y = _normalise_masked(inputs, mask, layer.epsilon)
        if layer.gamma is not None:
            y *= tf.reshape(layer.gamma, scale_shape)
        if layer.beta is not None:
            y += tf.reshape(layer.beta, scale_shape)
        return tf.cast(y, layer.compute_dtype)


def _normalise_groups(x, channel, groups, epsilon):
    """x: [n, ..., c at axis `channel`, ...], normalised over all axes but the first, per group of
    channels."""
    shape = sizes(x)
    x_groups = tf.reshape(
        x, [*shape[:channel], groups, x.shape[channel] // groups, *shape[channel + 1 :]]
    )
    y = normalise(
        x_groups, [axis for axis in range(1, x_groups.shape.rank) if axis != channel], epsilon
    )
    return tf.reshape(y, shape)


def _normalise_masked(x, mask, epsilon):
    """x: [n, ..., c], mask: [n, ...]; per channel, by the statistics of what the mask lets
    through."""
    share, axes = tf.cast(mask, x.dtype)[..., tf.newaxis], range(x.shape.rank - 1)
    share /= tf.reduce_sum(share)
    centred = x - tf.reduce_sum(share * x, axes, keepdims=True)
    variance = tf.reduce_sum(share * tf.square(centred), axes, keepdims=True)
    return centred * tf.math.rsqrt(variance + epsilon)


def _with_exact_normalization(model):
    """The model with its normalisations wrapped, on the same variables; the model itself where it
    has none."""
    if not _inexact(model):
        return model
    wrap = lambda layer: (
        ExactNormalization(layer) if type(layer) in _NORMALIZATIONS and _inexact(layer) else layer
    )
    if hasattr(model, 'inputs'):  # A subclassed model has no graph in which to replace a layer.
        # The new model shares its layers with the old: nothing here writes to a variable. It is
        # made from inputs and outputs, for clone_model would compile a copy of a compiled model,
        # which needs a serialisable loss.
        graph = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
        model = keras.models.clone_model(graph, clone_function=wrap, recursive=True)
    for layer in _inexact(model):
        raise UserError(
            f'{model.name}: {type(layer).__name__} {layer.name} has wrong second derivatives and '
            'cannot be '
            'replaced here; wrap it in maml_tf.keras_network.ExactNormalization where the model '
            'makes it'
        )
    return model


def _inexact(layer):
    """The normalisations in a layer or model, itself included, that cannot be differentiated
    twice."""
    layers = layer._flatten_layers()
    wrapped = {id(layer.layer) for layer in layers if isinstance(layer, ExactNormalization)}
    frozen = lambda layer: (
        isinstance(layer, keras.layers.BatchNormalization) and not layer.trainable
    )
    by_variance = lambda layer: getattr(
        layer, 'rms_scaling', False
    )  # LayerNormalization's; not by ops.moments.
    return [
        layer
        for layer in layers
        if isinstance(layer, _NORMALIZATIONS)
        and not (frozen(layer) or by_variance(layer) or id(layer) in wrapped)
    ]
