"""The robots' rollouts: against MuJoCo stepped one by one and rewards worked out by hand."""

import pathlib
import sys
import warnings

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.episodes.random_bits import keyed_bits
from maml_tf.errors import UserError
from maml_tf.rl.environments.ant import AntDirection, AntVelocity
from maml_tf.rl.environments.half_cheetah import HalfCheetahDirection, HalfCheetahVelocity
from maml_tf.rl.environments.mujoco_rollouts import MuJoCoEnvironment

FAMILIES = (HalfCheetahDirection, HalfCheetahVelocity, AntDirection, AntVelocity)
needs_mujoco = lambda test: pytest.mark.skipif(
    not _installed(), reason="needs gymnasium and mujoco: pip install '.[rl]'"
)(test)


def _installed():
    try:
        import gymnasium  # noqa: F401
        import mujoco.batch  # noqa: F401
    except ImportError:
        return False
    return True


def keys(tasks):
    return tf.reshape(keyed_bits(None, 2 * tasks), [tasks, 2])


def wild(observations, noise):
    """A policy that is often clipped."""
    return 2.0 * noise


def by_hand(family):
    """A robot loaded anew, changed to rllab's, and MuJoCo stepped through its plain functions."""
    import gymnasium
    import mujoco

    ant = family.name.startswith('ant')
    assets = pathlib.Path(gymnasium.__file__).parent / 'envs/mujoco/assets'
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        model = mujoco.MjModel.from_xml_path(
            str(assets / ('ant.xml' if ant else 'half_cheetah.xml'))
        )
    if ant:
        model.opt.timestep = 0.02
        model.geom_solref[:], model.geom_solimp[:, :3] = [0.02, 1], [0.8, 0.8, 0.01]
    data = mujoco.MjData(model)

    def looked():
        """What the policy sees, the velocity, and the clipped forces."""
        mujoco.mj_forward(model, data)
        mujoco.mj_rnePostConstraint(model, data)
        mass, speed, momentum = model.body_mass, np.zeros(6), np.zeros(3)
        for body in range(model.nbody):
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_BODY, body, speed, 0)
            momentum += mass[body] * speed[3:]
        centre = mass @ data.xipos / mass.sum()
        forces = np.clip(data.cfrc_ext.copy().ravel(), -1, 1)
        turn = np.zeros(9)
        if ant:
            mujoco.mju_quat2Mat(turn, data.qpos[3:7])
            parts = data.qpos, data.qvel, forces, turn, centre
        else:
            parts = data.qpos[1:], data.qvel, centre
        return np.concatenate(parts), momentum[0] / mass.sum(), forces

    def start(positions, velocities):
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:] = positions, velocities
        return looked()[0]

    def step(action):
        data.ctrl[:] = action
        mujoco.mj_step(model, data)
        return *looked(), data.qpos[2]

    return start, step


