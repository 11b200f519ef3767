"""The decoder that knows the code and takes every channel for white noise."""

import tensorflow as tf

from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import ArgumentError
from maml_tf.learner import Learner, State
from maml_tf.objectives.bits import Bits
from maml_tf.ops.codes import convolutional
from maml_tf.training.phases import OuterLoop, Phase

# No deviation is below it: the logits of words without noise stay finite.
LEAST_DEVIATION = 1e-3


class Viterbi(Learner):
    """Decodes each word as the message whose word is nearest (Viterbi 1967).

    Where the channel is white Gaussian noise (`--channel=awgn`), no decoder has more words right
    on average. Of bursts, noise with memory and echoes it knows nothing, so there a learner may be
    better (Li et al. 2021). The support set says how strong the noise is, and so how sure the
    logits are. With `pilots` it also says what the channel multiplies the two symbols of a bit by
    (`--channel=fading`), by least squares; else it changes no decision. Nothing is trained: the one
    iteration of its training, which scores a meta-batch, is there to write a checkpoint.

    Args:
      length: bits of a message.
      pilots: the gains are not known to be 1, and the support set tells them.
    """

    heeds = ()
    takes_masks = True

    def __init__(self, length: int = 10, pilots: bool = False, **kwargs):
        super().__init__(Bits(), **kwargs)
        self.length, self.pilots = length, pilots

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'Viterbi':
        """Returns the learner that the command line describes.

        Raises: ArgumentError for another data source, which has no code.
        """
        if flags.datasource != 'channel_coding':
            reason = f'{flags.algorithm} knows the code of --datasource=channel_coding'
            raise ArgumentError('datasource', flags.datasource, reason)
        return cls(problem.output_dim, flags.viterbi_pilots)

    @classmethod
    def tiny(cls) -> tuple['Viterbi', EpisodeSpec]:
        return cls(pilots=True), EpisodeSpec(way=1, shot=3, query=4)

    @property
    def example_shape(self) -> tuple[int, ...]:
        return (self.length * convolutional.RATE,)

    def adapt(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        steps: int | None = None,
        mask: tf.Tensor | None = None,
        key: tf.Tensor | None = None,
    ) -> State:
        """Returns 'gain' [tasks, 2], and 'deviation' [tasks]: how far, in the square mean, the
        symbols of the support set are from what was sent."""
        del steps, key
        bits = tf.cast(support_y > 0.5, tf.int32)
        sent = tf.cast(convolutional.modulate(convolutional.encode(bits)), support_x.dtype)
        received = self._symbols(support_x)
        mask = tf.ones_like(support_x[..., 0]) if mask is None else mask

        def mean(values):  # of the words that count, [tasks, 2]
            total = tf.reduce_sum(mask[..., tf.newaxis] * tf.reduce_mean(values, 2), 1)
            return total / tf.reduce_sum(mask, 1, keepdims=True)

        # The symbols' squares are 1, so least squares is a mean.
        gain = mean(received * sent)
        gain = gain if self.pilots else tf.ones_like(gain)
        errors = tf.square(received - gain[:, tf.newaxis, tf.newaxis] * sent)
        deviation = tf.sqrt(tf.reduce_mean(mean(errors), -1))
        return {'gain': gain, 'deviation': tf.maximum(deviation, LEAST_DEVIATION)}

    def predict_query(self, state: State, query_x: tf.Tensor) -> tf.Tensor:
        """Returns the logits [tasks, query, length] of the bits."""
        variance = tf.square(state['deviation'])[:, tf.newaxis, tf.newaxis]
        gain = state['gain'][:, tf.newaxis]
        return convolutional.decode(self._symbols(query_x), gain) / (2 * variance)

    def _symbols(self, x):
        """[tasks, words, 2 * length] -> [tasks, words, length, 2]"""
        shape = [self.length, convolutional.RATE]
        return tf.reshape(x, tf.concat([tf.shape(x)[:2], shape], 0))

    def phases(self, outer: OuterLoop) -> list[Phase]:
        """Returns a phase of one iteration that changes nothing."""
        iterations = min(outer.metatrain_iterations, 1)
        return [Phase('start', iterations, None, None, outer.spec, op=self._scored)]

    def _scored(self, task: Task, step: tf.Tensor) -> dict[str, tf.Tensor]:
        del step
        return self.query_loss(task, self.query_outputs(task)[-1]).log


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_bool(
        'viterbi_pilots',
        False,
        'viterbi: by the support set, estimate what the channel multiplies the two symbols of a '
        'bit by',
    )
