"""SavedModel export of a policy: it adapts to given trajectories, and then acts."""

import pathlib
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from maml_tf.inner_loop import inner_step
from maml_tf.learner import State
from maml_tf.rl.environments.environment import Trajectories
from maml_tf.rl.meta_policy import MetaPolicy
from maml_tf.rl.reinforce import distribution, inner_problem
from maml_tf.saving.exports import input_checks, model_card
from maml_tf.saving.exports.saved_model import new_saved_model

OF_TRAJECTORIES = ('observations', 'actions', 'rewards', 'counts')


def export_policy(
    policy: MetaPolicy, path: pathlib.Path | str, description: Mapping[str, Any]
) -> None:
    """Writes a SavedModel for any number of tasks and rollouts.

    adapt:         observations [tasks, rollouts, horizon, observation_size], actions [tasks,
                   rollouts, horizon, action_size], rewards and counts [tasks, rollouts, horizon]
                   -> the weights of each task after one gradient step from the meta-weights
    adapt_further: these and the weights that drew them -> the weights after another step
    start:         tasks, a number -> the weights before adaptation
    act:           observations [tasks, n, observation_size] and weights
                   -> mean, log_std [tasks, n, action_size] of the action
    serving_default is `act` of `adapt`: trajectories and query_observations -> mean, log_std.

    counts are 1 for the steps that were taken and 0 after the end of a rollout. All but `start`
    raise tf.errors.InvalidArgumentError where inputs have not the same number of tasks or rollouts,
    or one holds NaN or infinity.

    Args:
      path: a directory that does not exist yet; it appears when it is complete.
      description: {name: JSON value}, what a user should know.
    Raises:
      ArgumentError: `path` exists.
    """
    environment = policy.environment
    content = {
        'observation_size': environment.observation_size,
        'action_size': environment.action_size,
        'horizon': environment.horizon,
        **model_card.of_learner(policy.learner),
    }
    with new_saved_model(path, content | dict(description)) as scratch:
        module = tf.Module()
        module.weights = [variable.value for variable in policy.learner.variables]
        tf.saved_model.save(module, str(scratch), signatures=_signatures(policy))


def _signatures(policy: MetaPolicy) -> dict[str, tf.types.experimental.ConcreteFunction]:
    learner, environment = policy.learner, policy.environment
    dtype, horizon = learner.compute_dtype, environment.horizon
    spec = lambda name, *shape: tf.TensorSpec([None, *shape], dtype, name)
    trajectories = {
        'observations': spec('observations', None, horizon, environment.observation_size),
        'actions': spec('actions', None, horizon, environment.action_size),
        'rewards': spec('rewards', None, horizon),
        'counts': spec('counts', None, horizon),
    }
    states = spec('observations', None, environment.observation_size)

    def step(given, weights, number):
        checks = input_checks.alike(('tasks', 'rollouts'), **given)
        checks += input_checks.alike(['tasks'], observations=given['observations'], **weights or {})
        checks += [op for name, x in given.items() for op in input_checks.finite(name, x)]
        checked = dict(zip(given, input_checks.after(checks, *given.values())))
        rule = policy.evaluation_rule()
        batch = policy.samples(Trajectories(**checked, positions=checked['observations']))
        problem = inner_problem(learner, [batch], rule)
        weights = problem.weights if weights is None else weights
        return inner_step(problem, weights, rule.start(weights), number, stop_grad=True)[0]

    @tf.function(autograph=False)
    def start(tasks: tf.Tensor) -> State:
        return policy.start(tasks).fast

    @tf.function(autograph=False)
    def adapt(**given: tf.Tensor) -> State:
        return step(given, None, 0)

    @tf.function(autograph=False)
    def adapt_further(**given: tf.Tensor) -> State:
        batch = {name: given.pop(name) for name in OF_TRAJECTORIES}
        return step(batch, given, 1)

    @tf.function(autograph=False)
    def act(observations: tf.Tensor, **weights: tf.Tensor) -> dict[str, tf.Tensor]:
        checks = input_checks.alike(['tasks'], observations=observations, **weights)
        checks += input_checks.finite('observations', observations)
        (observations,) = input_checks.after(checks, observations)
        _, shared = learner.weights_of_the_network()
        mean, log_std = distribution(learner, shared | weights, observations)
        return {'mean': mean, 'log_std': tf.broadcast_to(log_std, tf.shape(mean))}

    @tf.function(autograph=False)
    def serve(query_observations: tf.Tensor, **given: tf.Tensor) -> dict[str, tf.Tensor]:
        return act(query_observations, **adapt(**given))

    concrete = adapt.get_concrete_function(**trajectories)
    weights = {
        name: tf.TensorSpec([None, *output.shape[1:]], output.dtype, name)
        for name, output in concrete.structured_outputs.items()
    }
    query = spec('query_observations', None, environment.observation_size)
    return {
        'start': start.get_concrete_function(tf.TensorSpec([], tf.int32, 'tasks')),
        'adapt': concrete,
        'adapt_further': adapt_further.get_concrete_function(**trajectories, **weights),
        'act': act.get_concrete_function(states, **weights),
        'serving_default': serve.get_concrete_function(query, **trajectories),
    }
