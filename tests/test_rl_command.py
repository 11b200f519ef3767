"""The command line on an environment, as a user types it, and what evaluation does."""

import json

import numpy as np
import pytest
import tensorflow as tf
from command import run_maml
from test_bad_input import refused_here

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.commands.command_line import parsed
from maml_tf.commands.experiment import problem_of
from maml_tf.datasets.sources import SOURCES
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.objectives.objective import Return
from maml_tf.rl.environments.navigation2d import Navigation2D
from maml_tf.rl.evaluation import evaluated
from maml_tf.rl.meta_policy import MetaPolicy
from maml_tf.rl.policy import GaussianPolicy
from maml_tf.rl.simulation import ROBOTS, Simulation
from maml_tf.update_rules import GradientDescent, ScaledLater

TINY = (
    '--datasource=navigation2d',
    *('--meta_batch_size=2', '--update_batch_size=3', '--update_lr=0.5', '--test_tasks=3'),
    *('--rl_cg_iterations=3', '--test_set', '--test_num_updates=2'),
)


def run(logdir, iterations, *arguments):
    run_maml(
        *TINY,
        f'--metatrain_iterations={iterations}',
        f'--logdir={logdir}',
        *arguments,
        cwd=logdir.parent,
    )
    return next(path for path in logdir.iterdir() if path.is_dir())


def weights(directory, iteration):
    reader = tf.train.load_checkpoint(str(directory / f'model-{iteration}'))
    names = reader.get_variable_to_shape_map()
    return {name: reader.get_tensor(name) for name in names if 'learner' in name}


@pytest.mark.slow
def test_a_run_and_its_resumption(tmp_path):
    whole = run(tmp_path / 'whole', 11, f'--export_dir={tmp_path}/model')
    run(tmp_path / 'parts', 5)
    parts = run(tmp_path / 'parts', 11)
    ours, theirs = weights(whole, 11), weights(parts, 11)
    assert len(ours) == 7
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name])
    assert np.abs(ours[min(ours)] - weights(parts, 5)[min(ours)]).max() > 0
    for name in ('metrics.csv', 'scores.csv', 'best/score.json'):
        assert (whole / name).read_text() == (parts / name).read_text()
    results = json.loads((whole / 'results.json').read_text())
    assert results['metric'] == 'return' and results['inner_steps'] == [0, 1, 2]
    assert results['tasks'] == 3 and results['split'] == 'test' and max(results['mean']) < 0
    names = {path.name for path in whole.iterdir()}
    assert {'paths.png', 'adaptation_by_step.png', 'learning_curve.png', 'flags.txt'} <= names
    check_export(tmp_path / 'model', {name.split('/')[1]: w for name, w in ours.items()})


def check_export(path, learnt):
    """The exported policy adapts as the library does, to trajectories that it is given."""
    model = tf.saved_model.load(str(path))
    assert json.loads((path / 'maml_tf.json').read_text())['action_size'] == 2
    learner = MAML(GaussianPolicy((2,), 2), Return(), 0.5)
    for name, variable in learner.named_variables().items():
        variable.assign(learnt[name])
    policy = MetaPolicy(learner, Navigation2D())
    drawn = Simulation(Navigation2D()).tasks('test', EpisodeSpec(1, 2, 2), 5)(0, 2)
    before = policy.start(2)
    seen = policy.rollouts(before, drawn, 2, 0)
    given = {name: getattr(seen, name) for name in ('observations', 'actions', 'rewards', 'counts')}
    state = model.signatures['adapt'](**given)
    once = policy.adapted(before, policy.samples(seen), 0)
    for name, w in once.fast.items():
        np.testing.assert_allclose(state[name], w, atol=2e-5)
    twice = policy.adapted(once, policy.samples(seen), 1)
    state = model.signatures['adapt_further'](**given, **once.fast)
    for name, w in twice.fast.items():
        np.testing.assert_allclose(state[name], w, atol=2e-5)
    states = seen.observations[:, 0]
    answer = model.signatures['act'](observations=states, **once.fast)
    mean, log_std = learner.network.distribution(states, once.fast)
    np.testing.assert_allclose(answer['mean'], mean, atol=1e-5)
    np.testing.assert_allclose(answer['log_std'][:, :1], log_std, atol=1e-6)
    served = model.signatures['serving_default'](query_observations=states, **given)
    np.testing.assert_allclose(served['mean'], mean, atol=1e-3)
    start = model.signatures['start'](tasks=tf.constant(2))
    np.testing.assert_allclose(start['w1'], before.fast['w1'])
    with pytest.raises(tf.errors.InvalidArgumentError, match='rewards: holds NaN'):
        model.signatures['adapt'](**given | {'rewards': np.nan * seen.rewards})


