"""Meta Networks (Munkhdalai and Yu, ICML 2017, arXiv 1703.00837)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from maml_tf.algorithms.model_based.fast_weights import (
    CONVOLUTION,
    LINEAR,
    attend,
    augmented,
    generate,
    of_task,
    read_from,
)
from maml_tf.algorithms.model_based.support_gradients import of_chunks, of_each_example
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import ArgumentError
from maml_tf.learner import Learner, State
from maml_tf.networks.image_encoders.shared_blocks import SharedBlocks
from maml_tf.networks.sequence_models.weight_generators import (
    PointwiseGenerator,
    RecurrentGenerator,
)
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.objective import Objective
from maml_tf.ops.shapes import sizes
from maml_tf.training import shares
from maml_tf.training.phases import Loss

BLOCKS = 5  # of convolution, in the paper's networks
CHUNKS = 5
CLIP = 10.0
SCALE = 0.1  # of the generators' last layers as they start
# The names of a state's tensors begin with one of these.
_EMBEDDING, _MEMORY = 'embedding_', 'memory_'


class _Inputs(NamedTuple):
    """What the layers with fast weights see of images: in the base learner, in the embedding."""

    base: tf.Tensor
    embedding: tf.Tensor


class MetaNetworks(Learner):
    """Makes fast weights of gradients, and reads those of each query out of a memory.

    A base learner b and an embedding u have slow weights W and Q, which are learnt, and beside them
    fast ones, which two generators d and m make of gradients:

        Q*   = d({grad_Q L_u(chunk_j)}_j)        an LSTM over chunks of the support set
        W*_i = m(grad_W L_b(x_i, y_i))           a perceptron, for each support example
        r_i  = u(x_i; Q, Q*)                     the key of a support example
        a    = softmax_i cos(u(x; Q, Q*), r_i)   of a query x
        W*   = sum_i a_i W*_i,  y = b(x; W, W*)

    Each layer adds up both paths, see fast_weights.py. The generators work entry by entry, with
    weights of their own for convolutions and for linear layers, see weight_generators.py. The
    losses are cross-entropies by the slow weights alone, and the gradients that a generator reads
    are constants. So the loss of the queries, which W, Q, d and m are trained by, is differentiated
    once. It is a sum over the queries, and the norm of its gradient is clipped.

    Where the paper leaves a choice it is that of the released code (tsendeemts/metanet). A key is
    the sum of both paths of u's last layer, without a ReLU. L_u is by a softmax layer upon the ReLU
    of the key, for one shot, too. This layer is part of no prediction, its gradient is zero, and so
    it stays as it starts. An odd last row or column is pooled by itself, so that five blocks make
    one pixel of 28x28. Weights start from LeCun's normal distribution.

    The chunks are of equal size, or differ by one, and are drawn by the task's key; so the place of
    an example in the support set matters. There are no more than examples.

    Here the last layers of the generators start smaller (SCALE). Their entries would else be larger
    than slow weights, and a convolution adds up hundreds of them.

    Args:
      input_shape: of one example: (height, width, channels), or (features,) without convolutions.
      way: classes of a task, in training and in evaluation.
      filters: of each convolution with fast weights.
      hidden: units of each linear layer but the base learner's last; the last of these is the size
        of a key.
      shared: filters of ordinary blocks before, with batch norm, which all tasks share; the base
        learner and the embedding have each their own.
      chunks: of the support set, at most.
      clip: bound of the norm of the whole meta-gradient; None: there is none.
    Raises: ArgumentError for a number or a shape that cannot be.
    """

    fixed_way = True
    ordered = True  # Chunks take examples by their place.
    heeds = (*Learner.heeds, 'num_filters')

    def __init__(
        self,
        input_shape: tuple[int, ...],
        way: int,
        objective: Objective,
        filters: tuple[int, ...] = (64,) * BLOCKS,
        hidden: tuple[int, ...] = (64,),
        shared: tuple[int, ...] = (),
        chunks: int = CHUNKS,
        clip: float | None = CLIP,
        **kwargs,
    ):
        super().__init__(objective, **kwargs)
        _check(input_shape, way, filters, hidden, shared, chunks)
        self.way, self.chunks, self.clip = way, chunks, clip
        self._example_shape = tuple(input_shape)
        self.shared = [
            SharedBlocks(input_shape[-1], shared, name=f'{part}_shared', dtype=self.dtype)
            for part in (('base', 'embedding') if shared else ())
        ]
        shapes = _shapes(_after(input_shape, shared), filters, hidden)
        self.embedding = self._start('embedding', shapes)
        self.head = self._weight('embedding_head', (hidden[-1], way), trainable=False)
        output = {f'{LINEAR}{len(hidden) + 1}': (hidden[-1], way)}
        self.base = self._start('base', shapes | output)
        # {what the names of their weights begin with: generator}
        kinds = (CONVOLUTION, LINEAR) if filters else (LINEAR,)
        made = {'scale': SCALE, 'dtype': self.dtype}
        self.of_tasks = {kind: RecurrentGenerator(f'of_tasks_{kind}', **made) for kind in kinds}
        self.of_examples = {
            kind: PointwiseGenerator(f'of_examples_{kind}', **made) for kind in kinds
        }

    def _start(self, part, shapes):
        return {name: self._weight(f'{part}_{name}', shape) for name, shape in shapes.items()}

    def _weight(self, name, shape, trainable=True):
        return self.add_weight(
            name=name, shape=shape, initializer='lecun_normal', trainable=trainable
        )

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'MetaNetworks':
        """Returns the learner that the command line describes. Raises UserError in regression."""
        if not problem.objective.classification:
            reason = 'MetaNetworks compares images of classes, and this source is regression'
            raise ArgumentError('datasource', flags.datasource, reason)
        ordinary = BLOCKS - flags.meta_networks_augmented
        shape = _after(problem.input_shape, (flags.num_filters,) * BLOCKS)
        return cls(
            problem.input_shape,
            problem.output_dim,
            MeanClassification(),
            (flags.num_filters,) * flags.meta_networks_augmented,
            (math.prod(shape),),
            (flags.num_filters,) * ordinary,
            flags.meta_networks_chunks,
        )

    @classmethod
    def tiny(cls) -> tuple['MetaNetworks', EpisodeSpec]:
        spec = EpisodeSpec(way=3, shot=2, query=2)
        return cls((8, 8, 1), spec.way, MeanClassification(), (8, 8), (16,), chunks=4), spec

    @property
    def example_shape(self) -> tuple[int, ...]:
        return self._example_shape

    # The contract.

    def adapt(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        steps: int | None = None,
        mask: tf.Tensor | None = None,
        key: tf.Tensor | None = None,
    ) -> State:
        """Returns Q* by its names, the memory of W*_i by its names, and 'keys'; see the class.

        'embedding_conv1' ...: [tasks, ...]. 'memory_conv1' ...: [tasks, support, ...].
        'keys': [tasks, support, size].
        """
        del steps, mask
        inputs, _ = self._inputs(support_x)
        return self._adapted(inputs, support_y, key)

    def predict_query(self, state: State, query_x: tf.Tensor) -> tf.Tensor:
        inputs, _ = self._inputs(query_x)
        return self._predicted(state, inputs)

    def meta_loss(self, task: Task, step: tf.Tensor) -> Loss:
        """Returns the sum over the queries, of their mean over the tasks; logs that of one."""
        del step
        averages = [[v.value for v in part.averages] for part in self.shared]
        support, averages = self._inputs(task.support_x, averages)
        queries, averages = self._inputs(task.query_x, averages)
        outputs = self._predicted(self._adapted(support, task.support_y, task.key), queries)
        names = dict(zip(map(id, self.variables), self.named_variables()))
        moved = {
            names[id(variable)]: value
            for part, values in zip(self.shared, averages)
            for variable, value in zip(part.averages, values)
        }
        loss = self.query_loss(task, outputs, moved)
        count = tf.cast(tf.shape(outputs)[1], loss.value.dtype)
        return loss._replace(value=loss.value * count)

    def share(self, tasks: int, spec: EpisodeSpec) -> int:
        return shares.share(tasks, spec.way * (spec.shot + spec.query))

    def clip_gradients(self, gradients: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        """Bounds the norm of all gradients together."""
        return gradients if self.clip is None else tf.clip_by_global_norm(gradients, self.clip)[0]

    # How it comes about.

    def _inputs(self, x, averages=None):
        """Returns (_Inputs of images, the running averages that they leave behind)."""
        if not self.shared:
            return _Inputs(x, x), []
        both = [part(x, values) for part, values in zip(self.shared, averages or [None] * 2)]
        features, moved = zip(*both)
        return _Inputs(*features), moved

    def _adapted(self, inputs, labels, key):
        fast = self._of_task(inputs.embedding, labels, key)
        memory = self._of_each_example(inputs.base, labels)
        return {
            **{_EMBEDDING + name: value for name, value in fast.items()},
            **{_MEMORY + name: value for name, value in memory.items()},
            'keys': augmented(inputs.embedding, _values(self.embedding), of_task(fast)),
        }

    def _predicted(self, state, inputs):
        fast, memory = (
            {name.removeprefix(part): v for name, v in state.items() if name.startswith(part)}
            for part in (_EMBEDDING, _MEMORY)
        )
        key = augmented(inputs.embedding, _values(self.embedding), of_task(fast))
        attention = attend(key, state['keys'])
        return augmented(inputs.base, _values(self.base), read_from(memory, attention))

    def _of_task(self, x, labels, key):
        """Returns Q*, {name: [tasks, ...]}."""
        slow = _values(self.embedding)
        gradients, there = of_chunks(x, labels, slow, self.head.value, key, self.chunks)
        read = lambda generator: lambda gradients: generator(gradients, there)
        return generate(gradients, {k: read(g) for k, g in self.of_tasks.items()}, axes=2)

    def _of_each_example(self, x, labels):
        """Returns the memory of W*_i, {name: [tasks, support, ...]}."""
        tasks, examples, *_ = sizes(x)
        gradients = of_each_example(x, labels, _values(self.base))
        memory = generate(gradients, self.of_examples, axes=1)
        return {
            name: tf.reshape(value, [tasks, examples, *value.shape[1:]])
            for name, value in memory.items()
        }


def _values(variables):
    return {name: variable.value for name, variable in variables.items()}


def _after(shape, blocks):
    """Returns the shape of an image after blocks of these filters, each of which halves it."""
    for filters in blocks:
        shape = (*(-(-side // 2) for side in shape[:2]), filters)
    return tuple(shape)


def _shapes(shape, filters, hidden):
    """Returns {name: shape} of weights behind an input of this shape."""
    shapes = {}
    for number, size in enumerate(filters, start=1):
        shapes[f'{CONVOLUTION}{number}'] = (3, 3, shape[-1], size)
        shape = _after(shape, (size,))
    enter = math.prod(shape)
    for number, size in enumerate(hidden, start=1):
        shapes[f'{LINEAR}{number}'] = (enter, size)
        enter = size
    return shapes


def _check(input_shape, way, filters, hidden, shared, chunks):
    for name, value in (('way', way), ('chunks', chunks)):
        if value < 1:
            raise ArgumentError(name, value, 'at least 1')
    for name, values in (('filters', filters), ('hidden', hidden), ('shared', shared)):
        if any(value < 1 for value in values):
            raise ArgumentError(name, values, 'each at least 1')
    if not hidden:
        raise ArgumentError('hidden', hidden, 'at least one layer, whose size is that of a key')
    if (filters or shared) and len(input_shape) != 3:
        reason = 'convolutions take (height, width, channels)'
        raise ArgumentError('input_shape', input_shape, reason)


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_integer(
        'meta_networks_augmented',
        BLOCKS,
        f'meta_networks: how many of the {BLOCKS} convolutions, the last ones, have fast weights; '
        'the others are ordinary ones with batch norm (the paper: 5 for omniglot, 2 for '
        'miniimagenet)',
        lower_bound=0,
        upper_bound=BLOCKS,
    )
    flags.DEFINE_integer(
        'meta_networks_chunks',
        CHUNKS,
        'meta_networks: chunks that the support set is divided into, at most, whose gradients make '
        'the fast weights of the embedding',
        lower_bound=1,
    )
