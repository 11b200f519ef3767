"""Evaluates policies that a command line describes: returns before and after each gradient step."""

from collections.abc import Callable
from typing import Any

import numpy as np

from maml_tf.commands.experiment import Experiment
from maml_tf.commands.policies import pictures
from maml_tf.commands.run_evaluation import (
    evaluation_tasks,
    load_evaluated,
    report_scores,
)
from maml_tf.commands.run_export import known_of
from maml_tf.evaluation import evaluate
from maml_tf.objectives.metric import gradient_steps
from maml_tf.rl.evaluation import Evaluation, evaluated
from maml_tf.rl.flags import OF_TASKS
from maml_tf.rl.meta_policy import MetaPolicy
from maml_tf.rl.simulation import Simulation
from maml_tf.saving.exports.export_policy import export_policy

VALIDATION_TASKS = 20


def simulates(experiment: Experiment) -> bool:
    """Says whether the tasks are an environment's."""
    return isinstance(experiment.source, Simulation)


def policy_validator(experiment: Experiment) -> Callable[[Callable[[], bool]], np.ndarray]:
    """Returns (whether to leave off: it never does) -> mean validation returns, [steps + 1]."""
    source = experiment.source
    policy = MetaPolicy(experiment.learner, source.environment, source.settings)
    tasks = source.tasks('val', experiment.evaluation, evaluate.TASK_SEED)
    return lambda leave_off: _evaluated(experiment, policy, tasks, VALIDATION_TASKS).returns.mean(0)


def run_policy_evaluation(experiment: Experiment) -> None:
    """Lets the loaded policy adapt to --test_tasks tasks, and writes all that follows from it.

    Raises: UserError where there is nothing to evaluate.
    """
    flags, learner, source = experiment.flags, experiment.learner, experiment.source
    iteration, origin = load_evaluated(experiment)
    policy = MetaPolicy(learner, source.environment, source.settings)
    result = _evaluated(experiment, policy, evaluation_tasks(experiment), flags.test_tasks)
    axis = gradient_steps(result.returns.shape[1])
    size = f'{flags.update_batch_size} rollouts'
    protocol = _protocol(experiment)
    results = report_scores(experiment, result.returns, axis, size, protocol, iteration, origin)
    title = f'{flags.algorithm}, {flags.datasource} {size}'
    pictures.draw(experiment, result, axis, title)
    print(f'Pictures and results.json: {experiment.directory.path}')
    if flags.export_dir:
        export_policy(policy, flags.export_dir, known_of(experiment, iteration, results))
        print(f'SavedModel: {flags.export_dir}')


def _evaluated(experiment, policy, draw, tasks) -> Evaluation:
    rollouts, steps = experiment.flags.update_batch_size, experiment.learner.evaluation_steps
    return evaluated(policy, draw, tasks, rollouts, steps)


def _protocol(experiment: Experiment) -> dict[str, Any]:
    """Which tasks are evaluated, and how: runs that share it were scored alike."""
    flags = experiment.flags
    return {
        'datasource': flags.datasource,
        'split': experiment.split,
        'shot': flags.update_batch_size,
        'task_seed': evaluate.TASK_SEED,
        **{name: flags[name].value for name in OF_TASKS},
    }
