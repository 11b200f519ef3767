"""The robots' tasks as environments of gymnasium, and their pictures."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from command import ROOT

from maml_tf.episodes.random_bits import keyed_bits
from maml_tf.errors import UserError
from maml_tf.rl.environments.mujoco_rollouts import MuJoCoEnvironment
from maml_tf.rl.environments.robots import ROBOTS

REASON = "needs gymnasium and mujoco: pip install '.[rl]'"
gymnasium = pytest.importorskip('gymnasium', reason=REASON)
pytest.importorskip('mujoco.batch', reason=REASON)
KEY = tf.reshape(keyed_bits(None, 2), [1, 2])
WHERE = 'maml_tf.rl.environments.registration:maml_tf/'
NAMES = {
    'half_cheetah_dir': 'HalfCheetahDir-v0',
    'half_cheetah_vel': 'HalfCheetahVel-v0',
    'ant_dir': 'AntDir-v0',
    'ant_vel': 'AntVel-v0',
}


@pytest.mark.parametrize('robot', ROBOTS)
def test_gymnasium_finds_no_fault(robot):
    from gymnasium.utils.env_checker import check_env

    environment = gymnasium.make(WHERE + NAMES[robot])
    assert environment.spec.max_episode_steps == ROBOTS[robot].horizon == 200
    # They are drawn below, without TensorFlow.
    check_env(environment.unwrapped, skip_render_check=True)
    environment.close()


@pytest.mark.parametrize('robot', ('half_cheetah_dir', 'ant_vel'))
def test_the_numbers_are_the_batched_rollouts(robot):
    batched = MuJoCoEnvironment(ROBOTS[robot]())
    task = batched.draw_tasks(1, KEY)
    seen = batched.rollouts(lambda _, noise: 1.5 * noise, task, 2, KEY)
    seen = type(seen)(*(np.array(x) for x in seen))
    starts = batched.starts(KEY, 2)
    environment = gymnasium.make(WHERE + NAMES[robot], task=float(task[0, 0]))
    for rollout in range(2):
        environment.reset()
        environment.unwrapped.set_state(starts[0][0, rollout], starts[1][0, rollout])
        for t in range(int(np.sum(seen.counts[0, rollout]))):
            action = np.array(seen.actions[0, rollout, t])
            observation, reward, terminated, truncated, info = environment.step(action)
            np.testing.assert_array_equal(np.float32(reward), seen.rewards[0, rollout, t])
            if t < 199:
                after = seen.observations[0, rollout, t + 1]
                np.testing.assert_array_equal(observation.astype(np.float32), after)
        assert (terminated or truncated) and truncated == (t == 199)
        assert info == {'task': float(task[0, 0])}
    environment.close()


def test_the_task_is_given_or_drawn():
    environment = gymnasium.make(WHERE + 'AntVel-v0')
    first, info = environment.reset(seed=3)
    again, same = environment.reset(seed=3)
    np.testing.assert_array_equal(first, again)
    drawn = [info['task'], same['task'], *(environment.reset()[1]['task'] for _ in range(3))]
    assert drawn[0] == drawn[1] and len({*drawn}) == 4 and all(0 <= task <= 3 for task in drawn)
    assert environment.reset(options={'task': 1.5})[1] == {'task': 1.5}
    given = gymnasium.make(WHERE + 'HalfCheetahDir-v0', task=-1.0)
    assert [given.reset()[1]['task'] for _ in range(3)] == [-1.0] * 3


def test_a_state_that_is_not_finite_ends_the_rollout(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    environment = gymnasium.make(WHERE + 'HalfCheetahDir-v0', task=1.0).unwrapped
    before, _ = environment.reset(seed=0)
    environment.data.qvel[0] = 1e11
    observation, reward, terminated, _, info = environment.step(np.zeros(6))
    assert terminated and info['diverged'] and reward == 0 and np.isfinite(observation).all()
    assert not [*tmp_path.iterdir()]
    environment.reset()
    assert not environment.step(np.zeros(6))[2]


@pytest.fixture(scope='module')
def drawing():
    """MuJoCo draws without a screen."""
    program = 'import mujoco; mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"))'
    environ = {**os.environ, 'MUJOCO_GL': os.environ.get('MUJOCO_GL', 'egl')}
    done = subprocess.run([sys.executable, '-c', program], env=environ, capture_output=True)
    if done.returncode:
        pytest.skip('MuJoCo finds neither EGL nor OSMesa to draw with')


@pytest.mark.slow
@pytest.mark.parametrize('robot', ('half_cheetah_dir', 'ant_vel'))
def test_a_rollout_is_drawn(robot, drawing):
    environment = MuJoCoEnvironment(ROBOTS[robot]())
    seen = environment.rollouts(lambda _, noise: 3 * noise, tf.ones([1, 1]), 1, KEY)
    pictures = environment.strip(seen, frames=3, height=48, width=64)
    assert pictures.shape == (48, 3 * 64, 3) and pictures.dtype == np.uint8
    first, _, last = np.split(pictures.astype(int), 3, 1)
    assert first.std() > 1 and np.abs(first - last).mean() > 1


def test_what_cannot_be_drawn_is_one_line(monkeypatch):
    monkeypatch.setenv('MUJOCO_GL', 'nothing')
    environment = MuJoCoEnvironment(ROBOTS['half_cheetah_dir']())
    seen = environment.rollouts(lambda _, noise: noise, tf.ones([1, 1]), 1, KEY)
    with pytest.raises(UserError, match='^cannot draw the robot') as error:
        environment.strip(seen, frames=1, height=16, width=16)
    assert '\n' not in str(error.value)


def test_gymnasiums_environments_need_no_tensorflow():
    program = (
        'import sys, gymnasium\n'
        f'environment = gymnasium.make({WHERE + "AntDir-v0"!r})\n'
        'environment.reset(seed=0)\n'
        'environment.step(environment.action_space.sample())\n'
        'assert "tensorflow" not in sys.modules and "keras" not in sys.modules\n'
    )
    subprocess.run([sys.executable, '-c', program], cwd=ROOT, check=True, timeout=300)
