"""Siamese convolutional networks (Koch, Zemel, Salakhutdinov, ICML deep learning workshop 2015)."""

from typing import Any

import keras
import tensorflow as tf

from maml_tf.algorithms.metric.metric_learner import MetricLearner, TrainingPass
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.random_bits import keyed_bits
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import ArgumentError, UserError
from maml_tf.learner import State
from maml_tf.networks.encoders import conv4
from maml_tf.objectives.pairs import SamePairs
from maml_tf.ops import affine
from maml_tf.ops.shapes import sizes
from maml_tf.training.phases import Loss

DISTANCES = ('l1', 'l2', 'cosine')
NETWORKS = ('koch', 'small')
KOCH_SIDE = 105
# The last convolution of the twins has nothing to see in smaller images.
SMALLEST_KOCH_SIDE = 65
# The stream of a task's random bits that decides the distortions.
_DISTORT = 0x64697374


def koch(
    input_shape: tuple[int, int, int],
    filters: tuple[int, ...] = (64, 128, 128, 256),
    features: int = 4096,
) -> keras.Model:
    """Builds the twin of section 3.1: four convolutions without padding, three poolings, a sigmoid
    layer of `features`.

    Raises: ArgumentError where the images are too small.
    """
    if min(input_shape[:2]) < SMALLEST_KOCH_SIDE:
        raise ArgumentError(
            'siamese_network',
            'koch',
            f'needs images of at least {SMALLEST_KOCH_SIDE}x{SMALLEST_KOCH_SIDE}, best an '
            f'image_size of {KOCH_SIDE}; these have {input_shape[0]}x{input_shape[1]}',
        )
    normal = keras.initializers.RandomNormal
    layers = [keras.Input(input_shape)]
    for number, (size, count) in enumerate(zip((10, 7, 4, 4), filters), start=1):
        layers += [
            keras.layers.Conv2D(
                count,
                size,
                activation='relu',
                kernel_initializer=normal(0.0, 0.01),
                bias_initializer=normal(0.5, 0.01),
                name=f'conv{number}',
            )
        ]
        layers += [keras.layers.MaxPooling2D(2)] * (number < 4)
    layers += [
        keras.layers.Flatten(),
        keras.layers.Dense(
            features,
            'sigmoid',
            kernel_initializer=normal(0.0, 0.2),
            bias_initializer=normal(0.5, 0.01),
            name='fc1',
        ),
    ]
    return keras.Sequential(layers, name='encoder')


