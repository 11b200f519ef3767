"""Relation Network (Sung, Yang, Zhang, Xiang, Torr, Hospedales, CVPR 2018, arXiv 1711.06025)."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from maml_tf.algorithms.metric.metric_learner import MetricLearner, TrainingPass
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import ArgumentError
from maml_tf.learner import State
from maml_tf.networks.encoders import BatchNorm, conv_block
from maml_tf.objectives.pairs import RelationScores
from maml_tf.training.phases import Loss

CLIP = 0.5
# Smaller ones leave the relation module's two poolings nothing.
SMALLEST_SIDE = 22
# From this side on the encoder's maps survive two more convolutions without padding.
UNPADDED_MAPS = 10


def _kernel(filters):
    """The authors' N(0, sqrt(2 / (k * k * filters))) of a 3x3 convolution."""
    return keras.initializers.RandomNormal(stddev=(2 / (9 * filters)) ** 0.5)


def _linear(name, units, activation=None):
    return keras.layers.Dense(
        units,
        activation,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer='ones',
        name=name,
    )


def encoder(input_shape: tuple[int, ...], filters: int = 64) -> keras.Model:
    """Two blocks without padding and with 2x2 pooling, two padded without: maps of 5x5 from 28x28,
    19x19 from 84x84."""
    layers = [keras.Input(input_shape)]
    for number, fan_in in enumerate([input_shape[-1]] + [filters] * 3, start=1):
        pooled = number < 3
        layers += conv_block(
            number, filters, fan_in, 'valid' if pooled else 'same', pooled, _kernel(filters)
        )
    return keras.Sequential(layers, name='encoder')


def relation_module(input_shape: tuple[int, ...], padding: str) -> keras.Model:
    """What follows the pairs' first convolution: its normalisation, the second block, 8 units, one
    logit."""
    filters = input_shape[-1]
    return keras.Sequential(
        [
            keras.Input(input_shape),
            BatchNorm(name='norm5'),
            keras.layers.MaxPooling2D(2),
            keras.layers.ReLU(),
            *conv_block(6, filters, filters, padding, kernel_initializer=_kernel(filters)),
            keras.layers.Flatten(),
            _linear('fc1', 8, 'relu'),
            _linear('fc2', 1),
        ],
        name='relation_module',
    )


class PairConvolution(keras.layers.Layer):
    """A 3x3 convolution of every class map and query map, concatenated along their channels, the
    class's first.

    A convolution is linear in its channels: the two halves of the kernel are applied to each map
    once, and every pair is a sum of two results.
    """

    def __init__(self, channels: int, filters: int, padding: str, name: str):
        super().__init__(name=name)
        self.padding = padding
        self.kernel = self.add_weight(
            (3, 3, 2 * channels, filters), _kernel(filters), name='kernel'
        )
        self.bias = self.add_weight((filters,), 'zeros', name='bias')
        self.built = True

    def call(self, class_maps: tf.Tensor, query_maps: tf.Tensor) -> tf.Tensor:
        """[tasks, way, h, w, c], [tasks, queries, h, w, c] -> [tasks, queries, way, h', w',
        filters]."""
        halves = tf.split(tf.convert_to_tensor(self.kernel), 2, axis=2)
        classes, queries = (
            self._convolved(*pair) for pair in zip((class_maps, query_maps), halves)
        )
        return queries[:, :, None] + classes[:, None] + self.bias

    def _convolved(self, maps, kernel):
        out = tf.nn.conv2d(tf.reshape(maps, [-1, *maps.shape[2:]]), kernel, 1, self.padding.upper())
        return tf.reshape(out, tf.concat([tf.shape(maps)[:2], out.shape[1:]], 0))


