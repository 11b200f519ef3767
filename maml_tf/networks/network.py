"""What every network offers to a learner that adapts weights."""

import abc
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from maml_tf.serialisation.configuration import Configured

# The name of a weight that is the same for all examples of a task: some methods adapt it.
CONTEXT = 'context'


class Network(Configured, abc.ABC):
    """Computes outputs from inputs and from weights that may differ by task.

    A network holds sizes, no weights: these are dicts by name, which `construct_weights` starts and
    which a learner keeps and adapts. The body is what comes before the head, the last linear layer.

    Attributes:
      input_shape: shape of one example.
      output_dim: length of one output.
      norm: the normalisation of the hidden layers. With 'batch_norm' an example's output depends on
        the examples beside it.
      light: whether a task takes so little work that computing a few tasks at a time (see
        training/shares.py) would cost more than it saves.
    """

    input_shape: tuple[int | None, ...]
    output_dim: int
    norm: str
    light: bool = False

    @abc.abstractmethod
    def construct_weights(self, seed: int) -> dict[str, np.ndarray]:
        """Returns initial values of all weights by name, without a task axis."""

    @abc.abstractmethod
    def forward(self, x: tf.Tensor, weights: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Computes the outputs.

        Args:
          x: [tasks, n, *input_shape].
          weights: all weights by name, each with or without a leading task axis; one without is
            shared by all tasks.
        Returns: [tasks, n, output_dim].
        """

    @abc.abstractmethod
    def adapted(self, name: str) -> bool:
        """Tells whether an inner loop changes this weight; if not, only the outer loop does."""

    def is_norm(self, name: str) -> bool:
        """Tells whether this weight is an offset or a scale of a normalisation."""
        del name
        return False

    @abc.abstractmethod
    def is_head(self, name: str) -> bool:
        """Tells whether this weight belongs to the head."""

    def is_encoder(self, name: str) -> bool:
        """Tells whether this weight belongs to what may be learnt by the outer loop alone; by
        default to the body."""
        return not self.is_head(name)
