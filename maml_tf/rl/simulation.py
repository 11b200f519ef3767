"""Environments as a source of tasks, beside those of labelled examples."""

from typing import TYPE_CHECKING, Any

from maml_tf.algorithms.optimisation.gradient_learner import GradientLearner
from maml_tf.episodes.random_bits import KEYS, Stream
from maml_tf.episodes.source import EpisodeSource
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.objectives.objective import Return
from maml_tf.rl.environments.environment import Environment
from maml_tf.rl.environments.mujoco_rollouts import MuJoCoEnvironment
from maml_tf.rl.environments.navigation2d import Navigation2D
from maml_tf.rl.environments.robots import ROBOTS
from maml_tf.rl.environments.told import Told
from maml_tf.rl.flags import settings
from maml_tf.rl.meta_policy import MetaPolicy, Settings, Tasks
from maml_tf.training.phases import OuterLoop, Phase

if TYPE_CHECKING:
    from collections.abc import Callable


class Simulation(EpisodeSource):
    """The tasks of an environment. Of an EpisodeSpec it takes `shot`, which is the number of
    rollouts before each inner step.

    settings: of the training.
    """

    def __init__(self, environment: Environment, settings: Settings = Settings()):
        self.environment, self.settings = environment, settings
        self.input_shape = (environment.observation_size,)
        self.objective = Return()

    def tasks(self, split: str, spec: EpisodeSpec, seed: int) -> 'Callable[[Any, int], Tasks]':
        """Returns draw(start, count), which gives Tasks start ... start + count - 1."""
        del spec
        keys = Stream(seed, split, KEYS)

        def draw(start, count):
            key = keys.bits(start, count, 2)
            return Tasks(self.environment.draw_tasks(count, key), key)

        return draw

    def phases(self, learner: GradientLearner, outer: OuterLoop) -> list[Phase]:
        """Returns pretraining, which is without inner steps, and meta-training, both by TRPO.

        A learner without anything to train takes one iteration, so that there is a checkpoint.
        """
        policy = MetaPolicy(learner, self.environment, self.settings)
        rollouts = outer.spec.shot

        def phase(name, title, iterations, steps):
            take = lambda drawn, step: policy.iteration(drawn, rollouts, steps)
            return Phase(
                name, iterations, None, None, outer.spec, take, title=title, compiled=False
            )

        if not learner.trainable_variables:
            return [phase('start', 'Iteration', min(outer.metatrain_iterations, 1), 0)]
        return [
            phase('pretrain', 'Pretrain Iteration', outer.pretrain_iterations, 0),
            phase('metatrain', 'Iteration', outer.metatrain_iterations, learner.inner_steps),
        ]


def load(name: str, flags: Any) -> Simulation:
    """Returns the simulation of a data source. Raises UserError where its extra is missing."""
    if name == Navigation2D.name:
        environment = Navigation2D(flags.rl_squared_distance)
    else:
        environment = MuJoCoEnvironment(ROBOTS[name]())
    if flags.baseline == 'oracle':
        environment = Told(environment)
    return Simulation(environment, settings(flags))
