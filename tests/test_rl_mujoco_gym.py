"""The robots' tasks as environments of gymnasium."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.episodes.random_bits import keyed_bits
from maml_tf.errors import UserError
from maml_tf.rl.environments.ant import AntVelocity
from maml_tf.rl.environments.half_cheetah import HalfCheetahDirection
from maml_tf.rl.environments.registration import FAMILIES, register

REASON = "needs gymnasium and mujoco: pip install '.[rl]'"
gymnasium = pytest.importorskip('gymnasium', reason=REASON)
pytest.importorskip('mujoco.batch', reason=REASON)
KEY = tf.reshape(keyed_bits(None, 2), [1, 2])


@pytest.fixture(autouse=True)
def registered():
    register()
    register()


@pytest.mark.parametrize('name', FAMILIES)
def test_gymnasium_finds_no_fault(name):
    from gymnasium.utils.env_checker import check_env

    environment = gymnasium.make(f'maml_tf/{name}')
    assert environment.spec.max_episode_steps == environment.unwrapped.family.horizon
    check_env(environment.unwrapped, skip_render_check=True)
    environment.close()


@pytest.mark.parametrize('family', (HalfCheetahDirection, AntVelocity), ids=lambda x: x.name)
def test_the_numbers_are_the_batched_rollouts(family):
    name = {'half_cheetah_dir': 'HalfCheetahDir-v0', 'ant_vel': 'AntVel-v0'}[family.name]
    batched = family()
    task = batched.draw_tasks(1, KEY)
    seen = batched.rollouts(lambda _, noise: 1.5 * noise, task, 2, KEY)
    starts = batched.starts(KEY, 2)
    environment = gymnasium.make(f'maml_tf/{name}', task=float(task[0, 0]))
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
    environment = gymnasium.make('maml_tf/AntVel-v0')
    first, info = environment.reset(seed=3)
    again, same = environment.reset(seed=3)
    np.testing.assert_array_equal(first, again)
    drawn = [info['task'], same['task'], *(environment.reset()[1]['task'] for _ in range(3))]
    assert drawn[0] == drawn[1] and len({*drawn}) == 4 and all(0 <= task <= 3 for task in drawn)
    assert environment.reset(options={'task': 1.5})[1] == {'task': 1.5}
    given = gymnasium.make('maml_tf/HalfCheetahDir-v0', task=-1.0)
    assert [given.reset()[1]['task'] for _ in range(3)] == [-1.0] * 3


def test_a_state_that_is_not_finite_ends_the_rollout(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    environment = gymnasium.make('maml_tf/HalfCheetahDir-v0', task=1.0).unwrapped
    before, _ = environment.reset(seed=0)
    environment.data.qvel[0] = 1e11
    observation, reward, terminated, _, info = environment.step(np.zeros(6))
    assert terminated and info['diverged'] and reward == 0 and np.isfinite(observation).all()
    assert not [*tmp_path.iterdir()]
    environment.reset()
    assert not environment.step(np.zeros(6))[2]


def drawn_or_skipped(draw):
    try:
        return draw()
    except Exception as error:
        pytest.skip(f'MuJoCo cannot draw here: {error}')


@pytest.mark.slow
def test_robots_are_drawn():
    from maml_tf.rl.environments.frames import strip

    for family, name in ((HalfCheetahDirection, 'HalfCheetahDir'), (AntVelocity, 'AntVel')):
        environment = gymnasium.make(
            f'maml_tf/{name}-v0', render_mode='rgb_array', width=64, height=48
        )
        environment.reset(seed=0)
        picture = drawn_or_skipped(environment.render)
        assert picture.shape == (48, 64, 3) and picture.std() > 1
        environment.close()
        batched = family()
        seen = batched.rollouts(lambda _, noise: 3 * noise, tf.ones([1, 1]), 1, KEY)
        pictures = strip(batched, seen, frames=3, height=48, width=64)
        assert pictures.shape == (48, 3 * 64, 3) and pictures.dtype == np.uint8
        first, _, last = np.split(pictures.astype(int), 3, 1)
        assert np.abs(first - last).mean() > 1


def test_a_missing_extra_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, 'gymnasium', None)
    with pytest.raises(UserError, match=r"pip install '\.\[rl\]'$"):
        register()
