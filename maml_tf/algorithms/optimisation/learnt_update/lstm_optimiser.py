"""The coordinate-wise LSTM that takes a learner's steps (Ravi and Larochelle 2017, section 3).

Its weights are shared by all coordinates, the entries of the learner's weights. Layer 1 is an
ordinary LSTM, 4 -> HIDDEN, on the preprocessed loss and gradient. Layer 2 is the learner itself:
its cell state is the weight theta. With h the output of layer 1,

    f_t = W_F [h_t, theta_t-1, f_t-1] + b_F        i_t = W_I [h_t, theta_t-1, i_t-1] + b_I
    theta_t = sigmoid(f_t) theta_t-1 - sigmoid(i_t) gradient_t

As in the released code (twitter-research/meta-learning-lstm) a gate reads its own last value before
the sigmoid; the paper writes the gate itself there.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.ops.log_and_sign import log_and_sign
from maml_tf.ops.shapes import sizes
from maml_tf.update_rules import Tensors

HIDDEN = 20
SEEN = 4  # two numbers of the loss, two of the gradient
P = 10.0  # of the preprocessing


class Memory(NamedTuple):
    """What the LSTM remembers of each coordinate from step to step; all start from zero.

    output, cell: of layer 1, [HIDDEN, tasks, coordinates].
    gates: f and i of layer 2 before the sigmoid, [2, tasks, coordinates].
    """

    output: tf.Tensor
    cell: tf.Tensor
    gates: tf.Tensor


def starting_parameters(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns initial values by name, as the released code draws them.

    lstm_kernel: [4 HIDDEN, SEEN + HIDDEN], rows of the input, forget and output gates and of the
      candidate; columns of the loss, the gradient and the last output. lstm_bias: [4 HIDDEN].
    gates_kernel: [2, HIDDEN + 2], the rows W_F and W_I. gates_bias: [2], b_F and b_I.

    All are from U(-0.01, 0.01), but b_F from U(4, 5) and b_I from U(-5, -4): it begins near
    gradient descent with a rate of about 0.01.
    """
    small = lambda *shape: random.uniform(-0.01, 0.01, shape)
    return {
        'lstm_kernel': small(4 * HIDDEN, SEEN + HIDDEN),
        'lstm_bias': small(4 * HIDDEN),
        'gates_kernel': small(2, HIDDEN + 2),
        'gates_bias': np.array([random.uniform(4, 5), random.uniform(-5, -4)]),
    }


def start(weights: tf.Tensor) -> Memory:
    """Returns the memory before the first step; weights: [tasks, coordinates]."""
    tasks, coordinates = sizes(weights)
    zeros = lambda rows: tf.zeros([rows, tasks, coordinates], weights.dtype)
    return Memory(zeros(HIDDEN), zeros(HIDDEN), zeros(2))


def preprocess(x: tf.Tensor) -> tf.Tensor:
    """Returns (log|x| / p, sign x) where |x| >= e^-p, else (-1, e^p x): [...] -> [2, ...].

    It is Andrychowicz et al.'s (2016, appendix A), with p = 10.
    """
    return log_and_sign(x, P)


def step(
    parameters: Tensors, memory: Memory, weights: tf.Tensor, gradients: tf.Tensor, losses: tf.Tensor
) -> tuple[tf.Tensor, Memory]:
    """Takes a step of every coordinate of every task.

    Args:
      parameters: as `starting_parameters` names them.
      weights, gradients: [tasks, coordinates].
      losses: [tasks], what the gradients are of.
    Returns: (weights, memory) after the step.
    """
    of_loss = tf.broadcast_to(preprocess(losses)[..., tf.newaxis], [2, *sizes(weights)])
    seen = tf.concat([of_loss, preprocess(gradients), memory.output], 0)
    bias = parameters['lstm_bias'][:, tf.newaxis, tf.newaxis]
    rows = tf.split(_times(parameters['lstm_kernel'], seen) + bias, 4)
    enter, keep, leave = (tf.sigmoid(row) for row in rows[:3])
    cell = keep * memory.cell + enter * tf.tanh(rows[3])
    output = leave * tf.tanh(cell)
    kernel, bias = (parameters[f'gates_{kind}'] for kind in ('kernel', 'bias'))
    column = lambda values: values[:, tf.newaxis, tf.newaxis]
    gates = _times(kernel[:, :HIDDEN], output) + column(bias)
    gates += column(kernel[:, HIDDEN]) * weights + column(kernel[:, HIDDEN + 1]) * memory.gates
    forget, take = tf.unstack(tf.sigmoid(gates))
    return forget * weights - take * gradients, Memory(output, cell, gates)


def _times(matrix, x):
    """[rows, columns] by [columns, tasks, coordinates]; coordinates last: gates are whole rows."""
    columns, tasks, coordinates = sizes(x)
    flat = tf.matmul(matrix, tf.reshape(x, [columns, tasks * coordinates]))
    return tf.reshape(flat, [matrix.shape[0], tasks, coordinates])
