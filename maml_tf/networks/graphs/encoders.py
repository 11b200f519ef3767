"""Encoders of vectors and of graphs: the networks of this package as Keras models."""

import keras
import tensorflow as tf

from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.networks.graphs.graph_network import GraphNetwork
from maml_tf.networks.network import Network
from maml_tf.serialisation.configuration import Configured

FEATURES = 128


class NetworkLayer(Configured, keras.layers.Layer):
    """A network whose weights all tasks share, as a layer: [n, *input_shape] -> [n, output_dim].

    Args:
      network: the Network; without batch norm, of which a layer would keep no running averages.
      seed: of the initial weights.
      kwargs: keras.layers.Layer's (name, dtype).
    """

    def __init__(self, network: Network, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.network = network
        self.of_network = {
            name: self.add_weight(
                name=name,
                shape=value.shape,
                initializer=lambda shape, dtype, value=value: tf.cast(value, dtype),
            )
            for name, value in network.construct_weights(seed).items()
        }
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        weights = {name: tf.convert_to_tensor(w) for name, w in self.of_network.items()}
        return self.network.forward(x[tf.newaxis], weights)[0]

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (shape[0], self.network.output_dim)


def encoder_of_network(network: Network, seed: int = 0) -> keras.Model:
    """Returns a network as an encoder for metric learners; seed: of its weights."""
    layers = [keras.Input(network.input_shape), NetworkLayer(network, seed)]
    return keras.Sequential(layers, name='encoder')


def dense_encoder(
    input_shape: tuple[int, ...], hidden: tuple[int, ...] = (256,), seed: int = 0
) -> keras.Model:
    """Makes an encoder of dense layers, from vectors to FEATURES features; the sizes are ours."""
    network = FullyConnected(input_shape, FEATURES, hidden, 'None', start='glorot')
    return encoder_of_network(network, seed)


def graph_encoder(input_shape: tuple[int, ...], seed: int = 0) -> keras.Model:
    """Makes an encoder of graphs, from atoms and bonds to FEATURES features; the sizes are ours."""
    return encoder_of_network(GraphNetwork(input_shape, FEATURES, norm='layer_norm'), seed)
