"""The inner problem of a policy gradient: REINFORCE on the trajectories of each step."""

from collections.abc import Sequence

import tensorflow as tf

from maml_tf.algorithms.optimisation.gradient_learner import GradientLearner
from maml_tf.inner_loop import InnerProblem, stack_over_tasks
from maml_tf.rl.advantages import Samples
from maml_tf.rl.policy import Gaussian
from maml_tf.update_rules import Tensors, UpdateRule


def distribution(
    learner: GradientLearner, weights: Tensors, observations: tf.Tensor, step: tf.Tensor | int = 0
) -> Gaussian:
    """Returns the policy of weights in states [tasks, n, observation_size]; step: as of
    GradientLearner.at_step."""
    return learner.network.distribution(observations, learner.at_step(weights, step))


def inner_problem(
    learner: GradientLearner, batches: Sequence[Samples], rule: UpdateRule | None = None
) -> InnerProblem:
    """Returns what the inner loop works on: minus the mean over the steps of log pi(a|s) A.

    This is the log-probability form (Williams 1992). A ratio pi / stop(pi) has the same gradient
    and another second derivative. How the trajectories depend on the weights that drew them is left
    out, as in the authors' code.

    Args:
      learner: whose network is a GaussianPolicy.
      batches: those of each inner step, drawn by the weights before it; with one alone, all steps
        are on it.
      rule: the step; None: that of the learner's training.
    """
    adapted, shared = learner.weights_of_the_network()
    rule = rule or learner.update_rule

    def loss(fast_weights, step, shared):
        batch = batches[step] if len(batches) > 1 else batches[0]
        policy = distribution(learner, shared | fast_weights, batch.observations, step)
        return -batch.mean(policy.log_likelihood(batch.actions) * batch.advantages), policy.mean

    stacked = stack_over_tasks(adapted, tf.shape(batches[0].actions)[0])
    return InnerProblem(loss, stacked, rule, shared, rule.parameters())
