"""The gradients that fast weights are made of: of chunks of a support set, and of each example.

(Munkhdalai and Yu, ICML 2017, sections 3.1 and 3.2.) They are constants: no outer tape sees how
they came about.
"""

from collections.abc import Callable

import tensorflow as tf

from maml_tf.algorithms.model_based.fast_weights import Weights, augmented, multiply
from maml_tf.episodes.order import random_order, take
from maml_tf.ops.shapes import sizes


def of_chunks(
    x: tf.Tensor,
    labels: tf.Tensor,
    slow: Weights,
    head: tf.Tensor,
    key: tf.Tensor | None,
    most: int,
) -> tuple[dict[str, tf.Tensor], tf.Tensor | None]:
    """Returns (gradients {name: [chunks, tasks, ...]}, bool [chunks]: which are not empty, or None:
    no chunk is).

    Of the mean cross-entropy of each chunk by a softmax layer upon the ReLU of the embedding, with
    the slow weights alone.

    Args:
      x: [tasks, support, ...]; labels: [tasks, support, way].
      slow: the embedding's, {name: [...]}.
      head: of the softmax layer, [features, way].
      key, most: see `chunks`.
    """
    places, weights = chunks(labels, key, most)
    there = None if labels.shape[1] is not None else tf.reduce_any(weights > 0, -1)
    tasks, count, size = sizes(places)
    flat = tf.reshape(places, [tasks, count * size])
    # To the layers each chunk is a task.
    x, labels = (
        tf.reshape(take(value, flat), [tasks * count, size, *value.shape[2:]])
        for value in (x, labels)
    )

    def losses(slow):
        outputs = multiply(tf.nn.relu(augmented(x, slow)), head)
        of_each = tf.reshape(cross_entropies(labels, outputs), [tasks, count, size])
        return tf.reshape(tf.reduce_sum(of_each * weights, -1), [tasks * count])

    gradients = {}
    for name, gradient in gradients_of_each(losses, slow, tasks * count).items():
        gradient = tf.reshape(gradient, [tasks, count, *gradient.shape[1:]])
        gradients[name] = tf.transpose(gradient, [1, 0, *range(2, gradient.shape.rank)])
    return gradients, there


def chunks(labels: tf.Tensor, key: tf.Tensor | None, most: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Divides support sets at random into chunks of equal size, or of sizes that differ by one.

    Args:
      labels: [tasks, support, way].
      key: the tasks' random bits, see task.Task; None: always the same places make a chunk.
      most: how many chunks there are, unless there are fewer examples; where their number is not
        known to the graph, the last chunks are empty then.
    Returns: (places of the examples in the support set, int32 [tasks, chunks, size]; the weights of
      these in the mean of their chunk, [chunks, size], 0 where a chunk is shorter).
    """
    _, examples, _ = sizes(labels)
    count = min(most, examples) if isinstance(examples, int) else most
    size = -(-examples // count)
    # One example goes to each chunk in turn.
    filled = tf.pad(random_order(labels, key), [[0, 0], [0, size * count - examples]])
    places = tf.transpose(tf.reshape(filled, [-1, size, count]), [0, 2, 1])
    number = tf.transpose(tf.reshape(tf.range(size * count), [size, count]))
    there = tf.cast(number < examples, labels.dtype)
    return places, tf.math.divide_no_nan(there, tf.reduce_sum(there, -1, keepdims=True))


def of_each_example(x: tf.Tensor, labels: tf.Tensor, slow: Weights) -> dict[str, tf.Tensor]:
    """Returns the gradients of each example's cross-entropy, {name: [tasks * support, ...]}.

    x, labels: as of `of_chunks`; slow: the base learner's, {name: [...]}.
    """
    tasks, examples, *shape = sizes(x)
    # To the layers each example is a task of one image.
    x = tf.reshape(x, [tasks * examples, 1, *shape])
    labels = tf.reshape(labels, [tasks * examples, 1, labels.shape[-1]])
    losses = lambda slow: cross_entropies(labels, augmented(x, slow))[:, 0]
    return gradients_of_each(losses, slow, tasks * examples)


def gradients_of_each(
    losses: Callable[[Weights], tf.Tensor], weights: Weights, copies: int | tf.Tensor
) -> dict[str, tf.Tensor]:
    """Returns the gradients of many losses, of each by itself.

    Each loss has a copy of the weights. So the gradient of the sum of the losses with respect to
    the stack of copies is the stack of the gradients of each. They are constants: no outer tape
    sees how they came about.

    Args:
      losses: {name: [copies, ...]} -> [copies], of which each depends on its own copy.
      weights: {name: [...]}.
    Returns: {name: [copies, ...]}.
    """
    stacked = {
        name: tf.stop_gradient(tf.broadcast_to(weight, [copies, *weight.shape]))
        for name, weight in weights.items()
    }
    with tf.GradientTape() as tape:
        tape.watch(stacked)
        total = tf.reduce_sum(losses(stacked))
    return {name: tf.stop_gradient(g) for name, g in tape.gradient(total, stacked).items()}


def cross_entropies(labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Returns that of each example, [..., way] -> [...]; 0 where the label is all zero."""
    return -tf.reduce_sum(labels * tf.nn.log_softmax(outputs), axis=-1)
