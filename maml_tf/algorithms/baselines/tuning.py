"""Updates on whole support sets: of a head alone, or of a Keras encoder with it."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from maml_tf.algorithms.baselines.heads import Head
from maml_tf.inner_loop import InnerProblem, adapt_in_graph, stack_over_tasks
from maml_tf.update_rules import Tensors, UpdateRule


def tune(
    head: Head,
    weights: Tensors,
    encode: Callable[[Tensors], tf.Tensor],
    labels: tf.Tensor,
    absent: tf.Tensor,
    rule: UpdateRule,
    updates: int,
) -> Tensors:
    """Takes updates on the mean cross-entropy of each task's support set.

    Args:
      weights: {name: [tasks, ...]}, the head's and whatever else is trained.
      encode: weights -> features [tasks, support, features].
      labels: one-hot [tasks, support, way]; a row of zeros does not count.
      absent: [tasks, 1, way], added to the outputs: keeps out classes without support.
    Returns: {name: [tasks, ...]}.
    """
    counts = tf.reduce_sum(labels, (1, 2))

    def loss(weights, step, others):
        outputs = head.outputs(encode(weights), weights) + absent
        errors = -tf.reduce_sum(labels * tf.nn.log_softmax(outputs), (1, 2))
        return errors / counts, outputs

    return adapt_in_graph(InnerProblem(loss, weights, rule), updates)[0]


class TunedEncoder:
    """A Keras encoder with weights of each task's own.

    Keras' layers take the weights of one task, so tasks are computed one after another.

    Args:
      encoder: images [n, ...] -> features [n, features].
      by_batch: batch norm takes the statistics of the examples at hand, else running averages.
    """

    def __init__(self, encoder: keras.Model, by_batch: bool):
        self._encoder, self._by_batch = encoder, by_batch

    def weights(self) -> Tensors:
        """Returns the encoder's own trained weights, by names that a state can have."""
        trained = self._encoder.trainable_variables
        return {f'encoder_{i}': tf.convert_to_tensor(v.value) for i, v in enumerate(trained)}

    def features(self, weights: Tensors, x: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
        """Returns [tasks, n, features] of images [tasks, n, ...].

        Args:
          weights: {name: [tasks, ...]}, the encoder's and maybe others.
          mask: [tasks, n], where 0 an example is kept out of the statistics.
        """
        of_encoder = {name: weights[name] for name in self.weights()}
        inputs = {'weights': of_encoder, 'x': x} | _where_there('mask', mask)
        signature = tf.TensorSpec([x.shape[1], self._encoder.output_shape[-1]], x.dtype)
        of_task = lambda part: self._of_task(part['weights'], part['x'], part.get('mask'))
        return _over_tasks(of_task, inputs, signature)

    def tune(
        self,
        head: Head,
        weights: Tensors,
        x: tf.Tensor,
        mask: tf.Tensor | None,
        labels: tf.Tensor,
        absent: tf.Tensor,
        rule: UpdateRule,
        updates: int,
    ) -> Tensors:
        """Returns the weights of encoder and head after updates on both, {name: [tasks, ...]}.

        Args: as of `tune` and `features`; weights: the head's.
        """
        inputs = {'head': weights, 'x': x, 'labels': labels, 'absent': absent}
        inputs |= _where_there('mask', mask)

        def of_task(part):
            alone = lambda name: tf.nest.map_structure(lambda v: v[tf.newaxis], part[name])
            start = alone('head') | stack_over_tasks(self.weights(), 1)

            def encode(weights):
                own = {name: weights[name][0] for name in self.weights()}
                return self._of_task(own, part['x'], part.get('mask'))[tf.newaxis]

            tuned = tune(head, start, encode, alone('labels'), alone('absent'), rule, updates)
            return {name: w[0] for name, w in tuned.items()}

        single = self.weights() | {name: w[0] for name, w in weights.items()}
        signature = {name: tf.TensorSpec(w.shape, w.dtype) for name, w in single.items()}
        return _over_tasks(of_task, inputs, signature)

    def _of_task(self, weights, x, mask):
        trained = [weights[name] for name in self.weights()]
        fixed = [v.value for v in self._encoder.non_trainable_variables]

        def run(x):
            return self._encoder.stateless_call(trained, fixed, x, training=self._by_batch)[0]

        if mask is None or not self._by_batch:  # Examples do not see each other.
            return run(x)
        counting = tf.cast(tf.where(mask > 0), tf.int32)
        shape = [tf.shape(x)[0], self._encoder.output_shape[-1]]
        return tf.scatter_nd(counting, run(tf.gather_nd(x, counting)), shape)


def _where_there(name: str, value: tf.Tensor | None) -> dict[str, tf.Tensor]:
    return {} if value is None else {name: value}


def _over_tasks(function: Callable, inputs: Any, signature: Any) -> Any:
    """Returns function(inputs of a task), stacked over the tasks."""
    return tf.map_fn(function, inputs, fn_output_signature=signature, parallel_iterations=1)