def test_evaluation_halves_the_rate_after_the_first_step():
    w, g = {'w': tf.constant([1.0])}, {'w': tf.constant([2.0])}
    rule = ScaledLater(GradientDescent(0.1), 0.5)
    for step, expected in ((0, 0.8), (1, 0.9), (7, 0.9)):
        for form in (step, tf.constant(step)):
            moved, _ = rule(w, g, {}, {}, form)
            np.testing.assert_allclose(moved['w'], [expected], rtol=1e-6)


@pytest.mark.slow
def test_evaluation_takes_steps_on_its_own_rollouts():
    learner = MAML(GaussianPolicy((2,), 2), Return(), 0.5, evaluation_lr=0.2)
    policy = MetaPolicy(learner, Navigation2D())
    draw = Simulation(Navigation2D()).tasks('val', EpisodeSpec(1, 4, 4), 1)
    result = evaluated(policy, draw, 3, 4, 2)
    assert result.returns.shape == (3, 3) and len(result.trajectories) == 3
    drawn, weights = draw(tf.constant(0, tf.int64), 3), policy.start(3)
    for step in range(3):
        seen = policy.rollouts(weights, drawn, 4, step)
        returns = tf.reduce_mean(tf.reduce_sum(seen.rewards, -1), -1)
        np.testing.assert_allclose(result.returns[:, step], returns, rtol=1e-4)
        # By hand: alpha of evaluation, then half of it.
        batch, rate = policy.samples(seen), (0.2, 0.1, 0.1)[step]
        with tf.GradientTape() as tape:
            tape.watch(weights.fast)
            now = learner.network.distribution(batch.observations, weights.fast)
            loss = -tf.reduce_sum(batch.mean(now.log_likelihood(batch.actions) * batch.advantages))
        slopes = tape.gradient(loss, weights.fast)
        moved = {name: w - rate * slopes[name] for name, w in weights.fast.items()}
        after = policy.adapted(weights, batch, step)
        for name, w in moved.items():
            np.testing.assert_allclose(after.fast[name], w, atol=1e-5)
        weights = after
    # Tasks do not depend on how many are asked for.
    np.testing.assert_allclose(
        evaluated(policy, draw, 2, 4, 1).returns, result.returns[:2, :2], rtol=1e-3
    )


@pytest.mark.parametrize('name', ['navigation2d', *ROBOTS])
def test_rows(name):
    for oracle, more in ((), 0), (('--baseline=oracle',), 1):
        flags = parsed(f'--datasource={name}', *oracle)
        problem = problem_of(flags)
        network = problem.network()
        row = SOURCES[name]
        assert network.input_shape == problem.input_shape and network.output_dim == row.output_dim
        if name == 'navigation2d':
            source = row.load(flags)
            assert source.input_shape == problem.input_shape == (2 + 2 * more,)
            assert source.environment.action_size == row.output_dim


def test_what_means_nothing_to_an_environment_is_refused(tmp_path):
    for arguments, words in (
        (('--algorithm=prototypical',), 'is learnt by maml, anil'),
        (('--norm=None',), '--norm=None: means nothing to --datasource=navigation2d'),
        (('--meta_lr=0.1',), '--meta_lr=0.1: means nothing'),
        (('--num_classes=3',), '--num_classes=3: means nothing'),
        (('--rl_max_kl=0',), '--rl_max_kl=0.0: above 0'),
    ):
        refused_here(tmp_path, ['--datasource=navigation2d', *arguments], words)
    words = '--rl_discount=0.9: means nothing to --datasource=sinusoid'
    refused_here(tmp_path, ['--datasource=sinusoid', '--rl_discount=0.9'], words)