class Siamese(MetricLearner):
    """Tells by twin networks whether two images are of one class; a query's class is that of its
    best match in the support.

    The probability of "same" is sigmoid(sum_j w_j t_j + b), t the component-wise distance of the
    two embeddings. Training minimises binary cross-entropy over pairs, as many of one class as of
    two: see `meta_loss`. Outputs are the logits of each class's best match; a class without support
    has the lowest.

    Koch trained by SGD with momentum, its rates and the weights of the penalty searched layer by
    layer; here it is the package's Adam. His network has no batch norm; that of the small one uses
    running averages in evaluation.

    His evaluation, 20 ways within one alphabet, draws the query and the support from two drawers
    (Lake et al. 2015). TensorFlow Datasets does not tell who drew what, so that here both may be by
    one drawer.

    Args:
      encoder, transductive: see MetricLearner; features are flat.
      distance: t, one of DISTANCES: |a - b|, (a - b)^2, or a b / (|a| |b|), whose sum is the
        cosine.
      l2: weight of the squared kernels in the loss: one for all layers, or one for each, the last
        of them w.
      distort: affine distortions of the training images, which bring in `background` from outside.
    Raises: ArgumentError where `l2` does not go with the layers, or has a negative number.
    """

    def __init__(
        self,
        encoder: keras.Model,
        distance: str = 'l1',
        l2: tuple[float, ...] = (0.0,),
        distort: bool = True,
        background: float = 0.0,
        **kwargs,
    ):
        super().__init__(encoder, SamePairs(), **kwargs)
        self.distance, self.distort, self.background = distance, distort, background
        normal = keras.initializers.RandomNormal
        self.kernel = self.add_weight(
            shape=encoder.output_shape[1:], initializer=normal(0.0, 0.2), name='similarity_kernel'
        )
        self.bias = self.add_weight(shape=(), initializer=normal(0.5, 0.01), name='similarity_bias')
        layers = len(self._kernels())
        if len(l2) not in (1, layers):
            reason = f'{len(l2)} numbers; one for all layers, or one for each of the {layers}'
            raise ArgumentError('l2', None, reason)
        if not all(0 <= weight < float('inf') for weight in l2):
            raise ArgumentError('l2', ','.join(map(str, l2)), 'finite numbers from 0 up')
        self.l2 = tuple(l2) if len(l2) > 1 else tuple(l2) * layers

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'Siamese':
        """Returns the learner that the command line describes. Raises UserError in regression."""
        cls.objective_of(flags, problem)
        shape = problem.input_shape
        kind = flags.siamese_network or ('koch' if min(shape[:2]) >= KOCH_SIDE else 'small')
        encoder = koch(shape) if kind == 'koch' else conv4(shape, flags.num_filters)
        return cls(
            encoder,
            flags.siamese_distance,
            _numbers(flags.siamese_l2),
            flags.siamese_distort,
            background=problem.background,
            transductive=bool(flags.transductive),
        )

    @classmethod
    def check_flags(cls, flags: Any) -> None:
        of_koch = flags.siamese_network == 'koch'
        if of_koch and flags.num_filters != flags['num_filters'].default:
            raise UserError(
                f'--num_filters={flags.num_filters}: means nothing with --siamese_network=koch'
            )

    @classmethod
    def tiny(cls) -> tuple['Siamese', EpisodeSpec]:
        return cls(conv4((16, 16, 1), 8)), EpisodeSpec(way=3, shot=2, query=2)

    def _kernels(self):
        return [v for v in self.encoder.trainable_variables if v.name == 'kernel'] + [self.kernel]

    def summarise(self, support: tf.Tensor, support_y: tf.Tensor) -> State:
        """Returns {'support': [tasks, support, features], 'labels': [tasks, support, way]}."""
        return {'support': support, 'labels': support_y}

    def compare(self, state: State, query: tf.Tensor) -> tf.Tensor:
        same = self._same(state, query)[..., tf.newaxis]
        of_class = tf.where(state['labels'][:, tf.newaxis] > 0, same, same.dtype.min)
        return tf.reduce_max(of_class, axis=2)

    def resemblance(self, state: State, query_x: tf.Tensor) -> tf.Tensor:
        """Returns the probabilities of "same", [tasks, queries, support]."""
        return tf.sigmoid(self._same(state, self.embed(query_x)))

    def _same(self, state, query):
        """Logits of "same", [tasks, queries, support]."""
        # One support example after another: all components of all pairs at once would not fit into
        # memory.
        logits = tf.map_fn(
            lambda support: self.logits(query, support[:, tf.newaxis]),
            tf.transpose(state['support'], [1, 0, 2]),
            fn_output_signature=query.dtype,
        )
        return tf.ensure_shape(
            tf.transpose(logits, [1, 2, 0]), [*query.shape[:2], state['support'].shape[1]]
        )

    def logits(self, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        """Returns logits of "same" [...] for embeddings [..., features] of two images."""
        if self.distance == 'cosine':
            components = tf.math.l2_normalize(first, -1) * tf.math.l2_normalize(second, -1)
        else:
            components = {'l1': tf.abs, 'l2': tf.square}[self.distance](first - second)
        return tf.tensordot(components, tf.convert_to_tensor(self.kernel), 1) + self.bias

    def meta_loss(self, task: Task, step: tf.Tensor) -> Loss:
        """Returns the mean binary cross-entropy over `pairs`, of the first support and the first
        query image of each class.

        So a task of n ways gives n pairs of one class and n of two, of 2 n images, each distorted
        once: a minibatch of 128 pairs (Koch's, as quoted) is one task of 64 ways. The accuracy in
        the log is that of the pairs, the loss is without the penalty. The task's key decides how
        its images are distorted.
        """
        training = TrainingPass(self, task.key, step)
        images = tf.concat(
            [
                _first_of_each(task.support_x, task.support_y),
                _first_of_each(task.query_x, task.query_y),
            ],
            1,
        )
        if self.distort:
            images = self._distorted(task, images)
        present = tf.reduce_max(task.support_y, 1) * tf.reduce_max(task.query_y, 1)
        mask = None if task.support_mask is None else tf.tile(present, [1, 2])
        first, second, same = pairs(
            *tf.split(self.embed(images, mask, training), 2, axis=1), present
        )
        logits, counts = self.logits(first, second), tf.tile(present, [1, 2])
        losses = tf.nn.sigmoid_cross_entropy_with_logits(same, logits)
        right = tf.cast(tf.equal(logits > 0, same > 0), counts.dtype)
        mean = lambda values: tf.reduce_mean(
            tf.reduce_sum(values * counts, 1) / tf.reduce_sum(counts, 1)
        )
        loss = mean(losses)
        penalty = sum(
            weight * tf.reduce_sum(tf.square(kernel))
            for weight, kernel in zip(self.l2, self._kernels())
            if weight
        )
        log = {'post_loss': loss, 'post_accuracy': mean(right)}
        return Loss(loss + penalty, log, training.state())

    def _distorted(self, task: Task, images: tf.Tensor) -> tf.Tensor:
        """Distorts each image [tasks, n, h, w, c] by itself."""
        tasks, n, *image = sizes(images)
        bits = tf.broadcast_to(
            keyed_bits(task.key, n * affine.WORDS, _DISTORT), [tasks, n * affine.WORDS]
        )
        parts = affine.components(tf.reshape(bits, [-1, affine.WORDS]))
        flat = tf.reshape(images, [tasks * n, *image])
        return tf.reshape(affine.distort(flat, parts, self.background), [tasks, n, *image])


def _first_of_each(x, y):
    """[tasks, n, ...], one-hot [tasks, n, way] -> the first of each class, [tasks, way, ...]."""
    return tf.gather(x, tf.argmax(y, axis=1), batch_dims=1)


def pairs(
    first: tf.Tensor, second: tf.Tensor, present: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Makes pairs of two examples of each class: (the one of each pair, the other, 1 if they are
    of one class else 0).

    Each class's `first` is paired with its own `second`, then with that of the next class; after
    the last comes the first. Classes of a task are drawn in random order, so that every two are as
    likely to meet.

    Args:
      first, second: [tasks, way, features].
      present: [tasks, way], 1 for the classes of a task, which come before those that it has not.
    Returns: [tasks, 2 * way, features] twice, [tasks, 2 * way].
    """
    following = tf.range(1, tf.shape(present)[1] + 1)
    ways = tf.cast(tf.reduce_sum(present, 1, keepdims=True), tf.int32)
    others = tf.gather(second, tf.where(following < ways, following, 0), batch_dims=1)
    same = tf.concat([tf.ones_like(present), tf.zeros_like(present)], 1)
    return tf.concat([first, first], 1), tf.concat([second, others], 1), same


def _numbers(text):
    """'.1,.2' -> (.1, .2)"""
    try:
        return tuple(float(part) for part in text.split(','))
    except ValueError:
        raise ArgumentError('l2', text, 'numbers with commas between them') from None


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_enum(
        'siamese_network',
        None,
        NETWORKS,
        "siamese: koch, the paper's of 39 million weights, or small, "
        f'four blocks of --num_filters (default: koch for images of {KOCH_SIDE}x{KOCH_SIDE}, else '
        'small)',
    )
    flags.DEFINE_enum(
        'siamese_distance', 'l1', DISTANCES, 'siamese: component-wise distance of two embeddings'
    )
    flags.DEFINE_string(
        'siamese_l2',
        '0',
        'siamese: weight of the squared kernels in the loss; one number for all '
        'layers, or one for each with commas between them',
    )
    flags.DEFINE_bool(
        'siamese_distort', True, 'siamese: distort training images by random affine transformations'
    )