class Relation(MetricLearner):
    """Relation Network: r = g(sum of the class's support maps, the query's map), a learned score
    from 0 to 1.

    Minimises the squared error between the scores and the one-hot labels. Outputs are the scores'
    logits; classes without support have the lowest. As in the authors' code the support images, the
    query images and the pairs are each normalised by their own statistics, in training and (they
    never call eval mode) at test: a prediction depends on the other queries. Their code normalises
    15 queries per class in several balanced batches on miniImageNet, this one all queries of a task
    together.

    Args:
      input_shape: (height, width, channels) of the images.
      filters: of all convolutions.
      transductive: False: running averages instead at test. The authors' momentum, 1 in PyTorch's
        terms, makes the last batch the average; here it is .1, BatchNorm's .9.
    Raises: ArgumentError where the images are too small.
    """

    def __init__(
        self, input_shape: tuple[int, ...], filters: int = 64, transductive: bool = True, **kwargs
    ):
        if min(input_shape[:2]) < SMALLEST_SIDE:
            raise ArgumentError(
                'image_size',
                min(input_shape[:2]),
                f'the Relation Network needs images of at least {SMALLEST_SIDE}x{SMALLEST_SIDE}',
            )
        super().__init__(encoder(input_shape, filters), RelationScores(), transductive, **kwargs)
        sides = self.encoder.output_shape[1:3]
        padding = 'valid' if min(sides) >= UNPADDED_MAPS else 'same'
        self.pair_convolution = PairConvolution(filters, filters, padding, 'conv5')
        self.relation = relation_module(
            (*(side - 2 * (padding == 'valid') for side in sides), filters), padding
        )

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'Relation':
        """Returns the learner that the command line describes. Raises UserError in regression."""
        cls.objective_of(flags, problem)
        transductive = flags.transductive is not False
        return cls(problem.input_shape, flags.num_filters, transductive=transductive)

    @classmethod
    def tiny(cls) -> tuple['Relation', EpisodeSpec]:
        learner = cls((SMALLEST_SIDE, SMALLEST_SIDE, 1), filters=8)
        return learner, EpisodeSpec(way=3, shot=2, query=2)

    def summarise(self, support: tf.Tensor, support_y: tf.Tensor) -> State:
        """Returns {'class_maps': sums [tasks, way, h, w, c], 'present': [tasks, way]}.

        support: maps [tasks, support, h, w, c].
        """
        return {
            'class_maps': tf.einsum('tsw,tsijc->twijc', support_y, support),
            'present': tf.reduce_max(support_y, axis=1),
        }

    def compare(
        self,
        state: State,
        query: tf.Tensor,
        mask: tf.Tensor | None = None,
        training: TrainingPass | None = None,
    ) -> tf.Tensor:
        """Returns logits [tasks, queries, way] of maps [tasks, queries, h, w, c].

        Args: as of `apply`, and
          mask: the task's query_mask: batch norm then sees only pairs of a query that counts and a
            class with support.
        """
        pairs = self.pair_convolution(state['class_maps'], query)
        present = state['present'][:, None]
        shape, maps = tf.shape(pairs), pairs.shape[3:]
        if mask is not None:
            mask = tf.reshape(mask[..., None] * present, [shape[0], -1])
        pairs = tf.reshape(pairs, [shape[0], shape[1] * shape[2], *maps])
        logits = tf.reshape(self.apply(self.relation, pairs, mask, training), shape[:3])
        return tf.where(present > 0, logits, logits.dtype.min)

    def query_outputs(self, task: Task, steps: int | None = None) -> tf.Tensor:
        del steps
        return self._outputs(task)[tf.newaxis]

    def meta_loss(self, task: Task, step: tf.Tensor) -> Loss:
        """Returns the mean squared error of the scores, with batch norm in training mode."""
        training = TrainingPass(self, task.key, step)
        return self.query_loss(task, self._outputs(task, training), training.state())

    def _outputs(self, task, training=None):
        support = self.embed(task.support_x, task.support_mask, training)
        query = self.embed(task.query_x, task.query_mask, training)
        state = self.summarise(support, task.support_y)
        return self.compare(state, query, task.query_mask, training)

    def clip_gradients(self, gradients: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        """Bounds the encoder's gradients and the relation module's, each to a norm of .5."""
        names = [variable.path for variable in self.encoder.trainable_variables]
        of_encoder = [variable.path in names for variable in self.trainable_variables]
        clipped = {}
        for part in (True, False):
            own = [g for g, of_part in zip(gradients, of_encoder) if of_part == part]
            clipped[part] = iter(tf.clip_by_global_norm(own, CLIP)[0])
        return [next(clipped[part]) for part in of_encoder]
