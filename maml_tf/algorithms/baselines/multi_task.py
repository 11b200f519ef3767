"""One network for the examples of all tasks, which is told nothing of the task."""

import tensorflow as tf

from maml_tf.algorithms.optimisation.gradient_learner import GradientLearner
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import ArgumentError
from maml_tf.learner import Learner, State
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.networks.network import Network
from maml_tf.objectives.objective import Objective
from maml_tf.objectives.regression import Regression
from maml_tf.training.phases import Loss


class MultiTask(GradientLearner):
    """MAML with no inner step: one network minimises the mean loss of all tasks' examples.

    Support and query examples are alike to it, in training; it does not adapt. So in regression it
    tends to the mean of the family of functions, the best that can be said without a look at the
    support set: of the sinusoid that is -(2 / pi) 2.55 cos x, with a mean squared error of about
    3.01.

    Args: GradientLearner's, but for rates and steps.
    """

    heeds = (
        *Learner.heeds,
        *('network', 'cell', 'cells'),
        *('norm', 'conv', 'max_pool', 'num_filters', 'bfloat16', 'tasks_at_once', 'clip'),
    )

    def __init__(
        self,
        network: Network,
        objective: Objective,
        seed: int = 0,
        transductive: bool = True,
        clip: float | None = None,
        tasks_at_once: int | None = None,
        **kwargs,
    ):
        super().__init__(
            network,
            objective,
            evaluation_steps=0,
            seed=seed,
            transductive=transductive,
            clip=clip,
            tasks_at_once=tasks_at_once,
            **kwargs,
        )
        self.inner_steps = 0

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'MultiTask':
        """Returns the learner that the command line describes.

        Raises: ArgumentError in classification.
        """
        if problem.objective.classification:
            reason = (
                'the classes of each task have labels of their own, of which one network for all '
                'tasks can learn nothing; multi_task is for regression'
            )
            raise ArgumentError('datasource', flags.datasource, reason)
        arguments = cls.arguments_of(flags, problem)
        del arguments['inner_steps'], arguments['evaluation_steps']
        return cls(problem.network(), problem.objective, **arguments)

    @classmethod
    def tiny(cls) -> tuple['MultiTask', EpisodeSpec]:
        return cls(FullyConnected((1,), 1, (20, 20)), Regression()), EpisodeSpec(1, 10, 10)

    def adapt(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        steps: int | None = None,
        mask: tf.Tensor | None = None,
        key: tf.Tensor | None = None,
    ) -> State:
        """Returns the weights, the same in all tasks; `steps` is not needed."""
        del steps
        return super().adapt(support_x, support_y, 0, mask, key)

    def query_outputs(self, task: Task, steps: int | None = None) -> tf.Tensor:
        return Learner.query_outputs(self, task, steps)

    def meta_loss(self, task: Task, step: tf.Tensor) -> Loss:
        """Returns the loss of all examples of each task."""
        del step
        adapted, shared = self.weights_of_the_network()
        x = tf.concat([task.support_x, task.query_x], 1)
        y = tf.concat([task.support_y, task.query_y], 1)
        mask = None
        if task.support_mask is not None:
            mask = tf.concat([task.support_mask, task.query_mask], 1)
        outputs = self.forward(x, shared | adapted, 0)
        return Loss(*self.loss_and_log('post', y, outputs, self.shots(task), mask))
