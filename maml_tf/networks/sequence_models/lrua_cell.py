"""A recurrent cell with an external memory, and the controllers it may have."""

import keras
import tensorflow as tf

from maml_tf.errors import ArgumentError, check_one_of
from maml_tf.networks.sequence_models import lrua
from maml_tf.serialisation.configuration import Configured

CONTROLLERS = ('lstm', 'feed_forward')
# What the memory starts as: no row is zero, since a row of zeros has no direction.
START = 1e-6


class FeedForwardCell(Configured, keras.layers.Layer):
    """tanh(W x + b): a cell that remembers nothing.

    Keras' RNN wants a state; it is the last output, which is never read.
    """

    def __init__(self, units: int, name: str = 'feed_forward', **kwargs):
        super().__init__(name=name, **kwargs)
        self.state_size = self.output_size = units
        self.dense = keras.layers.Dense(units, 'tanh', name='dense')

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.dense.build(input_shape)

    def call(self, inputs: tf.Tensor, states: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        del states
        output = self.dense(inputs)
        return output, [output]

    def get_initial_state(self, batch_size: int | tf.Tensor) -> list[tf.Tensor]:
        return [tf.zeros([batch_size, self.state_size], self.compute_dtype)]


class LRUACell(Configured, keras.layers.Layer):
    """A controller with a memory that is written where it was used least (Santoro et al. 2016).

    At step t, for input x_t and every head:

        h_t = controller([x_t, r_t-1], its state)
        key k_t = tanh(W_k h_t + b_k), gate g_t = sigmoid(W_g h_t + b_g)
        the least used row of the memory is erased, then M_t = M + sum over heads of w^w_t k_t,
          with w^w_t = g_t w^r_t-1 + (1 - g_t) w^lu_t-1
        w^r_t = softmax of the cosines of k_t and the rows of M_t; r_t = w^r_t M_t
        w^u_t = decay w^u_t-1 + sum over heads of (w^r_t + w^w_t)

    The output is [h_t, r_t], the heads' reads one behind the other. lrua.py has the equations.

    Where the paper leaves a choice: every read head also writes, by a gate of its own that the
    controller sets at each step. What is written is the key (eq. 8); some re-implementations write
    another vector. w^lu has as many ones as there are heads (eq. 6), the same for all heads; the
    same re-implementations give each head one of these slots. An episode starts from a memory of
    1e-6 everywhere, read weights and usage that are 1 at the first slot, and zeros elsewhere.

    Args:
      controller: 'lstm' or 'feed_forward', which is a layer of tanh.
      units: of the controller.
      slots, width: rows of the memory, and their length.
      heads: that read and write.
      decay: of the usage, gamma.
    Raises: ArgumentError for another controller, and for more heads than slots.
    """

    def __init__(
        self,
        controller: str = 'lstm',
        units: int = 200,
        slots: int = 128,
        width: int = 40,
        heads: int = 4,
        decay: float = 0.95,
        name: str = 'lrua',
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        if not 1 <= heads <= slots:
            raise ArgumentError('heads', heads, f'from 1 to the {slots} slots of the memory')
        self.controller = controller_cell(controller, units)
        self.slots, self.width, self.heads, self.decay = slots, width, heads, decay
        self.key = keras.layers.Dense(heads * width, 'tanh', name='key')
        self.gate = keras.layers.Dense(heads, 'sigmoid', name='gate')
        of_controller = self.controller.state_size
        if isinstance(of_controller, int):
            of_controller = [of_controller]
        self._of_controller = len(of_controller)
        # As Keras wants it: a number for each state.
        self.state_size = [
            *of_controller,
            slots * width,
            heads * slots,
            slots,
            heads * width,
        ]
        self.output_size = units + heads * width

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.controller.build((*input_shape[:-1], input_shape[-1] + self.heads * self.width))
        for layer in (self.key, self.gate):
            layer.build((*input_shape[:-1], self.controller.output_size))

    def call(self, inputs: tf.Tensor, states: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Takes a step.

        Args:
          inputs: [tasks, features].
          states: those of the controller, then memory, read weights, usage and reads of the step
            before, each [tasks, its size in `state_size`].
        Returns ([h_t, r_t], the states after the step).
        """
        of_controller, (memory, reading, usage, reads) = (
            states[: self._of_controller],
            states[self._of_controller :],
        )
        memory = tf.reshape(memory, [-1, self.slots, self.width])
        reading = tf.reshape(reading, [-1, self.heads, self.slots])
        h, of_controller = self.controller(tf.concat([inputs, reads], -1), list(of_controller))
        keys = tf.reshape(self.key(h), [-1, self.heads, self.width])
        writing = lrua.write_weights(self.gate(h), reading, lrua.least_used(usage, self.heads))
        memory = lrua.write(lrua.erase_least_used(memory, usage), writing, keys)
        reading = lrua.read_weights(keys, memory)
        usage = lrua.usage_after(usage, reading, writing, self.decay)
        reads, memory, reading = (
            tf.reshape(x, [-1, x.shape[1] * x.shape[2]])
            for x in (lrua.read(reading, memory), memory, reading)
        )
        return tf.concat([h, reads], -1), [*of_controller, memory, reading, usage, reads]

    def get_initial_state(self, batch_size: int | tf.Tensor) -> list[tf.Tensor]:
        zeros = lambda size: tf.zeros([batch_size, size], self.compute_dtype)
        first = tf.one_hot(0, self.slots, dtype=self.compute_dtype)
        *of_controller, memory, _, _, reads = self.state_size
        return [
            *map(zeros, of_controller),
            zeros(memory) + START,
            tf.tile(first[tf.newaxis], [batch_size, self.heads]),
            tf.tile(first[tf.newaxis], [batch_size, 1]),
            zeros(reads),
        ]


def controller_cell(kind: str, units: int) -> keras.layers.Layer:
    """Returns a controller as a cell of its own. Raises ArgumentError for another than CONTROLLERS.

    The LSTM is Keras', whose forget gates start with a bias of 1.
    """
    check_one_of('controller', kind, CONTROLLERS)
    if kind == 'lstm':
        return keras.layers.LSTMCell(units, name='lstm')
    return FeedForwardCell(units)


def state_names(controller: str, memory: bool) -> tuple[str, ...]:
    """Returns what the states of an LRUACell are called; memory: False: of its controller alone."""
    of_controller = ('hidden', 'cell') if controller == 'lstm' else ('output',)
    return (*of_controller, 'memory', 'read_weights', 'usage', 'reads') if memory else of_controller
