"""Linear and cosine classifiers on features, and their training on support sets."""

import abc

import tensorflow as tf

from maml_tf.episodes.order import minibatches
from maml_tf.episodes.random_bits import keyed_bits, uniform
from maml_tf.errors import ArgumentError
from maml_tf.inner_loop import InnerProblem, adapt_in_graph
from maml_tf.ops.shapes import sizes
from maml_tf.update_rules import Tensors, UpdateRule

_STREAM = 0x68656164  # Any number that others are unlikely to take.
# The authors of Baseline++ scale the outputs of a head so, and of one of many classes otherwise.
SCALE, SCALE_OF_MANY, MANY = 2.0, 10.0, 200
_LEAST_NORM = 1e-5


class Head(abc.ABC):
    """A classifier on features, whose weights may have a task axis."""

    @abc.abstractmethod
    def weights(self, numbers: tf.Tensor) -> Tensors:
        """Returns starting weights by name, made of numbers [(tasks,) features + 1, classes].

        The last row is for biases.
        """

    @abc.abstractmethod
    def outputs(self, features: tf.Tensor, weights: Tensors) -> tf.Tensor:
        """Returns logits [tasks, n, classes] of features [tasks, n, features]."""


class LinearHead(Head):
    """f W + b."""

    def weights(self, numbers: tf.Tensor) -> Tensors:
        return {'kernel': numbers[..., :-1, :], 'bias': numbers[..., -1, :]}

    def outputs(self, features: tf.Tensor, weights: Tensors) -> tf.Tensor:
        return tf.matmul(features, weights['kernel']) + weights['bias'][..., tf.newaxis, :]


class CosineHead(Head):
    """s g_k cos(v_k, f): the norm g_k of a class's weight is learnt apart from its direction v_k
    (Chen et al. 2019, section 3.2; the norms are the authors' code's, by weight normalisation).

    s is SCALE, of more than MANY classes SCALE_OF_MANY; g_k starts as the norm of v_k.
    """

    def weights(self, numbers: tf.Tensor) -> Tensors:
        direction = numbers[..., :-1, :]
        return {'direction': direction, 'norm': tf.norm(direction, axis=-2)}

    def outputs(self, features: tf.Tensor, weights: Tensors) -> tf.Tensor:
        direction = weights['direction']
        length = tf.sqrt(tf.reduce_sum(tf.square(features), -1, keepdims=True) + 1e-30)
        units = features / (length + _LEAST_NORM)
        kernel = direction * (weights['norm'] / tf.norm(direction, axis=-2))[..., tf.newaxis, :]
        many = sizes(direction)[-1] > MANY
        scale = tf.where(many, tf.cast(SCALE_OF_MANY, features.dtype), SCALE)
        return scale * tf.matmul(units, kernel)


def new_weights(head: Head, features: int, labels: tf.Tensor, key: tf.Tensor | None) -> Tensors:
    """Starts the head of each task as PyTorch starts a linear layer, decided by the task's key.

    Kernel and bias are U(-1/sqrt(features), 1/sqrt(features)). Those of a class depend on its place
    among the classes, not on how many there are.

    Args:
      features: how many.
      labels: [tasks, n, way].
      key: uint32 [tasks, 2], see task.Task; None: a fixed one.
    Returns: {name: [tasks, ...]}.
    """
    tasks, _, way = sizes(labels)
    bound = features**-0.5
    bits = keyed_bits(key, way * (features + 1), _STREAM)
    numbers = tf.reshape(uniform(bits, -bound, bound), [-1, way, features + 1])
    numbers = tf.broadcast_to(tf.linalg.matrix_transpose(numbers), [tasks, features + 1, way])
    return head.weights(tf.cast(numbers, labels.dtype))


def train_head(
    head: Head,
    features: tf.Tensor,
    labels: tf.Tensor,
    absent: tf.Tensor,
    key: tf.Tensor | None,
    rule: UpdateRule,
    epochs: int,
    batch: int,
) -> Tensors:
    """Trains a new head for each task, all at once, by the mean cross-entropy of mini-batches.

    An epoch goes through the support set in an order of its own; its last batch may be smaller.

    Args:
      features: [tasks, support, features].
      labels: one-hot [tasks, support, way].
      absent: [tasks, 1, way], added to the outputs: keeps out classes without support.
      key: uint32 [tasks, 2], decides the start and the order; None: a fixed one.
      rule: see update_rules.py.
      epochs, batch: how many, and the examples of a batch.
    Returns: {name: [tasks, ...]}.
    Raises: ArgumentError where a number is not positive.
    """
    for argument, value in (('epochs', epochs), ('batch', batch)):
        if value < 1:
            raise ArgumentError(argument, value, 'at least 1')
    tasks, examples, size = sizes(features)
    batches = -(-examples // batch)
    order = minibatches(key, examples, examples, epochs)
    order = tf.pad(order, [[0, 0], [0, 0], [0, batches * batch - examples]])
    order = tf.reshape(order, [-1, epochs * batches, batch])
    order = tf.broadcast_to(order, [tasks, epochs * batches, batch])
    counts = tf.cast(tf.range(batches * batch) < examples, features.dtype)
    counts = tf.reshape(counts, [batches, batch])

    def loss(weights, step, others):
        chosen, count = order[:, step], counts[step % batches]
        x, y = (tf.gather(part, chosen, batch_dims=1) for part in (features, labels))
        outputs = head.outputs(x, weights) + absent
        errors = -tf.reduce_sum(y * tf.nn.log_softmax(outputs), -1)
        return tf.reduce_sum(errors * count, -1) / tf.reduce_sum(count), outputs

    problem = InnerProblem(loss, new_weights(head, size, labels, key), rule)
    return adapt_in_graph(problem, epochs * batches)[0]
