"""Training on the support set alone, from random weights."""

from typing import Any, Literal

import tensorflow as tf

from maml_tf.algorithms.baselines.rules import Adam
from maml_tf.algorithms.optimisation.gradient_learner import GradientLearner
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import UserError, check_one_of
from maml_tf.inner_loop import rates
from maml_tf.learner import Learner
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.networks.network import Network
from maml_tf.objectives.classification import Classification
from maml_tf.objectives.metric import Axis
from maml_tf.objectives.objective import Objective
from maml_tf.training.phases import OuterLoop, Phase
from maml_tf.update_rules import GradientDescent

OPTIMIZERS = ('adam', 'sgd')
# Tried on validation tasks, from 0.001 to 0.03 and from 10 to 200 steps. With 5 shots of Omniglot
# none does better; the sinusoid would gain by more steps at 0.03.
STEPS, RATE = 100, 0.01


class FromScratch(GradientLearner):
    """Trains a network on each task's support set alone, from the same random weights in all tasks.

    What a learner gains by other tasks is what it gains over this. Each step is on the whole
    support set, by Adam or by plain gradient descent, and moves every weight, those of
    normalisations too. Batch norm takes the statistics of the examples at hand, as in
    GradientLearner. Nothing is trained beforehand: the one iteration of its training, which scores
    a meta-batch, is there to write a checkpoint.

    Args: GradientLearner's but for the steps and the clip, and
      steps: on each support set.
      optimizer: 'adam' or 'sgd'.
    Raises: ArgumentError where the optimizer is not known.
    """

    heeds = (
        *('network', 'cell', 'cells'),
        *('norm', 'conv', 'max_pool', 'num_filters', 'bfloat16', 'tasks_at_once'),
        *('update_lr', 'test_num_updates'),
    )

    def __init__(
        self,
        network: Network,
        objective: Objective,
        inner_lr: float = RATE,
        steps: int = STEPS,
        optimizer: Literal['adam', 'sgd'] = 'adam',
        seed: int = 0,
        transductive: bool = True,
        tasks_at_once: int | None = None,
        **kwargs,
    ):
        check_one_of('optimizer', optimizer, OPTIMIZERS)
        super().__init__(
            network,
            objective,
            inner_lr,
            inner_steps=steps,
            evaluation_steps=steps,
            seed=seed,
            transductive=transductive,
            tasks_at_once=tasks_at_once,
            **kwargs,
        )
        self.update_rule = Adam(inner_lr) if optimizer == 'adam' else GradientDescent(inner_lr)
        self.evaluation_rule = self.update_rule

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'FromScratch':
        """Returns the learner that the command line describes.

        The weights start by Glorot's distribution: the reference's network of the sinusoid starts
        too close to zero to get away from there in so few steps.
        """
        network = problem.network(scale=flags.norm == 'batch_norm', start='glorot')
        return cls(
            network,
            problem.objective,
            inner_lr=rates(flags, RATE)[1],
            steps=STEPS if flags.test_num_updates is None else flags.test_num_updates,
            optimizer=flags.from_scratch_optimizer,
            seed=flags.seed,
            transductive=flags.transductive is not False,
            tasks_at_once=flags.tasks_at_once,
        )

    @classmethod
    def check_flags(cls, flags: Any) -> None:
        """Raises UserError for no steps."""
        if flags.test_num_updates == 0:
            raise UserError('--test_num_updates=0: at least 1, nothing else is trained')

    @classmethod
    def tiny(cls) -> tuple['FromScratch', EpisodeSpec]:
        spec = EpisodeSpec(way=3, shot=2, query=2)
        network = FullyConnected((8, 8, 1), spec.way, (16,), 'layer_norm', start='glorot')
        return cls(network, Classification(), steps=10), spec

    def adapts(self, name: str) -> bool:
        """Says that every weight adapts."""
        return True

    def learns(self, name: str) -> bool:
        """Says that no weight is trained beforehand."""
        return False

    def query_outputs(self, task: Task, steps: int | None = None) -> tf.Tensor:
        """Returns the predictions after the last step, [1, tasks, query, out]."""
        return Learner.query_outputs(self, task, steps)

    def axis(self, entries: int) -> Axis:
        return Axis('gradient steps', (self.evaluation_steps,))

    def phases(self, outer: OuterLoop) -> list[Phase]:
        """Returns a phase of one iteration that changes nothing."""
        iterations = min(outer.metatrain_iterations, 1)
        return [Phase('start', iterations, None, None, outer.spec, op=self._scored)]

    def _scored(self, task, step):
        del step
        return self.query_loss(task, self.query_outputs(task)[-1]).log


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_enum(
        'from_scratch_optimizer',
        'adam',
        OPTIMIZERS,
        'from_scratch: what trains on the support set, for --test_num_updates steps at --update_lr',
    )
