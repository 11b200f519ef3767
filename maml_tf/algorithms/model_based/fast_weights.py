"""Fast weights: layers with two paths, and where the weights of the second come from.

All is a function of tensors. Weights are {name: tensor}; fast ones have leading axes besides.
(Munkhdalai and Yu, ICML 2017, sections 3.1 to 3.3.)
"""

import math
from collections.abc import Callable, Mapping

import tensorflow as tf

from maml_tf.ops import layers
from maml_tf.ops.linear import Linear
from maml_tf.ops.shapes import sizes

Weights = Mapping[str, tf.Tensor]
# (x [tasks, n, ...], name of a layer) -> what its fast weights make of x, [tasks, n, ...].
Path = Callable[[tf.Tensor, str], tf.Tensor]
# What the names of weights begin with.
CONVOLUTION, LINEAR = 'conv', 'linear'
EPSILON = 1e-6  # of the cosine


def augmented(
    x: tf.Tensor, slow: Weights, fast: Path | None = None, dtype: tf.DType | None = None
) -> tf.Tensor:
    """Computes a network whose layers have two paths each (layer augmentation, section 3.3).

    Of every hidden layer ReLU(W x) + ReLU(W* x), of the last W x + W* x. Convolutions, 3x3, come
    first, and each is pooled, 2x2, an odd last row or column by itself. No layer has a bias.

    Args:
      x: [tasks, n, ...].
      slow: in the order of the layers, [(tasks,) 3, 3, in, out] or [(tasks,) in, out]; a weight
        without tasks is shared by all.
      fast: the second path; None: there is none.
    Returns: [tasks, n, out].
    """
    *_, last = slow
    for name, weight in slow.items():
        if not is_convolution(name) and x.shape.rank > 3:
            tasks, n, *image = sizes(x)
            x = tf.reshape(x, [tasks, n, image[0] * image[1] * image[2]])
        paths = [multiply(x, weight)]
        if fast is not None:
            paths.append(fast(x, name))
        if name == last:
            return tf.add_n(paths)
        x = tf.add_n([tf.nn.relu(path) for path in paths])
        if is_convolution(name):
            x = layers.max_pool2x2(x, 'same')
    return x


def is_convolution(name: str) -> bool:
    """Tells whether a weight is that of a convolution; else it is that of a linear layer."""
    return name.startswith(CONVOLUTION)


def multiply(x: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Multiplies by [(tasks,) 3, 3, in, out] or [(tasks,) in, out]: [tasks, n, ...] -> alike."""
    if weight.shape.rank >= 4:
        return layers.conv3x3(x, weight, stride=1)
    if weight.shape.rank == 3:
        return Linear.of(None).product(x, weight)
    return tf.tensordot(x, weight, 1)


def of_task(weights: Weights) -> Path:
    """Returns the path of weights that belong to a task, {name: [tasks, ...]}."""
    return lambda x, name: multiply(x, weights[name])


def read_from(memory: Weights, attention: tf.Tensor) -> Path:
    """Returns the path of weights that each query reads for itself, W*_q = sum_i a_qi W*_i.

    Args:
      memory: fast weights of each support example, {name: [tasks, support, ...]}.
      attention: a, [tasks, n, support].
    """

    def path(x, name):
        weights = memory[name]
        tasks, n, *shape = sizes(x)
        if not is_convolution(name):
            # The same, but that products are added up, not weights: those of all the queries would
            # be many times as large.
            products = tf.einsum('tqi,tsio->tqso', x, weights)
            return tf.einsum('tqs,tqso->tqo', attention, products)
        _, support, *kernel = sizes(weights)
        read = tf.matmul(attention, tf.reshape(weights, [tasks, support, -1]))
        # To the convolution each query is a task of one image.
        read = tf.reshape(read, [tasks * n, *kernel])
        y = multiply(tf.reshape(x, [tasks * n, 1, *shape]), read)
        return tf.reshape(y, [tasks, n, *sizes(y)[2:]])

    return path


def attend(query: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    """Returns the softmax of cosines, a [tasks, queries, support] (section 3.2).

    query: [tasks, queries, size]; keys: [tasks, support, size].
    """
    products = tf.matmul(query, keys, transpose_b=True)
    square = lambda x: tf.reduce_sum(tf.square(x), axis=-1)
    squares = square(query)[:, :, tf.newaxis] * square(keys)[:, tf.newaxis]
    return tf.nn.softmax(products * tf.math.rsqrt(squares + EPSILON))


def generate(gradients: Weights, generators: Mapping[str, Callable], axes: int) -> Weights:
    """Returns fast weights made of gradients, of the same names.

    Args:
      gradients: {name: [leading axes, ...]}.
      generators: {what the names of its weights begin with: [leading axes, entries] -> [remaining
        leading axes, entries]}.
      axes: how many leading axes there are.
    """
    made = {}
    for kind, generator in generators.items():
        chosen = {name: g for name, g in gradients.items() if name.startswith(kind)}
        counts = [math.prod(g.shape[axes:]) for g in chosen.values()]
        flat = [tf.reshape(g, [*sizes(g)[:axes], n]) for g, n in zip(chosen.values(), counts)]
        parts = tf.split(generator(tf.concat(flat, -1)), counts, -1)
        for (name, gradient), part in zip(chosen.items(), parts):
            made[name] = tf.reshape(part, [*sizes(part)[:-1], *gradient.shape[axes:]])
    return made
