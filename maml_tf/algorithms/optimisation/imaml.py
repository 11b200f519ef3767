"""iMAML, implicit MAML (Rajeswaran, Finn, Kakade, Levine, NeurIPS 2019, arXiv 1909.04630)."""

import dataclasses

import keras
import tensorflow as tf

from maml_tf.algorithms.optimisation.gradient_learner import GradientLearner
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import ArgumentError
from maml_tf.inner_loop import InnerProblem, adapt_in_graph, rates
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.networks.network import Network
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.objective import Objective
from maml_tf.ops.conjugate_gradients import conjugate_gradients
from maml_tf.training.outer_optimizers import adam
from maml_tf.training.phases import OuterLoop, Phase, Update
from maml_tf.update_rules import GradientDescent, Tensors

INNER_LR, INNER_STEPS, LAMBDA = 0.1, 16, 2.0  # The authors', of images.
# Of regression, which they have not: on the sinusoid larger rates diverge.
OF_REGRESSION = 0.002, 64, 5.0
RELEASED_EPSILON = 1e-3  # of Adam, in their code


class IMAML(GradientLearner):
    """iMAML: phi_i minimises L_support(phi) + (lambda / 2) |phi - theta|^2 (eq. 3), and
    theta <- Adam(mean_i (I + H_i / lambda)^-1 grad L_query(phi_i)), H_i being the Hessian of
    L_support at phi_i (eq. 6).

    The inverse is by conjugate gradients on products with the Hessian. No derivative of the path is
    taken, so the memory does not depend on the number of inner steps. All weights of the network
    adapt, those of its normalisations too.

    The network of the command line starts as PyTorch's layers do; the authors start theirs by
    Glorot's distribution widened by 1.73, with biases U(0, 0.05).

    The authors' released code differs (`released`): plain steps on L_support, then one step on the
    proximal term, which it leaves out in evaluation; the matrix 2 I + H / (lambda + 10); and in
    Adam an epsilon of 1e-3.

    Args: GradientLearner's, and
      regularisation: lambda.
      evaluation_lr: the inner rate in evaluation; None: that of training.
      cg_steps: of the conjugate gradients; 0, and with `released` 1, too: no system is solved, and
        the gradient of the queries is the meta-gradient.
      released: as the released code does it.
    """

    steps_in_evaluation = None
    heeds = (*GradientLearner.heeds, 'train_update_lr')

    def __init__(
        self,
        network: Network,
        objective: Objective,
        inner_lr: float = INNER_LR,
        inner_steps: int = INNER_STEPS,
        evaluation_lr: float | None = None,
        regularisation: float = LAMBDA,
        cg_steps: int = 5,
        released: bool = False,
        **kwargs,
    ):
        super().__init__(network, objective, inner_lr, inner_steps, **kwargs)
        if regularisation <= 0:
            raise ArgumentError('regularisation', regularisation, 'above 0')
        self.regularisation, self.cg_steps, self.released = regularisation, cg_steps, released
        if evaluation_lr is not None:
            self.evaluation_lr = evaluation_lr
            self.evaluation_rule = GradientDescent(evaluation_lr)

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'IMAML':
        """Returns the learner that the command line describes, with the authors' network."""
        objective = problem.objective
        own = (INNER_LR, INNER_STEPS, LAMBDA) if objective.classification else OF_REGRESSION
        inner_lr, steps, weight = own
        training, evaluation = rates(flags, inner_lr)
        changes = {'head': 'flatten', 'start': 'torch'}
        if flags.norm == 'batch_norm':
            changes |= {'scale': True, 'epsilon': 1e-5}
        return cls(
            problem.network(**changes),
            objective.averaged() if objective.classification else objective,
            inner_lr=training,
            evaluation_lr=evaluation,
            regularisation=weight if flags.imaml_lambda is None else flags.imaml_lambda,
            cg_steps=flags.imaml_cg_steps,
            released=flags.imaml_released,
            **cls.arguments_of(flags, problem, steps),
        )

    @classmethod
    def tiny(cls) -> tuple['IMAML', EpisodeSpec]:
        spec = EpisodeSpec(way=3, shot=2, query=2)
        network = FullyConnected((8, 8, 1), spec.way, (32,), 'layer_norm')
        steps = {'inner_steps': 4, 'cg_steps': 3}
        return cls(network, MeanClassification(), 0.1, regularisation=0.5, **steps), spec

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
        """Returns the proximal problem: of L_support + (lambda / 2) |phi - theta|^2."""
        problem = super().inner_problem(support_x, support_y, mask, key, steps, training)
        if self.released:
            return problem

        def loss(weights, step, others):
            losses, outputs = problem.loss(weights, step, others)
            return losses + self._distance(weights, problem.weights), outputs

        return problem._replace(loss=loss)

    def meta_gradients(self, task: Task, step: tf.Tensor) -> Update:
        """Returns the implicit gradients, each the mean of the tasks' own."""
        problem = self.inner_problem_of(task, self.inner_steps, training=True)
        fast_weights, _ = adapt_in_graph(problem, self.inner_steps)
        if self.released:
            pull = self.inner_lr * self.regularisation
            fast_weights = {
                name: w - pull * (w - problem.weights[name]) for name, w in fast_weights.items()
            }
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(fast_weights)
            outputs = self.network.forward(task.query_x, fast_weights)
            losses = self.objective.loss(task.query_y, outputs, self.shots(task), task.query_mask)
            total = tf.reduce_sum(losses)  # Its gradient is the stack of the tasks'.
        to_queries = tape.gradient(
            total, fast_weights, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        implicit = self._implicit(task, fast_weights, to_queries)
        gradients = [tf.reduce_mean(implicit[name], 0) for name in self.meta_weights]
        support_outputs = self.network.forward(task.support_x, problem.weights)
        _, before = self.support_loss_and_log(task, support_outputs)
        return Update(gradients, before | self.query_loss(task, outputs).log)

    def phases(self, outer: OuterLoop) -> list[Phase]:
        if not self.released or outer.kind != 'adam':
            return super().phases(outer)
        optimizer = adam(outer.rate(), epsilon=RELEASED_EPSILON)
        return [dataclasses.replace(phase, optimizer=optimizer) for phase in super().phases(outer)]

    def outer_optimizer(self) -> keras.optimizers.Optimizer:
        """Returns Adam, with the epsilon of the released code where that is asked for."""
        return (
            adam(self.outer.meta_lr, epsilon=RELEASED_EPSILON)
            if self.released
            else super().outer_optimizer()
        )

    def _distance(self, weights: Tensors, start: Tensors) -> tf.Tensor:
        """Returns (lambda / 2) |phi - theta|^2, [tasks]."""
        squares = (
            tf.reduce_sum(tf.square(w - start[name]), range(1, w.shape.rank))
            for name, w in weights.items()
        )
        return self.regularisation / 2 * tf.add_n(list(squares))

    def _implicit(self, task: Task, fast_weights: Tensors, goal: Tensors) -> Tensors:
        """Solves (I + H / lambda) x = goal for each task."""
        least = 2 if self.released else 1  # The released code takes more than one step, or none.
        if self.cg_steps < least:
            return goal
        problem = super().inner_problem(
            task.support_x, task.support_y, task.support_mask, task.key, self.inner_steps
        )
        identity, scale = 1.0, self.regularisation
        if self.released:
            identity, scale = 2.0, self.regularisation + 10.0

        def product(v):
            names = list(v)
            with tf.GradientTape(watch_accessed_variables=False) as outer:
                outer.watch(fast_weights)
                with tf.GradientTape(watch_accessed_variables=False) as inner:
                    inner.watch(fast_weights)
                    losses, _ = problem.loss(fast_weights, 0, problem.others)
                    total = tf.reduce_sum(losses)
                gradients = inner.gradient(
                    total, fast_weights, unconnected_gradients=tf.UnconnectedGradients.ZERO
                )
            along = outer.gradient(
                [gradients[name] for name in names],
                [fast_weights[name] for name in names],
                output_gradients=[v[name] for name in names],
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            return {name: identity * v[name] + hv / scale for name, hv in zip(names, along)}

        return conjugate_gradients(product, goal, self.cg_steps)


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_float(
        'imaml_lambda',
        None,
        'imaml: weight of the proximal term; default: 2 of images, 5 of regression',
        lower_bound=1e-6,
    )
    flags.DEFINE_integer(
        'imaml_cg_steps',
        5,
        'imaml: steps of the conjugate gradients; 0, and with --imaml_released 1: the gradient of '
        'the queries itself',
        lower_bound=0,
    )
    flags.DEFINE_bool('imaml_released', False, "imaml: as the authors' released code does it")
