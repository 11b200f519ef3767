"""Model-agnostic meta-learning (Finn, Abbeel, Levine, ICML 2017, arXiv 1703.03400)."""

from typing import Any

import tensorflow as tf

from maml_tf.algorithms.optimisation.gradient_learner import GradientLearner
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.inner_loop import InnerProblem, inner_loop, rates
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.networks.network import Network
from maml_tf.objectives.classification import Classification
from maml_tf.objectives.objective import Objective
from maml_tf.rematerialise import rematerialised_inner_loop
from maml_tf.training.phases import Loss, OuterLoop, Phase, Update
from maml_tf.update_rules import GradientDescent, Tensors


class MAML(GradientLearner):
    """MAML: theta_i' = theta - alpha grad L_support(theta) for each task i, and
    theta <- Adam(grad mean_i L_query(theta_i')).

    With `stop_grad` this is first-order MAML (section 5.2). Normalisation variables are trained by
    the outer loop and not adapted, as in the authors' code. Before meta-training there may be
    pretraining on the support loss alone, the paper's baseline.

    Args: GradientLearner's, and
      stop_grad: holds the inner gradients constant ("first-order approximation").
      evaluation_lr: alpha in evaluation; None: that of training.
      rematerialise: trains in the memory of one inner step, see rematerialise.py.
    """

    heeds = (
        *GradientLearner.heeds,
        *('train_update_lr', 'stop_grad', 'rematerialise', 'pretrain_iterations', 'baseline'),
    )

    def __init__(
        self,
        network: Network,
        objective: Objective,
        inner_lr: float = 1e-3,
        inner_steps: int = 1,
        stop_grad: bool = False,
        evaluation_lr: float | None = None,
        rematerialise: bool = False,
        **kwargs,
    ):
        super().__init__(network, objective, inner_lr, inner_steps, **kwargs)
        self.stop_grad, self.rematerialise = stop_grad, rematerialise
        if evaluation_lr is not None:
            self.evaluation_lr = evaluation_lr
            self.evaluation_rule = GradientDescent(evaluation_lr)

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'MAML':
        """Returns the learner that the command line describes."""
        rates = cls.rates_of(flags, problem.inner_lr or 1e-3)
        arguments = cls.arguments_of(flags, problem) | rates
        return cls(problem.network(), problem.objective, **arguments)

    @staticmethod
    def arguments_of(flags, problem: Problem, inner_steps: int = 1) -> dict[str, Any]:
        own = {
            'stop_grad': flags.stop_grad,
            'rematerialise': flags.rematerialise,
        }
        return GradientLearner.arguments_of(flags, problem, inner_steps) | own

    @staticmethod
    def rates_of(flags, default: float = 1e-3) -> dict[str, float]:
        """Returns the inner rates as arguments; default: the method's own."""
        training, evaluation = rates(flags, default)
        return {'inner_lr': training, 'evaluation_lr': evaluation}

    @classmethod
    def tiny(cls) -> tuple['MAML', EpisodeSpec]:
        spec = EpisodeSpec(way=3, shot=2, query=2)
        network = FullyConnected((8, 8, 1), spec.way, (32, 32), 'batch_norm')
        return cls(network, Classification(), inner_lr=0.1, inner_steps=1), spec

    def meta_loss(self, task: Task, step: tf.Tensor) -> Loss:
        """Returns the query loss after the inner steps; logs the support loss before them, too."""
        problem = self.inner_problem_of(task, self.inner_steps, training=True)
        support_outputs, path = self.take_steps(problem, self.stop_grad)
        _, before = self.support_loss_and_log(task, support_outputs)
        weights = problem.others | path[-1]
        outputs = self.forward(task.query_x, weights, self.inner_steps - 1)
        loss, after, _ = self.query_loss(task, outputs)
        return Loss(loss, before | after)

    def take_steps(
        self, problem: InnerProblem, stop_grad: bool, every: bool = False
    ) -> tuple[tf.Tensor, list[Tensors]]:
        """Takes the inner steps of training, which a tape sees through.

        Returns (support outputs before them, the fast weights after each of them; after the last
        alone, unless `every`).
        """
        steps = self.inner_steps
        if not self.rematerialise:
            adaptation = inner_loop(problem, steps, stop_grad)
            path = adaptation.fast_weights[1:]
            return adaptation.support_outputs[0], path if every else path[-1:]
        _, support_outputs = problem.loss(problem.weights, 0, problem.others)
        path, at_once = [], 1 if every else steps
        for first in range(0, steps, at_once):
            fast_weights, slots = rematerialised_inner_loop(problem, at_once, stop_grad, first)
            problem = problem._replace(weights=fast_weights, slots=slots)
            path.append(fast_weights)
        return support_outputs, path

    def pretrain_loss(self, task: Task, step: tf.Tensor) -> Loss:
        """Returns the support loss before any update."""
        del step
        adapted, shared = self.weights_of_the_network()
        outputs = self.forward(task.support_x, adapted | shared, 0)
        return Loss(*self.support_loss_and_log(task, outputs))

    def pretrain_gradients(self, task: Task, step: tf.Tensor) -> Update:
        """Returns the gradients of `pretrain_loss`."""
        return self.gradients_of(self.pretrain_loss, task, step)

    def phases(self, outer: OuterLoop) -> list[Phase]:
        """Returns pretraining and meta-training, each with an optimizer of its own."""
        pretraining = Phase(
            'pretrain',
            outer.pretrain_iterations,
            self.pretrain_gradients,
            outer.optimizer(outer.pretrain_iterations),
            outer.spec,
            title='Pretrain Iteration',
            weight_decay=outer.weight_decay,
        )
        return [pretraining, *super().phases(outer)]
