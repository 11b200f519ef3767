"""Layers that draw at random in training, by the key of the task that they see.

What they draw is a pure function of (the task's key, the layer's name, the pass): a meta-batch may
be computed in shares or on several devices, and a run may resume. Elsewhere than in training they
pass on what they get.
"""

import contextlib
import contextvars
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import keras
import tensorflow as tf

from maml_tf.episodes.random_bits import many_bits, uniform
from maml_tf.errors import ArgumentError
from maml_tf.serialisation.configuration import Configured


class Draws(NamedTuple):
    """What decides the draws of one task's pass through a model.

    key: uint32 [2]; None: the step decides. step: int64, the iteration. number: of the pass, where
    a loss sends a task through several times.
    """

    key: tf.Tensor | None
    step: tf.Tensor
    number: int = 0


_DRAWS = contextvars.ContextVar('draws', default=None)


@contextlib.contextmanager
def drawing(draws: Draws) -> Iterator[None]:
    """Lets random layers draw by these while the context lasts: it is training."""
    token = _DRAWS.set(draws)
    try:
        yield
    finally:
        _DRAWS.reset(token)


class RandomLayer(Configured, keras.layers.Layer):
    """A layer that draws at random in training. Subclasses write `drawn`.

    name: the layer's; two layers of a model draw alike if they have the same.
    """

    def __init__(self, name: str, **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        draws = _DRAWS.get()
        return x if draws is None else self.drawn(x, draws)

    def drawn(self, x: tf.Tensor, draws: Draws) -> tf.Tensor:
        """Returns what becomes of x [n, ...] in training."""
        raise NotImplementedError

    def uniform(
        self,
        shape: tf.Tensor | list[int],
        draws: Draws,
        low: float | tf.Tensor = 0.0,
        high: float | tf.Tensor = 1.0,
    ) -> tf.Tensor:
        """Draws float32 in [low, high) of this shape."""
        stream, key = zlib.crc32(self.name.encode()), draws.key
        if key is None:  # A task made by hand: at least each iteration draws anew.
            key = tf.bitcast(draws.step, tf.uint32)
        return uniform(many_bits(key, shape, stream, draws.number), low, high)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape


class Dropout(RandomLayer):
    """Sets entries to zero and scales the others up (Srivastava et al. 2014).

    rate: the share of entries to drop, from 0 to below 1.
    """

    def __init__(self, rate: float, name: str, **kwargs):
        super().__init__(name, **kwargs)
        self.rate = _checked(rate)

    def drawn(self, x: tf.Tensor, draws: Draws) -> tf.Tensor:
        kept = self.uniform(tf.shape(x), draws) >= self.rate
        return tf.where(kept, x / (1 - self.rate), tf.zeros_like(x))


class DropBlock(RandomLayer):
    """Sets squares of each channel's map to zero and scales the rest up (Ghiasi et al. 2018).

    As the authors of MetaOptNet have it: a square begins wherever it fits into the map, with the
    probability rate / size^2 * side^2 / (side - size + 1)^2, and what is left of all maps of a task
    is scaled up to as many entries as there were.

    Args:
      rate: the share of entries to drop, in the end.
      size: side of the squares.
      over: iterations in which the rate rises from 0. The authors count 40,000 passes, of support
        and queries apart; here both are one pass.
    """

    def __init__(self, rate: float, size: int, name: str, over: int = 20_000, **kwargs):
        super().__init__(name, **kwargs)
        self.rate, self.size, self.over = _checked(rate), size, over

    def drawn(self, x: tf.Tensor, draws: Draws) -> tf.Tensor:
        size = min(self.size, *x.shape[1:3])
        height, width = (side - size + 1 for side in x.shape[1:3])
        rate = self.rate * tf.minimum(tf.cast(draws.step, tf.float32) / self.over, 1)
        first = rate / size**2 * (x.shape[1] * x.shape[2]) / (height * width)
        shape = [tf.shape(x)[0], height, width, x.shape[3]]
        begins = tf.cast(self.uniform(shape, draws) < first, x.dtype)
        border = [size - 1, size - 1]
        begins = tf.pad(begins, [[0, 0], border, border, [0, 0]])
        kept = 1 - tf.nn.max_pool2d(begins, size, 1, 'VALID')
        entries = tf.cast(tf.size(kept), x.dtype)
        return x * kept * (entries / tf.maximum(tf.reduce_sum(kept), 1))


def _checked(rate):
    if not 0 <= rate < 1:
        raise ArgumentError('dropout', rate, 'from 0 to below 1')
    return rate
