"""Time of an iteration of MAML with TRPO on 2-D navigation or a half-cheetah, against PyTorch.

    python tests/benchmarks/policies.py [--datasource=half_cheetah_dir] [--tasks=20] [--rollouts=20]

An iteration: rollouts of 100 or 200 steps in every task, the inner step, rollouts of the adapted
policies, and the outer step with ten products with the Fisher matrix. Sides:
  ours   the package's training
  torch  PyTorch, a loop over tasks (torch_rl.py); the half-cheetah is stepped by gymnasium
Each side is a process of its own, and one computes at a time: after a first iteration, in which
both have the same weights, tasks and noise and have to find the same, and a warm-up, they take
turns, round after round. Run it on an idle machine.

The table: medians of an iteration, in brackets how many times as long as the package PyTorch takes;
steps of the environment a second, of the whole iteration; the largest resident memory; the time of
the first iteration.
"""

import argparse
import contextlib
import json
import pathlib
import statistics
import sys
import tempfile

import numpy as np
import step_time
from workloads import serve

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.episodes.random_bits import keyed_bits
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.objectives.objective import Return
from maml_tf.rl.environments.environment import noise
from maml_tf.rl.environments.mujoco_rollouts import MuJoCoEnvironment
from maml_tf.rl.environments.navigation2d import Navigation2D
from maml_tf.rl.environments.robots import ROBOTS
from maml_tf.rl.meta_policy import MetaPolicy
from maml_tf.rl.policy import GaussianPolicy
from maml_tf.rl.simulation import Simulation

# Of the inner step.
RATES = {'navigation2d': 0.5, 'half_cheetah_dir': 0.1}
# Steps of the first iteration's rollouts: a half-cheetah's are chaotic, and rounding alone tells
# longer ones apart.
FIRST = {'navigation2d': 100, 'half_cheetah_dir': 40}
COMPARED = ('pre_return', 'post_return', 'gradient_norm', 'surrogate', 'kl')


class Side:
    """`ours`, see workloads.serve."""

    def __init__(self, datasource, tasks, rollouts):
        environment = environment_of(datasource)
        network = GaussianPolicy((environment.observation_size,), environment.action_size)
        learner = MAML(network, Return(), RATES[datasource])
        spec = EpisodeSpec(1, rollouts, rollouts)
        self._draw = Simulation(environment).tasks('train', spec, 0)
        self._policy, self._sizes = MetaPolicy(learner, environment), (tasks, rollouts)
        self._whole, environment.horizon = environment.horizon, FIRST[datasource]

    def first_step(self):
        log = self._take(0)
        self._policy.environment.horizon = self._whole
        return {name: float(log[name]) for name in COMPARED}

    def run(self, first, count):
        for i in range(first, first + count):
            self._take(i)['kl'].numpy()

    def _take(self, i):
        tasks, rollouts = self._sizes
        return self._policy.iteration(self._draw(i * tasks, tasks), rollouts, 1)

    def write(self, path):
        """Writes weights, tasks, noise and starts of the first iteration, for the other side."""
        tasks, rollouts = self._sizes
        drawn, environment = self._draw(0, tasks), self._policy.environment
        keys = [keyed_bits(drawn.key, 4)[:, 2 * i : 2 * i + 2] for i in range(2)]
        sizes = environment.horizon, rollouts, environment.action_size
        given = {'tasks': drawn.task.numpy(), 'noise': np.stack([noise(k, *sizes) for k in keys])}
        if isinstance(environment, MuJoCoEnvironment):
            for i, key in enumerate(keys):
                given[f'qpos{i}'], given[f'qvel{i}'] = environment.starts(key, rollouts)
        learnt = {
            f'weight{i}': w.numpy() for i, w in enumerate(self._policy.learner.trainable_variables)
        }
        np.savez(path, **given, **learnt)


def environment_of(datasource):
    if datasource == Navigation2D.name:
        return Navigation2D()
    return MuJoCoEnvironment(ROBOTS[datasource]())


def measure(given, path):
    """{side: {'ms': [of a round, ...], and what it said first}}. Raises SystemExit where the sides
    do not compute the same."""
    sizes = {'datasource': given.datasource, 'tasks': given.tasks, 'rollouts': given.rollouts}
    Side(**sizes).write(path)
    torch_sizes = json.dumps(sizes | {'rate': RATES[given.datasource], 'first': str(path)})
    commands = {
        'ours': [sys.executable, __file__, '--worker', json.dumps(sizes)],
        'torch': [given.torch_python, step_time.HERE / 'torch_rl.py', torch_sizes],
    }
    measured = {}
    with contextlib.ExitStack() as stack:
        workers = {}
        for side, command in commands.items():
            worker = workers[side] = stack.enter_context(step_time.Worker(command))
            measured[side] = worker.first | {'ms': []}
            said = ', '.join(f'{name} {worker.first[name]:.5f}' for name in COMPARED)
            step_time.say(f'  {side}: first {worker.first["seconds"]:.1f} s, {said}')
        for name in COMPARED:
            ours, theirs = (measured[side][name] for side in commands)
            # Conjugate gradients in float32 differ by a few percent.
            if abs(ours - theirs) > 0.1 * abs(ours):
                sys.exit(f'the sides differ: {name} is {ours} and {theirs}')
        for worker in workers.values():
            worker.steps(1)
        for i in range(given.rounds):
            for side, worker in workers.items():
                answer = worker.steps(given.steps)
                measured[side]['ms'].append(answer['ms'])
                measured[side]['peak_mb'] = answer['peak_mb']
            turns = ', '.join(
                f'{side} {values["ms"][-1]:.4g} ms' for side, values in measured.items()
            )
            step_time.say(f'  round {i + 1}/{given.rounds}: {turns}')
    return measured


def table(measured, steps):
    """One Markdown table; steps: of the environment in an iteration."""
    lines = [
        ['iteration', 'ms', 'environment steps/s', 'GB', 'first iteration, s'],
        ['---'] * 5,
    ]
    ours = statistics.median(measured['ours']['ms'])
    for side, values in measured.items():
        ms = statistics.median(values['ms'])
        times = '' if side == 'ours' else f' (×{ms / ours:.2f})'
        cells = [side, f'{ms:.4g}{times}', f'{1e3 * steps / ms:,.0f}']
        lines.append([*cells, f'{values["peak_mb"] / 1e3:.1f}', f'{values["seconds"]:.1f}'])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--datasource', choices=RATES, default='navigation2d')
    for name, default in (('tasks', 20), ('rollouts', 20), ('rounds', 5), ('steps', 2)):
        parser.add_argument(f'--{name}', type=int, default=default, help='(default: %(default)s)')
    parser.add_argument(
        '--torch_python', default=sys.executable, help='Python that has PyTorch (default: this one)'
    )
    parser.add_argument('--worker', help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.worker:
        serve(lambda: Side(**json.loads(given.worker)))
        return
    step_time.say_machine(
        step_time.machine() | {'torch': step_time.torch_version(given.torch_python)}
    )
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(given, pathlib.Path(folder) / 'first.npz')
    # Few rollouts end before the horizon.
    steps = 2 * given.tasks * given.rollouts * environment_of(given.datasource).horizon
    print(table(measured, steps), flush=True)


if __name__ == '__main__':
    main()
