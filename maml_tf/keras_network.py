"""Any Keras model as a network: model-agnostic, task by task."""
import re

import keras
import tensorflow as tf

from maml_tf.errors import UserError
from maml_tf.layers import normalise


class KerasNetwork:
    """Runs a built Keras model with other weights than its own, as networks.py's networks do.

    Each trainable variable is a weight; where it starts is where the model stands. Keras checks the shapes of
    replaced variables, so stacked weights do not pass through a model: the tasks run one after another. Layers
    run in inference mode (no dropout), but batch normalisation uses each batch's own statistics, as in MAML's
    authors' code; its scale and offset are trained by the outer loop and not adapted.

    Args:
      model: a built keras.Model with one input and one output. Batch normalisation layers are replaced, since
        Keras' own has wrong second derivatives and changes its state; a frozen one (`trainable=False`) stays.
      adapted: name -> whether the inner loop changes this weight; default: all but batch normalisation's.
    Raises:
      UserError: the model is not built, or its batch normalisation cannot be replaced.
    """

    def __init__(self, model, adapted=None):
        if not model.built:
            raise UserError(f'{model.name}: not built yet; call it once, or give it an Input')
        self.model = _with_task_batch_norm(model)
        self.input_shape, self.output_dim = self.model.input_shape[1:], self.model.output_shape[-1]
        self._variables = {f'w{i}_{re.sub("[^0-9a-zA-Z_]", "_", v.path)}': v
                           for i, v in enumerate(self.model.trainable_variables)}
        norms = {id(v) for layer in self.model._flatten_layers() if isinstance(layer, BatchStatisticsNormalization)
                 for v in layer.trainable_variables}
        self.adapted = adapted or (lambda name: id(self._variables[name]) not in norms)

    def construct_weights(self, seed):
        """{name: the model's own value}; the model was seeded when it was made."""
        del seed
        return {name: variable.numpy() for name, variable in self._variables.items()}

    def forward(self, x, weights):
        """x: [tasks, n, *input_shape] -> [tasks, n, output_dim]; weights: {name: [(tasks,) ...]}."""
        stacked = {name: w for name, w in weights.items() if w.shape.rank > len(self._variables[name].shape)}
        shared = {name: w for name, w in weights.items() if name not in stacked}

        def one_task(inputs):
            x, own = inputs
            values = shared | own
            outputs, _ = self.model.stateless_call([values[name] for name in self._variables],
                                                   self.model.non_trainable_variables, x, training=False)
            return outputs

        return tf.map_fn(one_task, (x, stacked), fn_output_signature=x.dtype)


class BatchStatisticsNormalization(keras.layers.Layer):
    """Batch normalisation by the statistics of the batch at hand, always: no moving averages, so no state.

    Stands for keras.layers.BatchNormalization inside an inner loop; second derivatives are right.
    """

    def __init__(self, axis=-1, epsilon=1e-3, center=True, scale=True, **kwargs):
        super().__init__(**kwargs)
        self.axis, self.epsilon, self.center, self.scale = axis, epsilon, center, scale

    def build(self, input_shape):
        size = (input_shape[self.axis],)
        self.gamma = self.add_weight(name='gamma', shape=size, initializer='ones') if self.scale else None
        self.beta = self.add_weight(name='beta', shape=size, initializer='zeros') if self.center else None

    def call(self, x):
        channel = self.axis % x.shape.rank
        x = normalise(x, [axis for axis in range(x.shape.rank) if axis != channel], self.epsilon)
        shape = [-1 if axis == channel else 1 for axis in range(x.shape.rank)]
        if self.scale:
            x *= tf.reshape(self.gamma, shape)
        return x + tf.reshape(self.beta, shape) if self.center else x

    def get_config(self):
        return super().get_config() | {key: getattr(self, key) for key in ('axis', 'epsilon', 'center', 'scale')}


def _with_task_batch_norm(model):
    """The model with each trainable BatchNormalization replaced; the model itself where it has none."""
    replace = lambda layer: isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    layers = list(model._flatten_layers(include_self=False))
    if not any(map(replace, layers)):
        return model
    if any(type(layer) is not keras.layers.BatchNormalization for layer in layers if replace(layer)):
        raise UserError(f'{model.name}: a subclass of BatchNormalization cannot be replaced; use maml_tf.keras_network.'
                        'BatchStatisticsNormalization in its place')

    def clone(layer):
        if not replace(layer):
            return type(layer).from_config(layer.get_config())
        config = {key: layer.get_config()[key] for key in ('name', 'dtype', 'axis', 'epsilon', 'center', 'scale')}
        return BatchStatisticsNormalization(**config)

    try:
        cloned = keras.models.clone_model(model, clone_function=clone, recursive=True)
    except ValueError as error:
        raise UserError(f'{model.name}: batch normalisation in a subclassed model cannot be replaced (Keras\' own has '
                        'wrong second derivatives); use maml_tf.keras_network.BatchStatisticsNormalization in its '
                        'place, or build the model from layers') from error
    for old, new in zip(layers, cloned._flatten_layers(include_self=False)):
        pairs = zip(old.trainable_variables, new.trainable_variables) if replace(old) else zip(old.weights, new.weights)
        for source, target in pairs:
            target.assign(source)
    return cloned