@needs_mujoco
@pytest.mark.parametrize('family', FAMILIES, ids=lambda family: family.name)
def test_rollouts_are_mujoco_stepped_one_by_one(family):
    environment, ant = MuJoCoEnvironment(family()), family.name.startswith('ant')
    task = environment.draw_tasks(2, keys(2))
    seen = environment.rollouts(wild, task, 3, keys(2))
    seen = type(seen)(*(np.array(x) for x in seen))
    starts = environment.starts(keys(2), 3)
    start, step = by_hand(family)
    ends = []
    for index in np.ndindex(2, 3):
        goal = float(task[index[0], 0])
        observation = start(starts[0][index], starts[1][index])
        for t in range(environment.horizon):
            np.testing.assert_allclose(seen.observations[index][t], observation, 1e-6, 1e-6)
            action = np.clip(seen.actions[index][t].astype(np.float64), -1, 1)
            observation, velocity, forces, height = step(action)
            along = goal * velocity if family.name.endswith('dir') else -abs(velocity - goal)
            reward = along - 0.05 * np.sum(action**2)
            if ant:
                reward = along + 0.05 + (family.name == 'ant_vel')
                reward -= 0.005 * np.sum(action**2) + 0.0005 * np.sum(forces**2)
            assert seen.counts[index][t] == 1
            np.testing.assert_allclose(seen.rewards[index][t], reward, 1e-5, 1e-6)
            if ant and not 0.2 <= height <= 1.0:
                break
        ends.append(t + 1)
        assert np.sum(seen.counts[index]) == t + 1
        np.testing.assert_array_equal(seen.rewards[index][t + 1 :], 0)
    assert np.abs(seen.actions).max() > 1
    # Some ants fall.
    assert (min(ends) < 200) == ant and max(ends) > 20
    shapes = [tuple(x.shape) for x in seen]
    assert shapes[0] == (2, 3, 200, environment.observation_size) == (2, 3, 200, 125 if ant else 20)
    assert shapes[4] == (2, 3, 201, 2 if ant else 1)
    place = 0 if ant else -3
    if ant:
        np.testing.assert_array_equal(seen.positions[:, :, :-1], seen.observations[..., :2])
    else:
        x = seen.positions[..., 0] - seen.positions[:, :, :1, 0]
        centre = seen.observations[..., place] - seen.observations[:, :, :1, place]
        np.testing.assert_allclose(x[:, :, :-1], centre, atol=0.4)


@needs_mujoco
@pytest.mark.parametrize('family', (HalfCheetahVelocity, AntDirection), ids=lambda x: x.name)
def test_rollouts_depend_on_their_tasks_key_alone(family):
    environment = MuJoCoEnvironment(family(), threads=1)
    task = environment.draw_tasks(3, keys(3))
    all_tasks = environment.rollouts(wild, task, 4, keys(3))
    environment = MuJoCoEnvironment(family(), threads=3)
    for _ in range(2):  # Nothing is left over from the rollouts before.
        again = environment.rollouts(wild, task, 4, keys(3))
        for one, other in zip(all_tasks, again):
            np.testing.assert_array_equal(one, other)
    alone = environment.rollouts(wild, task[1:2], 4, keys(3)[1:2])
    # TensorFlow's logarithm of a shorter array may round otherwise, and falls magnify it.
    for one, other in zip(all_tasks, alone):
        np.testing.assert_allclose(one[1:2, :, :20], other[:, :, :20], 1e-4, 1e-5)
    assert not np.array_equal(all_tasks.rewards[0], all_tasks.rewards[1])


@needs_mujoco
def test_a_rollout_begins_near_the_start():
    for family in (HalfCheetahDirection, AntDirection):
        environment = MuJoCoEnvironment(family())
        positions, velocities = environment.starts(keys(2), 1500)
        assert positions.shape == (2, 1500, environment.robot.model.nq)
        if family is AntDirection:
            assert environment.robot.start[2] == 0.55
            np.testing.assert_allclose(np.linalg.norm(positions[..., 3:7], axis=-1), 1, 1e-12)
            positions = np.delete(positions - environment.robot.start, range(3, 7), -1)
        else:
            np.testing.assert_array_equal(environment.robot.start, 0)
        # Of 3,000 numbers the mean is within 5 and the spread within 8 % of what it should be.
        for drawn, spread in ((positions, 0.01), (velocities, 0.1)):
            np.testing.assert_allclose(np.std(drawn, (0, 1)), spread, 0.08)
            assert np.abs(np.mean(drawn, (0, 1))).max() < 5 * spread / np.sqrt(3000)


