"""Reptile (Nichol, Achiam, Schulman 2018, arXiv 1803.02999)."""

from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from maml_tf.algorithms.optimisation.gradient_learner import GradientLearner
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.order import minibatches
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import ArgumentError, check_one_of
from maml_tf.inner_loop import InnerProblem, inner_loop, rates
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.networks.network import Network
from maml_tf.objectives.classification import Classification
from maml_tf.objectives.objective import Objective
from maml_tf.ops.shapes import sizes
from maml_tf.training.phases import OuterLoop, Phase, Update
from maml_tf.update_rules import AdamWithoutMomentum

INNER_STEPS = 5  # The authors'.
OPTIMIZERS, GRADIENTS = ('adam', 'sgd'), ('all', 'last')


class Reptile(GradientLearner):
    """Reptile: theta <- theta + epsilon mean_i (theta_i - theta), theta_i being theta after some
    steps of Adam on mini-batches of task i's support set (algorithm 2).

    No derivative of the path is taken, and the queries play no part in training. Other than in
    MAML all weights of the network adapt, those of its normalisations too, and the support set is
    a pool: see episodes/order.py. Adam has beta_1 = 0. Its second moments persist over training; in
    evaluation every task starts from the trained ones. The log has the loss of the first and of
    the last mini-batch.

    The authors' code hands the moments from task to task within a meta-batch. Here all its tasks
    start from the same moments, and the mean of what they end with is kept: so a meta-batch may be
    spread over cores and devices.

    Args: GradientLearner's, and
      inner_batch, evaluation_batch: examples of a mini-batch in training and in evaluation.
      beta_2: how much Adam keeps of its second moments.
      outer_step: epsilon at the start and at the end of training, linear in between.
      inner_optimizer: 'adam', or 'sgd', plain gradient descent, as in the authors' study of sums of
        inner gradients (section 6.2).
      gradients: 'all' is Reptile. 'last': theta moves by the last inner step alone, which is
        first-order MAML on mini-batches.
      tail_shots: so many support examples of each class are held out for the last mini-batch, which
        holds them all; 0: none are.
    Raises: ArgumentError where the choice of an inner optimizer or of gradients is not known.
    """

    heeds = (
        *('network', 'cell', 'cells'),
        *('norm', 'conv', 'max_pool', 'num_filters', 'bfloat16', 'tasks_at_once'),
        *('update_lr', 'num_updates', 'test_num_updates'),
    )

    steps_in_evaluation = 50  # The authors'.
    ordered = True  # Mini-batches take examples by their place.
    evaluation_flags = ('reptile_evaluation_batch',)
    scheduled = True  # Epsilon falls to its end over all iterations.

    def __init__(
        self,
        network: Network,
        objective: Objective,
        inner_lr: float = 1e-3,
        inner_steps: int = INNER_STEPS,
        inner_batch: int = 10,
        evaluation_batch: int = 5,
        beta_2: float = 0.999,
        outer_step: tuple[float, float] = (1.0, 0.0),
        inner_optimizer: Literal['adam', 'sgd'] = 'adam',
        gradients: Literal['all', 'last'] = 'all',
        tail_shots: int = 0,
        **kwargs,
    ):
        check_one_of('inner_optimizer', inner_optimizer, OPTIMIZERS)
        check_one_of('gradients', gradients, GRADIENTS)
        super().__init__(
            network,
            objective,
            inner_lr=inner_lr,
            inner_steps=inner_steps,
            **kwargs,
        )
        self.beta_2, self.outer_step = beta_2, tuple(outer_step)
        self.inner_batch, self.evaluation_batch = inner_batch, evaluation_batch
        self.gradients, self.tail_shots = gradients, tail_shots
        self.moments, self.steps_taken = {}, None
        if inner_optimizer == 'adam':
            self.moments = {
                name: self.add_state(f'moment_{name}', tf.zeros(weight.shape))
                for name, weight in self.meta_weights.items()
            }
            self.steps_taken = self.add_state('steps_taken', tf.zeros([]))
            self.evaluation_rule = self._adam(self.steps_taken.value)

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'Reptile':
        """Returns the learner that the command line describes, with the authors' network."""
        return cls(
            problem.network(
                scale=flags.norm == 'batch_norm',
                head='flatten',
                pool_padding='same',
                start='glorot',
            ),
            problem.objective,
            inner_lr=rates(flags, 1e-3)[0],
            inner_batch=flags.reptile_inner_batch,
            evaluation_batch=flags.reptile_evaluation_batch,
            outer_step=(flags.reptile_outer_step, flags.reptile_outer_step_end),
            inner_optimizer=flags.reptile_optimizer,
            gradients=flags.reptile_gradients,
            tail_shots=flags.reptile_tail_shots,
            **cls.arguments_of(flags, problem, INNER_STEPS) | {'clip': None},
        )

    @classmethod
    def tiny(cls) -> tuple['Reptile', EpisodeSpec]:
        spec = EpisodeSpec(way=3, shot=4, query=2)
        # No batch norm: the gradient of a bias before it is mere rounding, which Adam enlarges.
        network = FullyConnected((8, 8, 1), spec.way, (32,), 'layer_norm')
        steps = {'inner_steps': 4, 'inner_batch': 6, 'evaluation_steps': 8, 'evaluation_batch': 6}
        return cls(network, Classification(), inner_lr=0.02, outer_step=(1.0, 0.5), **steps), spec

    @property
    def takes_masks(self) -> bool:
        """Says that tasks of different sizes are not taken: a mini-batch would hold filling."""
        return False

    @property
    def validation_steps(self) -> int:
        return self.evaluation_steps

    def adapts(self, name: str) -> bool:
        """Says that every weight adapts."""
        return True

    def inner_problem(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        mask: tf.Tensor | None,
        key: tf.Tensor | None,
        steps: int,
        training: bool = False,
    ) -> InnerProblem:
        del mask
        size = self.inner_batch if training else self.evaluation_batch
        problem = super().inner_problem(support_x, support_y, None, key, steps, training)
        if not steps:
            return problem
        tasks, examples, *_ = sizes(support_x)
        way = support_y.shape[-1] if self.objective.classification else 1
        order, last = self._order(key, examples, way, size, steps, training)
        per_class = self._shots(support_y)

        def loss(fast_weights, step, shared):
            chosen = order[:, step] if last is None or step < steps - 1 else last
            chosen = tf.broadcast_to(chosen, [tasks, chosen.shape[-1]])
            x, y = (tf.gather(part, chosen, batch_dims=1) for part in (support_x, support_y))
            outputs = self.network.forward(x, shared | fast_weights)
            return self.objective.loss(y, outputs, per_class), (outputs, y)

        return problem._replace(loss=loss)

    def meta_gradients(self, task: Task, step: tf.Tensor) -> Update:
        """Returns theta - mean_i theta_i, and the moments' means as the state."""
        problem = self.inner_problem_of(task, self.inner_steps, training=True)
        del step
        if self.moments:
            before = tf.convert_to_tensor(self.steps_taken)
            problem = problem._replace(rule=self._adam(before))
        path = inner_loop(problem, self.inner_steps, stop_grad=True)
        start = path.fast_weights[0 if self.gradients == 'all' else -2]
        adapted = path.fast_weights[-1]
        gradients = [tf.reduce_mean(start[name] - adapted[name], 0) for name in self.meta_weights]
        state = {f'moment_{name}': tf.reduce_mean(v, 0) for name, v in path.slots.items()}
        if self.moments:
            state['steps_taken'] = before + self.inner_steps
        log = {}
        seen = path.support_outputs[0], path.support_outputs[-1]
        for when, (outputs, labels) in zip(('pre', 'post'), seen):
            log |= self.loss_and_log(when, labels, outputs, self._shots(labels))[1]
        return Update(gradients, log, state)

    def phases(self, outer: OuterLoop) -> list[Phase]:
        """Returns one phase, whose plain gradient descent has the rate epsilon."""
        start, end = self.outer_step
        epsilon = keras.optimizers.schedules.PolynomialDecay(
            start, max(outer.metatrain_iterations, 1), end
        )
        optimizer = keras.optimizers.SGD(epsilon)
        iterations = outer.metatrain_iterations
        return [Phase('metatrain', iterations, self.meta_gradients, optimizer, outer.spec)]

    def _order(self, key, examples, way, size, steps, training):
        """Returns which examples each step sees, [tasks or 1, steps, size]; and the last of them,
        [1, way * tail_shots], where they are held out."""
        if not (training and self.tail_shots):
            return minibatches(key, examples, size, steps), None
        shots = examples // way
        if not 0 < self.tail_shots < shots:
            reason = f'fewer than the {shots} support examples of a class'
            raise ArgumentError('tail_shots', self.tail_shots, reason)
        numbers = np.arange(examples).reshape(way, shots)  # The classes follow each other.
        pool, last = numbers[:, : -self.tail_shots].ravel(), numbers[:, -self.tail_shots :]
        before = minibatches(key, len(pool), size, max(steps - 1, 1))
        return tf.gather(pool, before), tf.constant(last.reshape(1, -1))

    def _shots(self, labels: tf.Tensor) -> tf.Tensor:
        """Returns what the sum over a mini-batch is divided by, the same in evaluation.

        The authors do not divide: gradients of evaluation, with other mini-batches, meet moments of
        training's gradients.
        """
        return tf.constant(self.inner_batch / labels.shape[-1], self.compute_dtype)

    def outer_optimizer(self) -> keras.optimizers.Optimizer:
        """Returns plain gradient descent at the first epsilon."""
        return keras.optimizers.SGD(self.outer_step[0])

    def _adam(self, steps_before: tf.Tensor) -> AdamWithoutMomentum:
        return AdamWithoutMomentum(
            self.inner_lr, self.beta_2, moments=self.moments, steps_before=steps_before
        )


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_integer(
        'reptile_inner_batch', 10, 'reptile: examples of a mini-batch in training', lower_bound=1
    )
    flags.DEFINE_integer(
        'reptile_evaluation_batch',
        5,
        'reptile: examples of a mini-batch in evaluation',
        lower_bound=1,
    )
    flags.DEFINE_enum(
        'reptile_optimizer',
        'adam',
        OPTIMIZERS,
        'reptile: inner optimizer, Adam without momentum or plain gradient descent',
    )
    flags.DEFINE_enum(
        'reptile_gradients',
        'all',
        GRADIENTS,
        'reptile: move by all inner steps; last: by the last alone, first-order MAML on '
        'mini-batches',
    )
    flags.DEFINE_integer(
        'reptile_tail_shots',
        0,
        'reptile: so many training shots are held out for the last mini-batch',
        lower_bound=0,
    )
    flags.DEFINE_float(
        'reptile_outer_step', 1.0, 'reptile: outer step size epsilon at the start', lower_bound=0
    )
    flags.DEFINE_float(
        'reptile_outer_step_end', 0.0, 'reptile: outer step size epsilon at the end', lower_bound=0
    )
