"""Any Keras model as a network, run task by task."""

import re
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from maml_tf.errors import ArgumentError
from maml_tf.networks.exact_normalisation import (
    ExactNormalization,
    symbolic_ends,
    with_exact_normalisation,
)
from maml_tf.networks.network import Network


class KerasNetwork(Network):
    """Runs a built Keras model with other weights than its own.

    Each trainable variable is a weight, named by its place, layer and kind, such as
    w0_conv2d_kernel; where it starts is where the model stands. Keras checks the shapes of replaced
    variables, so stacked weights do not pass through a model: the tasks run one after another.
    Layers run in inference mode (no dropout) and in the model's own precision; regularisers do not
    enter the loss. The model is never changed.

    Keras' batch, layer and group normalisation have wrong second derivatives. They are run by
    ExactNormalization, batch normalisation then always by the statistics of the batch at hand, as
    in MAML's authors' code; their scales and offsets are trained by the outer loop and not adapted.
    A frozen BatchNormalization (`trainable=False`) stays as it is. Custom layers must not use
    `keras.ops.moments`.

    Args:
      model: a built keras.Model with one input and one output.
      adapted: tells whether the inner loop changes the weight of a name; None: all but those of
        normalisations.
      unroll_tasks: one copy of the model per task in the graph, where the number of tasks is known,
        rather than a loop in the graph. Unrolled, every model compiles under XLA; inside the loop
        none with a recurrent layer, attention or another transpose does. But compiling takes longer
        the more tasks there are: a small convolutional net with 16 tasks 80 seconds on a CPU core,
        with False 10.
      is_head: tells whether the weight of a name belongs to the head; None: those of the last layer
        that has any, normalisations aside (of a subclassed model: the layer it was given last).
        This and `adapted` are functions registered with Keras, if the network is to be saved.
    Raises:
      ArgumentError: the model is not built, has several inputs or outputs, or holds a normalisation
        that cannot be replaced.
    """

    # What the layers do is not known: an example's output may depend on the examples beside it.
    norm = 'batch_norm'

    def __init__(
        self,
        model: keras.Model,
        adapted: Callable[[str], bool] | None = None,
        unroll_tasks: bool = True,
        is_head: Callable[[str], bool] | None = None,
    ):
        if not model.built:
            raise ArgumentError('model', model.name, 'not built yet; call it, or give it an Input')
        self.input_shape, self.output_dim = _shapes(model)
        self.model = with_exact_normalisation(model)
        self.unroll_tasks = unroll_tasks
        variables = self.model.trainable_variables
        self._variables = {_name(i, v): v for i, v in enumerate(variables)}
        of_norms = self._names(_normalisation_variables(self.model))
        of_head = self._names(_last_variables(self.model))
        self._norms = of_norms
        self._adapted = adapted or (lambda name: name not in of_norms)
        self._is_head = is_head or (lambda name: name in of_head)

    def construct_weights(self, seed: int) -> dict[str, np.ndarray]:
        """Returns the model's own values by name: the model was seeded when it was made."""
        del seed
        return {name: variable.numpy() for name, variable in self._variables.items()}

    def forward(self, x: tf.Tensor, weights: Mapping[str, tf.Tensor]) -> tf.Tensor:
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

    def adapted(self, name: str) -> bool:
        return self._adapted(name)

    def is_norm(self, name: str) -> bool:
        return name in self._norms

    def is_head(self, name: str) -> bool:
        return self._is_head(name)

    def _names(self, variables):
        """Returns the weights' names of these variables."""
        wanted = {id(variable) for variable in variables}
        return {name for name, variable in self._variables.items() if id(variable) in wanted}


def _name(place, variable):
    """Names a weight. Keras' paths would depend on what else was made in the process."""
    *_, layer, kind = ['', *variable.path.split('/')]
    layer = re.sub(r'_\d+$', '', layer)  # dense_3 is the fourth of the process.
    return re.sub('[^0-9a-zA-Z_]+', '_', f'w{place}_{layer}_{kind}')


def _shapes(model):
    """Returns (shape of one input, length of one output); raises where there is not one of each."""
    ends = symbolic_ends(model)
    if ends is not None:
        inputs, outputs = ends
        if (len(inputs), len(outputs)) != (1, 1):
            reason = (
                f'{len(inputs)} inputs and {len(outputs)} outputs; only models with one of each'
            )
            raise ArgumentError('model', model.name, f'{reason} can be meta-learned')
        return tuple(inputs[0].shape[1:]), outputs[0].shape[-1]
    # A subclassed model knows what it was built for.
    batch = (model.get_build_config() or {}).get('input_shape')
    if batch is None or not all(size is None or isinstance(size, int) for size in batch):
        raise ArgumentError('model', model.name, 'built for several inputs; it can have one only')
    outputs = model.compute_output_spec(keras.KerasTensor(batch, model.input_dtype))
    return tuple(batch[1:]), outputs.shape[-1]


def _normalisation_variables(model):
    return [
        variable
        for layer in model._flatten_layers()
        if isinstance(layer, ExactNormalization)
        for variable in layer.trainable_variables
    ]


def _last_variables(model):
    """Returns the trainable variables of the last layer that has any, normalisations aside."""
    for layer in reversed(model.layers):
        if isinstance(layer, keras.Model):
            variables = _last_variables(layer)
        elif isinstance(layer, ExactNormalization):
            continue
        else:
            variables = layer.trainable_variables
        if variables:
            return variables
    return model.trainable_variables