@needs_mujoco
def test_tasks_are_directions_and_speeds():
    direction = np.array(MuJoCoEnvironment(AntDirection()).draw_tasks(1000, keys(1000)))
    assert set(direction.ravel()) == {-1.0, 1.0} and 440 < np.sum(direction > 0) < 560
    for family, fastest in ((HalfCheetahVelocity, 2), (AntVelocity, 3)):
        speed = np.array(MuJoCoEnvironment(family()).draw_tasks(1000, keys(1000)))
        assert speed.shape == (1000, 1) and speed.min() >= 0 and speed.max() <= fastest
        assert abs(speed.mean() - fastest / 2) < 0.05 * fastest
    environment = MuJoCoEnvironment(HalfCheetahDirection())
    assert [environment.describe(tf.constant([x])) for x in (1.0, -1.0)] == ['forward', 'backward']
    assert MuJoCoEnvironment(HalfCheetahVelocity()).describe(tf.constant([1.234])) == 'speed 1.23'


@needs_mujoco
def test_a_rollout_that_diverges_ends_there(monkeypatch, tmp_path, capsys):
    import mujoco.batch

    monkeypatch.chdir(tmp_path)
    calls = {'act': 0, 'step': 0}

    def act(observations, noise):
        calls['act'] += 1
        assert np.isfinite(observations).all()
        drawn = np.array(noise)
        if calls['act'] == 31:
            drawn[0, 0, 2] = np.nan
        return tf.constant(drawn)

    class Breaking(mujoco.batch.Batch):
        def step(self, ids, stage):
            calls['step'] += 1
            if calls['step'] == 11:
                self.qvel[1, 0] = 1e11  # MuJoCo resets what is as large.
            super().step(ids, stage=stage)
            if calls['step'] == 21:
                self.qpos[4, 3] = np.inf

    task = tf.ones([2, 1])
    environment = lambda: MuJoCoEnvironment(HalfCheetahDirection())
    whole = environment().rollouts(lambda _, noise: noise, task, 3, keys(2))
    assert capsys.readouterr().out == ''
    monkeypatch.setattr(mujoco.batch, 'Batch', Breaking)
    broken = environment().rollouts(act, task, 3, keys(2))
    lines = capsys.readouterr()
    assert [line for line in lines.out.splitlines() if line] == [
        'half_cheetah_dir: 3 rollouts of 6 ended where the state, the action or the reward was '
        'not finite'
    ]
    assert not [*tmp_path.iterdir()]  # No log file of MuJoCo's.
    ends = np.full(6, 200)
    ends[[0, 1, 4]] = 30, 10, 20
    counts = np.reshape(broken.counts, [6, 200])
    np.testing.assert_array_equal(counts, np.arange(200) < ends[:, np.newaxis])
    for name, one, other in zip(broken._fields, broken, whole):
        assert np.isfinite(one).all(), name
        one, other = (np.reshape(x, [6, *x.shape[2:]]) for x in (one, other))
        for rollout in range(6):
            end = ends[rollout]
            np.testing.assert_array_equal(one[rollout, :end], other[rollout, :end])
            if name in ('rewards', 'actions'):
                np.testing.assert_array_equal(one[rollout, end:], 0)


@needs_mujoco
def test_a_policy_that_diverges_everywhere_ends_all(capsys):
    nothing = MuJoCoEnvironment(AntDirection()).rollouts(
        lambda _, noise: noise + np.float32(np.nan), tf.ones([1, 1]), 2, keys(1)
    )
    assert '2 rollouts of 2' in capsys.readouterr().out
    assert np.sum(nothing.counts) == 0 and all(np.isfinite(x).all() for x in nothing)


@needs_mujoco
def test_float64(float64):
    environment = MuJoCoEnvironment(HalfCheetahVelocity())
    seen = environment.rollouts(wild, environment.draw_tasks(1, keys(1)), 1, keys(1))
    assert {x.dtype for x in seen} == {tf.float64}


@pytest.mark.parametrize('module', ('gymnasium', 'mujoco', 'mujoco.batch'))
def test_a_missing_extra_is_one_line(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    if module == 'mujoco':
        monkeypatch.setitem(sys.modules, 'mujoco.batch', None)
    with pytest.raises(UserError, match=r"pip install '\.\[rl\]'$") as error:
        MuJoCoEnvironment(AntVelocity())
    assert '\n' not in str(error.value)
