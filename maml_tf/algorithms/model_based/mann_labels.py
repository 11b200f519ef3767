"""How MANN sees labels and says them: as one one-hot, or as strings of letters."""

import dataclasses

import tensorflow as tf

from maml_tf.episodes.random_bits import PERMUTATION_WORDS, keyed_bits, permuted
from maml_tf.errors import check_one_of

KINDS = ('one_hot', 'strings')
LETTERS, LENGTH = 5, 5  # Letters of the alphabet {a ... e}, and of a string.
STRINGS = LETTERS**LENGTH
# The stream of a task's random bits that decides the strings.
_STREAM = 0x73747267


@dataclasses.dataclass(frozen=True)
class Labels:
    """The code of a class, some one-hots one behind the other, and what outputs say of it.

    Attributes:
      kind: 'one_hot', or 'strings' of five letters that are drawn for each class of a task (Santoro
        et al. 2016, section 4).
      way: the number of classes, where they are one-hot.
    Raises: ArgumentError for another kind.
    """

    kind: str
    way: int

    def __post_init__(self):
        check_one_of('labels', self.kind, KINDS)

    @property
    def fixed_way(self) -> bool:
        """Says whether a code tells so many classes apart and no more."""
        return self.kind == 'one_hot'

    @property
    def parts(self) -> int:
        """Returns how many one-hots make a code."""
        return 1 if self.fixed_way else LENGTH

    @property
    def width(self) -> int:
        """Returns the length of a code."""
        return self.way if self.fixed_way else LENGTH * LETTERS

    def of_classes(
        self, tasks: int | tf.Tensor, way: int | tf.Tensor, key: tf.Tensor | None, dtype: tf.DType
    ) -> tf.Tensor:
        """Returns the code of each class, [tasks, way, width]; key: see task.Task."""
        if not self.fixed_way:
            return label_strings(tasks, way, key, dtype)
        return tf.eye(self.width, batch_shape=[tasks], dtype=dtype)

    def judge(self, codes: tf.Tensor, outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns (cross-entropies, 1 where a prediction is right else 0), each [...].

        codes, outputs: [..., width]. The cross-entropy is the sum over the one-hots of a code, all
          of which a right prediction has right.
        """
        codes, outputs = self._apart(codes), self._apart(outputs)
        losses = -tf.reduce_sum(codes * tf.nn.log_softmax(outputs), axis=(-2, -1))
        right = tf.equal(tf.argmax(outputs, axis=-1), tf.argmax(codes, axis=-1))
        return losses, tf.cast(tf.reduce_all(right, axis=-1), outputs.dtype)

    def by_class(self, outputs: tf.Tensor, codes: tf.Tensor) -> tf.Tensor:
        """Returns logits of the classes, [tasks, n, way], of outputs [tasks, n, width].

        codes: [tasks, way, width]. Of strings they are the log-probabilities of the classes'.
        """
        if self.fixed_way:
            return outputs
        letters = tf.nn.log_softmax(self._apart(outputs))
        return tf.matmul(tf.reshape(letters, tf.shape(outputs)), codes, transpose_b=True)

    def _apart(self, x):
        """[..., width] -> [..., parts, width of one]."""
        return tf.reshape(x, tf.concat([tf.shape(x)[:-1], [self.parts, -1]], 0))


def label_strings(
    tasks: int | tf.Tensor, way: int | tf.Tensor, key: tf.Tensor | None, dtype: tf.DType
) -> tf.Tensor:
    """Draws a string for each class, distinct within a task.

    Args:
      way: at most STRINGS classes.
      key: see task.Task; None: the same strings for all tasks.
    Returns: five one-hots one behind the other, [tasks, way, LENGTH * LETTERS].
    """
    words = keyed_bits(key, PERMUTATION_WORDS, _STREAM)
    words = tf.broadcast_to(words, [tasks, PERMUTATION_WORDS])[:, tf.newaxis]
    places = tf.broadcast_to(tf.range(way), [tasks, way])
    number = permuted(places, STRINGS, words)[..., tf.newaxis]
    letters = number // LETTERS ** tf.range(LENGTH - 1, -1, -1) % LETTERS
    return tf.reshape(tf.one_hot(letters, LETTERS, dtype=dtype), [tasks, way, LENGTH * LETTERS])
