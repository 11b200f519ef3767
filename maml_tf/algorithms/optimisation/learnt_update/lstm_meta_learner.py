"""The LSTM meta-learner (Ravi and Larochelle, "Optimization as a model for few-shot learning", ICLR
2017)."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.algorithms.optimisation.gradient_learner import GradientLearner
from maml_tf.algorithms.optimisation.learnt_update import lstm_optimiser
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.order import minibatches
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import ArgumentError
from maml_tf.inner_loop import stack_over_tasks
from maml_tf.learner import State, shots
from maml_tf.networks import running_statistics
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.networks.network import Network
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.metric import Axis
from maml_tf.objectives.objective import Objective
from maml_tf.ops.shapes import sizes
from maml_tf.training import shares
from maml_tf.training.phases import Loss
from maml_tf.update_rules import Tensors

# (passes, examples of a mini-batch, momentum) of the released settings.
OF_ONE_SHOT, OF_MORE = (12, 5, 0.9), (8, 25, 0.95)
CLIP = 0.25  # The authors'.
# Tasks of about so many coordinates together make a share (training/shares.py): the way back needs
# some 150 numbers of the LSTM for each coordinate and update.
COORDINATES = 2**15


class _Now(NamedTuple):
    """Where the adaptation of some tasks stands.

    weights: [tasks, coordinates], all of the learner's one behind the other.
    statistics: of batch norm, see running_statistics.py; {}: not gathered.
    """

    weights: tf.Tensor
    memory: lstm_optimiser.Memory
    statistics: Tensors


class LSTMMetaLearner(GradientLearner):
    """Lets a learnt LSTM take the inner steps (section 3; see lstm_optimiser.py).

    theta_t = f_t theta_t-1 - i_t grad L(theta_t-1) on mini-batches of the support set, with the
    gates f and i from the LSTM. Then (LSTM, theta_0) <- Adam(grad mean_i L_query(theta_T)), the
    norm of the gradient clipped.

    All weights of the network adapt, those of its normalisations too. Gradients and losses that the
    LSTM reads count as constant in the meta-gradient, which so has no second derivatives. The
    entries of a result are passes through the support set. A mini-batch is drawn from a pool, see
    episodes/order.py; a set that does not divide evenly is gone through a little further.

    Batch norm, as in the released code (twitter-research/meta-learning-lstm): the statistics of the
    batch in training, of support and queries alike. In evaluation queries have the running
    statistics that the support mini-batches of their own episode leave behind, starting from means
    of 0 and variances of 1; so has the entry before adaptation, which has seen none. Where
    `transductive` queries are evaluated by the batch's statistics, too.

    The released code draws the first scales of batch norm from U(0, 1); here they are ones.

    Args: GradientLearner's without inner_lr and inner_steps, and
      passes: through the support set, in training and in evaluation unless told.
      batch: examples of a mini-batch, at most the support set.
      momentum: of the running statistics, what is taken of a batch (Torch's meaning: at 0.95 they
        are almost those of the last mini-batch).
      divide_by_batch: the gradient of the mean loss is divided by the size of the mini-batch once
        more, for the LSTM to read and to step by. The released code does so, the paper does not say
        it. It is the default because the other released settings go with it: the initial gates,
        which set the first rate, and the scale of what the LSTM reads. False: the mean gradient.
      clip: bound of the norm of the whole meta-gradient; None: there is none.
    Raises: ArgumentError for a number out of range, and for a network with batch norm that does not
      tell its statistics.
    """

    heeds = tuple(
        name
        for name in GradientLearner.heeds
        if name not in ('update_lr', 'num_updates', 'test_num_updates', 'clip')
    )
    steps_in_evaluation = None
    ordered = True  # Mini-batches take examples by their place.

    def __init__(
        self,
        network: Network,
        objective: Objective,
        passes: int = OF_MORE[0],
        batch: int = OF_MORE[1],
        momentum: float = OF_MORE[2],
        divide_by_batch: bool = True,
        clip: float | None = CLIP,
        transductive: bool = False,
        **kwargs,
    ):
        for name, value in (('passes', passes), ('batch', batch)):
            if value < 1:
                raise ArgumentError(name, value, 'at least 1')
        if not 0 < momentum <= 1:
            raise ArgumentError('momentum', momentum, 'above 0, at most 1')
        running_statistics.check_tells_statistics(network)
        kwargs |= {'clip': clip, 'transductive': transductive}
        # The rate is given here, so that a caller who gives one is refused.
        super().__init__(network, objective, inner_lr=0.0, inner_steps=passes, **kwargs)
        self.batch, self.momentum, self.divide_by_batch = batch, momentum, divide_by_batch
        random = np.random.default_rng([kwargs.get('seed', 0), 1])
        self.optimiser_weights = {
            name: self.add_weight(
                name=name, shape=value.shape, initializer=self.starting_from(value)
            )
            for name, value in lstm_optimiser.starting_parameters(random).items()
        }

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'LSTMMetaLearner':
        """Returns the learner that the command line describes, with the authors' network."""
        objective = problem.objective
        passes, batch, momentum = OF_ONE_SHOT if problem.training.shot == 1 else OF_MORE
        return cls(
            problem.network(scale=flags.norm == 'batch_norm', head='flatten', start='torch'),
            objective.averaged() if objective.classification else objective,
            passes=flags.lstm_meta_learner_passes or passes,
            batch=flags.lstm_meta_learner_batch or batch,
            momentum=momentum,
            divide_by_batch=flags.lstm_meta_learner_divide_by_batch,
            seed=flags.seed,
            transductive=bool(flags.transductive),
            tasks_at_once=flags.tasks_at_once,
        )

    @classmethod
    def tiny(cls) -> tuple['LSTMMetaLearner', EpisodeSpec]:
        spec = EpisodeSpec(way=3, shot=2, query=2)
        network = FullyConnected(
            (8, 8, 1), spec.way, (32,), 'batch_norm', scale=True, start='torch'
        )
        return cls(network, MeanClassification(), passes=2, batch=3), spec

    @property
    def takes_masks(self) -> bool:
        """Says that tasks of different sizes are not taken: a mini-batch would hold filling."""
        return False

    def adapts(self, name: str) -> bool:
        """Says that every weight adapts."""
        return True

    def axis(self, entries: int) -> Axis:
        return Axis('passes', tuple(range(entries)))

    # The contract.

    def adapt(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        steps: int | None = None,
        mask: tf.Tensor | None = None,
        key: tf.Tensor | None = None,
    ) -> State:
        """Returns the weights, {name: [tasks, ...]}, after so many passes (default: those of
        training); unless `transductive` with the running statistics of batch norm.

        It is a loop in the graph, for the use of what was learnt: no tape sees through it.
        """
        del mask
        steps = self.inner_steps if steps is None else steps
        one_pass = self._passes_of(support_x, support_y, key, steps)
        _, now = tf.while_loop(
            lambda number, _: number < steps,
            lambda number, now: (number + 1, one_pass(now, number)),
            (tf.constant(0), self._start(support_x)),
            maximum_iterations=steps,
        )
        return self._state_of(now)

    def predict_query(self, state: State, query_x: tf.Tensor) -> tf.Tensor:
        """Returns the outputs by the running statistics, or by the queries' if `transductive`."""
        weights, statistics = {}, {}
        for name, value in state.items():
            (statistics if running_statistics.is_statistic(name) else weights)[name] = value
        if not statistics:
            return self.network.forward(query_x, weights)
        return running_statistics.forward_by(self.network, query_x, weights, statistics)

    def query_outputs(self, task: Task, steps: int | None = None) -> tf.Tensor:
        """Returns the outputs before adaptation and after each pass, [steps + 1, tasks, ...]."""
        steps = self.inner_steps if steps is None else steps
        one_pass = self._passes_of(task.support_x, task.support_y, task.key, steps)
        read_out = lambda now: self.predict_query(self._state_of(now), task.query_x)
        start = self._start(task.support_x)
        outputs = tf.TensorArray(start.weights.dtype, size=steps + 1, clear_after_read=False)

        def body(number, now, outputs):
            now = one_pass(now, number)
            return number + 1, now, outputs.write(number + 1, read_out(now))

        *_, outputs = tf.while_loop(
            lambda number, *_: number < steps,
            body,
            (tf.constant(0), start, outputs.write(0, read_out(start))),
            maximum_iterations=steps,
        )
        return outputs.stack()

    def meta_loss(self, task: Task, step: tf.Tensor) -> Loss:
        """Returns the query loss after the passes; logs that of the first mini-batch, too."""
        del step
        now, log = self._start(task.support_x, gather=False), {}
        take, per_pass = self._updates_of(
            task.support_x, task.support_y, task.key, self.inner_steps
        )
        for number in range(self.inner_steps * per_pass):
            now, labels, outputs = take(now, number)
            if not number:
                _, log = self.loss_and_log('pre', labels, outputs, shots(labels))
        outputs = self.network.forward(task.query_x, self._by_name(now.weights))
        loss, after, _ = self.query_loss(task, outputs)
        return Loss(loss, log | after)

    def share(self, tasks: int, spec: EpisodeSpec) -> int:
        coordinates = sum(math.prod(w.shape) for w in self.meta_weights.values())
        at_most = self._tasks_at_once or max(1, COORDINATES // coordinates)
        return shares.share(tasks, spec.way * (spec.shot + spec.query), at_most)

    def clip_gradients(self, gradients: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        """Bounds the norm of all gradients together."""
        return gradients if self.clip is None else tf.clip_by_global_norm(gradients, self.clip)[0]

    # Adaptation.

    def _start(self, support_x: tf.Tensor, gather: bool | None = None) -> _Now:
        """Returns where the adaptation starts from.

        gather: whether to gather the statistics of batch norm; None: where queries need them.
        """
        if gather is None:
            gather = not self.transductive and self.network.norm == 'batch_norm'
        tasks = sizes(support_x)[0]
        weights, _ = self.weights_of_the_network()
        flat = tf.concat([tf.reshape(w, [-1]) for w in weights.values()], 0)
        flat = tf.broadcast_to(flat, [tasks, flat.shape[0]])
        statistics = {}
        if gather:
            statistics = running_statistics.start(stack_over_tasks(weights, tasks))
        return _Now(flat, lstm_optimiser.start(flat), statistics)

    def _by_name(self, flat: tf.Tensor) -> Tensors:
        """Returns {name: [tasks, ...]} of weights [tasks, coordinates]."""
        shapes = {name: tuple(w.shape) for name, w in self.meta_weights.items()}
        parts = tf.split(flat, [math.prod(shape) for shape in shapes.values()], axis=1)
        tasks = sizes(flat)[0]
        return {
            name: tf.reshape(part, [tasks, *shape])
            for (name, shape), part in zip(shapes.items(), parts)
        }

    def _state_of(self, now: _Now) -> State:
        return self._by_name(now.weights) | now.statistics

    def _updates_of(
        self, support_x: tf.Tensor, support_y: tf.Tensor, key: tf.Tensor | None, passes: int
    ) -> tuple[Callable[[_Now, Any], tuple[_Now, tf.Tensor, tf.Tensor]], Any]:
        """Returns (take, updates of a pass).

        take: (now, number of the update) -> (now after it, labels of its mini-batch, outputs for
          these before it).
        """
        tasks, examples, *_ = sizes(support_x)
        known = isinstance(examples, int)
        size = min(self.batch, examples) if known else tf.minimum(self.batch, examples)
        per_pass = -(-examples // size)
        order = minibatches(key, examples, size, max(passes, 1) * per_pass)
        parameters = {
            name: tf.convert_to_tensor(value) for name, value in self.optimiser_weights.items()
        }

        def take(now, number):
            chosen = tf.broadcast_to(order[:, number], [tasks, size])
            x, y = (tf.gather(part, chosen, batch_dims=1) for part in (support_x, support_y))
            # What the LSTM reads is constant for the meta-gradient.
            weights, statistics = tf.stop_gradient(now.weights), now.statistics
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(weights)
                named = self._by_name(weights)
                if statistics:
                    outputs, statistics = running_statistics.forward_and_gather(
                        self.network, x, named, statistics, self.momentum
                    )
                else:
                    outputs = self.network.forward(x, named)
                losses = self.objective.loss(y, outputs, shots(y))
                total = tf.reduce_sum(losses)
            gradients = tape.gradient(total, weights)
            if self.divide_by_batch:
                gradients /= tf.cast(size, gradients.dtype)
            gradients, losses = tf.stop_gradient(gradients), tf.stop_gradient(losses)
            after, memory = lstm_optimiser.step(
                parameters, now.memory, now.weights, gradients, losses
            )
            return _Now(after, memory, statistics), y, outputs

        return take, per_pass

    def _passes_of(
        self, support_x: tf.Tensor, support_y: tf.Tensor, key: tf.Tensor | None, passes: int
    ) -> Callable[[_Now, tf.Tensor], _Now]:
        """Returns (now, number of the pass) -> now after this pass, a loop in the graph."""
        take, per_pass = self._updates_of(support_x, support_y, key, passes)

        def one_pass(now, number):
            _, now = tf.while_loop(
                lambda update, _: update < (number + 1) * per_pass,
                lambda update, now: (update + 1, take(now, update)[0]),
                (number * per_pass, now),
                maximum_iterations=per_pass,
            )
            return now

        return one_pass


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_integer(
        'lstm_meta_learner_passes',
        None,
        'lstm_meta_learner: passes through the support set (default: 12 of 1 shot, else 8)',
        lower_bound=1,
    )
    flags.DEFINE_integer(
        'lstm_meta_learner_batch',
        None,
        'lstm_meta_learner: examples of a mini-batch, at most the support set (default: 5 of 1 '
        'shot, else 25)',
        lower_bound=1,
    )
    flags.DEFINE_bool(
        'lstm_meta_learner_divide_by_batch',
        True,
        'lstm_meta_learner: divide the gradient of the mean loss by the examples of the mini-batch '
        'once more, as the released code does',
    )
