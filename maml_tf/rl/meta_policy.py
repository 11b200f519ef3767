"""Policies that learn to adapt: rollouts, inner steps, and a trust region around what comes out."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from maml_tf.algorithms.optimisation.gradient_learner import GradientLearner
from maml_tf.episodes.random_bits import keyed_bits
from maml_tf.inner_loop import inner_loop, inner_step, stack_over_tasks
from maml_tf.rl import trpo
from maml_tf.rl.advantages import Samples, samples
from maml_tf.rl.environments.environment import Act, Environment, Trajectories
from maml_tf.rl.policy import Gaussian
from maml_tf.rl.reinforce import distribution, inner_problem
from maml_tf.rl.trpo import TrustRegion
from maml_tf.update_rules import ScaledLater, Tensors, UpdateRule


class Tasks(NamedTuple):
    """What an iteration is about: tasks of an environment, and the luck in them.

    task: [tasks, task_size]. key: uint32 [tasks, 2], random bits of each task's own.
    """

    task: tf.Tensor
    key: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Settings:
    """How policies are trained and adapted; the defaults are the authors'.

    discount, gae_lambda: of the advantages.
    region: of the outer step.
    later_steps: factor of the rate in evaluation, of the steps after the first.
    """

    discount: float = 0.99
    gae_lambda: float = 1.0
    region: TrustRegion = TrustRegion()
    later_steps: float = 0.5


class Weights(NamedTuple):
    """Weights on their way: those that adapt, [tasks, ...], and the update rule's memory."""

    fast: Tensors
    slots: Tensors


class MetaPolicy:
    """A gradient-based learner whose support set are the trajectories of its own policy.

    The inner loop is the learner's: which weights adapt, from where, by which rule, of which order.
    The outer step is TRPO on trajectories of the adapted policies (Finn et al. 2017, algorithm 3).

    Args:
      learner: its network is a GaussianPolicy.
      environment: whose tasks are learnt.
      settings: see Settings.
    """

    def __init__(
        self, learner: GradientLearner, environment: Environment, settings: Settings = Settings()
    ):
        self.learner, self.environment, self.settings = learner, environment, settings
        # Pieces that are compiled by themselves where the environment cannot be.
        self._act = tf.function(self._actions, jit_compile=True, autograph=False)
        self._samples = tf.function(self._sampled, jit_compile=True, autograph=False)
        self._roll = tf.function(self._rolled, jit_compile=True, autograph=False)
        self._step = tf.function(self._stepped, jit_compile=True, autograph=False)
        self._improve = tf.function(self._improved, jit_compile=True, autograph=False)

    # What a policy does.

    def act(self, weights: Tensors) -> Act:
        """Returns the policy of adapted weights {name: [tasks, ...]}."""
        return lambda observations, noise: self._act(weights, observations, noise)

    def start(self, tasks: int) -> Weights:
        """Returns the weights before adaptation."""
        adapted, _ = self.learner.weights_of_the_network()
        stacked = stack_over_tasks(adapted, tasks)
        return Weights(stacked, self.learner.update_rule.start(stacked))

    def rollouts(self, weights: Weights, drawn: Tasks, rollouts: int, number: int) -> Trajectories:
        """Returns trajectories of these weights; number: of the batch, each has its own noise."""
        key = keyed_bits(drawn.key, 2 * number + 2)[:, 2 * number :]
        if not self.environment.compiled:
            return self.environment.rollouts(self.act(weights.fast), drawn.task, rollouts, key)
        return self._roll(weights.fast, drawn.task, rollouts, key)

    def samples(self, trajectories: Trajectories) -> Samples:
        """Returns the steps of trajectories with their advantages."""
        return self._samples(trajectories)

    def adapted(
        self, weights: Weights, batch: Samples, step: int, training: bool = False
    ) -> Weights:
        """Returns the weights after one inner step on samples that they drew.

        training: by the rule of training, else by that of evaluation.
        """
        return self._step(weights, batch, tf.constant(step), training)

    def evaluation_rule(self) -> UpdateRule:
        """Returns the rule of evaluation: the learner's, with Settings.later_steps."""
        return ScaledLater(self.learner.evaluation_rule, self.settings.later_steps)

    # What training does.

    def iteration(self, drawn: Tasks, rollouts: int, steps: int) -> dict[str, tf.Tensor]:
        """Takes an outer step and returns its log.

        rollouts: in each batch of trajectories, those before each of `steps` inner steps and those
        after the last.
        """
        weights, batches, returns, counts = self.start(drawn.task.shape[0]), [], [], []
        for number in range(steps + 1):
            trajectories = self.rollouts(weights, drawn, rollouts, number)
            batches.append(self.samples(trajectories))
            returns.append(tf.reduce_mean(trajectories.returns))
            counts.append(tf.reduce_mean(tf.reduce_sum(trajectories.counts, -1)))
            if number < steps:
                weights = self.adapted(weights, batches[-1], number, training=True)
        log = {'pre_return': returns[0], 'post_return': returns[-1], 'steps': counts[-1]}
        return log | self._improve(batches)

    def adapted_policy(self, values: Sequence[tf.Tensor], batches: Sequence[Samples]) -> Gaussian:
        """Returns the policies after the inner steps, as a function of the meta-weights.

        A tape sees through the steps, unless the learner is of first order.

        Args:
          values: of the learner's trainable variables.
          batches: those of each inner step, and last the one in whose states the policies are.
        """
        learner, variables = self.learner, self.learner.trainable_variables
        *support, query = batches
        with keras.StatelessScope(state_mapping=list(zip(variables, values))):
            adapted, shared = learner.weights_of_the_network()
            if support:
                problem = inner_problem(learner, support)
                first_order = getattr(learner, 'stop_grad', False)
                path = inner_loop(problem, len(support), first_order).fast_weights
                adapted = path[-1]
            last = max(len(support) - 1, 0)
            return distribution(learner, shared | adapted, query.observations, last)

    # What is compiled.

    def _rolled(self, weights, task, rollouts, key):
        act = lambda observations, noise: self._actions(weights, observations, noise)
        return self.environment.rollouts(act, task, rollouts, key)

    def _actions(self, weights, observations, noise):
        _, shared = self.learner.weights_of_the_network()
        return distribution(self.learner, shared | weights, observations).actions(noise)

    def _sampled(self, trajectories):
        return samples(trajectories, self.settings.discount, self.settings.gae_lambda)

    def _stepped(self, weights, batch, step, training):
        rule = self.learner.update_rule if training else self.evaluation_rule()
        problem = inner_problem(self.learner, [batch], rule)
        fast, slots, *_ = inner_step(problem, *weights, step, stop_grad=True)
        return Weights(fast, slots)

    def _improved(self, batches):
        variables = self.learner.trainable_variables
        if not variables:
            return {}
        values, log = trpo.step(
            lambda values: self.adapted_policy(values, batches),
            [tf.convert_to_tensor(variable) for variable in variables],
            batches[-1],
            self.settings.region,
        )
        for variable, value in zip(variables, values):
            variable.assign(value)
        return log
