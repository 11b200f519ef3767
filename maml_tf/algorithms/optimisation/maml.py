"""Model-agnostic meta-learning (Finn, Abbeel, Levine, ICML 2017, arXiv 1703.03400)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from maml_tf.algorithms.optimisation.gradient_learner import GradientLearner
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.inner_loop import inner_loop, train_update_lr
from maml_tf.networks.network import Network
from maml_tf.networks.reference import FullyConnected
from maml_tf.objectives import Classification, Objective
from maml_tf.rematerialise import rematerialised_inner_loop
from maml_tf.training.phases import Loss, OuterLoop, Phase, Update
from maml_tf.update_rules import GradientDescent


class MAML(GradientLearner):
    """MAML: theta_i' = theta - alpha grad L_support(theta) for each task i, and
    theta <- Adam(grad mean_i L_query(theta_i')).

    With `stop_grad` this is first-order MAML (section 5.2). Normalisation variables are trained by
    the outer loop and not adapted, as in the authors' code. Before meta-training there may be
    pretraining on the support loss alone, the paper's baseline.

    Args: GradientLearner's, and
      stop_grad: holds the inner gradients constant ("first-order approximation").
      evaluation_lr: alpha in evaluation; None: that of training.
      clip: bounds every entry of the meta-gradient by +-clip.
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
        clip: float | None = None,
        rematerialise: bool = False,
        **kwargs,
    ):
        super().__init__(network, objective, inner_lr, inner_steps, **kwargs)
        self.stop_grad, self.clip, self.rematerialise = stop_grad, clip, rematerialise
        if evaluation_lr is not None:
            self.evaluation_rule = GradientDescent(evaluation_lr)

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'MAML':
        """Returns the learner that the command line describes."""
        arguments = cls.arguments_of(flags, problem)
        rates = {'inner_lr': train_update_lr(flags), 'evaluation_lr': flags.update_lr}
        return cls(problem.network(), problem.objective, **arguments, **rates)

    @staticmethod
    def arguments_of(flags, problem: Problem, **defaults: int) -> dict[str, Any]:
        own = {
            'stop_grad': flags.stop_grad,
            'clip': problem.clip,
            'rematerialise': flags.rematerialise,
        }
        return GradientLearner.arguments_of(flags, problem, **defaults) | own

    @classmethod
    def tiny(cls) -> tuple['MAML', EpisodeSpec]:
        spec = EpisodeSpec(way=3, shot=2, query=2)
        network = FullyConnected((8, 8, 1), spec.way, (32, 32), 'batch_norm')
        return cls(network, Classification(), inner_lr=0.1, inner_steps=1), spec

    def meta_loss(self, task: Task, step: tf.Tensor) -> Loss:
        """Returns the query loss after the inner steps; logs the support loss before them, too."""
        problem = self.inner_problem_of(task, self.inner_steps, training=True)
        if self.rematerialise:
            _, support_outputs = problem.loss(problem.weights, 0, problem.others)
            fast_weights, _ = rematerialised_inner_loop(problem, self.inner_steps, self.stop_grad)
        else:
            adaptation = inner_loop(problem, self.inner_steps, self.stop_grad)
            support_outputs = adaptation.support_outputs[0]
            fast_weights = adaptation.fast_weights[-1]
        _, before = self.support_loss_and_log(task, support_outputs)
        outputs = self.network.forward(task.query_x, problem.others | fast_weights)
        loss, after, _ = self.query_loss(task, outputs)
        return Loss(loss, before | after)

    def clip_gradients(self, gradients: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        if self.clip is None:
            return gradients
        return [tf.clip_by_value(g, -self.clip, self.clip) for g in gradients]

    def pretrain_loss(self, task: Task, step: tf.Tensor) -> Loss:
        """Returns the support loss before any update."""
        del step
        adapted, shared = self.weights_of_the_network()
        outputs = self.network.forward(task.support_x, adapted | shared)
        return Loss(*self.support_loss_and_log(task, outputs))

    def pretrain_gradients(self, task: Task, step: tf.Tensor) -> Update:
        """Returns the gradients of `pretrain_loss`."""
        return self.gradients_of(self.pretrain_loss, task, step)

    def phases(self, outer: OuterLoop) -> list[Phase]:
        """Returns pretraining and meta-training, each with an Adam of its own."""
        pretraining = Phase(
            'pretrain',
            outer.pretrain_iterations,
            self.pretrain_gradients,
            outer.adam(),
            outer.spec,
            title='Pretrain Iteration',
        )
        return [pretraining, *super().phases(outer)]
