"""Time of a training episode of the methods whose head is solved on the support set, against
PyTorch.

    python tests/benchmarks/heads.py [--episodes=r2d2_omniglot,...] [--rounds=9]

An episode is one iteration of R2-D2, LR-D2 or MetaOptNet with its support vector machine: support
and query images pass through the encoder together, the head is solved, the query loss is
differentiated in the encoder and in what else is learnt, and Adam steps. The data lie in memory.
The encoder is that of four convolutions with 64 filters. Sides:
  ours                 the package's training, maml_tf.training.iterate
  torch                PyTorch, task by task through the encoder, all heads at once; the vector
                       machine's systems by class, as in the package
  torch_channels_last  the same, with images that lie in memory as TensorFlow's do
  torch_whole          as torch, with the vector machine's equations as one system for each task, as
                       a solver of general quadratic programmes has them (metaoptnet only)
Each side is a process of its own, and one computes at a time: after a first step and a warm-up,
they take turns, round after round. Before that their losses and gradient norms in the first step
are compared. Run it on an idle machine.

The table: medians of a step; in brackets how many times as long as the package a side takes; the
time over that of the encoder's convolutions at the speed of a large matrix product ('to limit',
without the head's arithmetic); the largest resident memory; the time of the first step.
"""

import argparse
import contextlib
import statistics
import sys
from typing import NamedTuple

import step_time
from workloads import Workload, serve

from maml_tf.algorithms.closed_form.lrd2 import LRD2
from maml_tf.algorithms.closed_form.metaoptnet import MetaOptNet
from maml_tf.algorithms.closed_form.r2d2 import R2D2
from maml_tf.networks.encoders import conv4
from maml_tf.objectives.classification import MeanClassification
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import TrainingOp
from maml_tf.training.outer_optimizers import adam

METHODS = {'r2d2': R2D2, 'lrd2': LRD2, 'metaoptnet': MetaOptNet}
# {side: its style in torch_heads.py}
STYLES = {'torch': 'plain', 'torch_channels_last': 'channels_last', 'torch_whole': 'whole'}


class Episode(NamedTuple):
    """method: one of METHODS; workload: without inner steps."""

    method: str
    workload: Workload

    @property
    def sides(self):
        """Returns the sides that there are of it."""
        of_torch = [s for s in STYLES if s != 'torch_whole' or self.method == 'metaoptnet']
        return ['ours', *of_torch]

    def gflop(self):
        """Returns the convolutions' operations in a step, 10^9, counted as in Workload.flops."""
        *convolutions, _ = self.workload.multiply_adds()
        of_an_image = 2 * (3 * sum(convolutions) - convolutions[0])
        images = (
            self.workload.tasks * self.workload.way * (self.workload.shot + self.workload.query)
        )
        return images * of_an_image / 1e9


def episode(method, input_shape, tasks, way, shot, query, steps=3, filters=64):
    """An Episode; query is per class, steps are those of a turn."""
    sizes = {'tasks': tasks, 'way': way, 'shot': shot, 'query': query, 'steps': steps}
    network = {'input_shape': input_shape, 'filters': filters, 'max_pool': True}
    return Episode(method, Workload(**sizes, **network, inner_steps=0, inner_lr=0.0))


OMNIGLOT, CIFAR_FS = (28, 28, 1), (32, 32, 3)
# Ways and images of the papers' training episodes; Bertinetto et al. draw the shots of each from
# 1 to 9.
EPISODES = {
    'r2d2_omniglot': episode('r2d2', OMNIGLOT, tasks=1, way=60, shot=9, query=1),
    'r2d2_cifar_fs': episode('r2d2', CIFAR_FS, tasks=1, way=20, shot=9, query=3),
    'lrd2_cifar_fs': episode('lrd2', CIFAR_FS, tasks=1, way=10, shot=9, query=11),
    'metaoptnet_omniglot': episode('metaoptnet', OMNIGLOT, tasks=8, way=5, shot=5, query=15),
    'metaoptnet_cifar_fs': episode('metaoptnet', CIFAR_FS, tasks=8, way=5, shot=5, query=6),
}


def build_learner(method, workload):
    """The package's learner, with the workload's weights in its encoder."""
    encoder = conv4(workload.input_shape, workload.filters)
    weights = workload.weights()
    for number in range(1, 5):
        convolution, norm = (encoder.get_layer(f'{kind}{number}') for kind in ('conv', 'norm'))
        convolution.kernel.assign(weights[f'conv{number}'])
        convolution.bias.assign(weights[f'b{number}'])
        norm.beta.assign(weights[f'norm{number - 1}_beta'])
    return METHODS[method](encoder, MeanClassification())


class TensorFlowSide(step_time.TensorFlowSide):
    """`ours`, see workloads.serve: another learner, whose loss is a mean; steps and reports
    alike."""

    def __init__(self, method, workload):
        learner = build_learner(method, workload)
        self._scale, self._optimizer = 1, adam(1e-3)
        op = TrainingOp(learner, self._optimizer, learner.meta_gradients)
        at_once = learner.share(workload.tasks, workload)
        self._run = iterate(op, step_time.draw(workload), workload.tasks, at_once)


def command(episode, side, torch_python=sys.executable):
    """What starts a side's Worker."""
    method, workload = episode.method, episode.workload.to_json()
    if side == 'ours':
        return [sys.executable, __file__, '--worker', method, workload]
    return [torch_python, step_time.HERE / 'torch_heads.py', method, STYLES[side], workload]


def measure(episode, sides, rounds, steps, torch_python):
    """Runs the sides of one episode in turns; returns what step_time.measure does.

    Raises:
      SystemExit: the sides do not compute the same.
    """
    result = {'gflop': episode.gflop(), 'matmul_gflops': [], 'sides': {}}
    with contextlib.ExitStack() as stack:
        workers = {}
        for side in sides:
            worker = step_time.Worker(command(episode, side, torch_python))
            workers[side], first = stack.enter_context(worker), worker.first
            result['sides'][side] = first | {'ms': []}
            step_time.say(
                f'  {side}: first step {first["seconds"]:.1f} s, loss {first["loss"]:.6f}, '
                f'gradient norm {first["gradient_norm"]:.6f}'
            )
        step_time.check_equal(result['sides'])
        for worker in workers.values():
            worker.steps(steps)
        for i in range(rounds):
            result['matmul_gflops'].append(step_time.matmul_gflops())
            for side, worker in workers.items():
                answer = worker.steps(steps)
                result['sides'][side]['ms'].append(answer['ms'])
                result['sides'][side]['peak_mb'] = answer['peak_mb']
            turns = {side: values['ms'][-1] for side, values in result['sides'].items()}
            said = ', '.join(f'{side} {ms:.4g} ms' for side, ms in turns.items())
            step_time.say(f'  round {i + 1}/{rounds}: {said}')
    return result


def table(measured):
    """One Markdown table of {name of the episode: what `measure` returned}."""
    titles = ['training episode', 'ours, ms', 'quartiles', 'tasks/s', 'torch, ms']
    titles += ['channels last, ms', 'whole, ms', 'to limit']
    titles += ['GB: ours, torch', 'first step s: ours, torch']
    lines = [titles, ['---'] * len(titles)]
    for name, result in measured.items():
        sides = result['sides']
        medians = {side: statistics.median(values['ms']) for side, values in sides.items()}
        turns = sides['ours']['ms']
        quartiles = statistics.quantiles(turns, method='inclusive') if len(turns) > 1 else turns * 3
        ms, tasks = medians['ours'], EPISODES[name].workload.tasks
        limit = 1e3 * result['gflop'] / statistics.median(result['matmul_gflops'])
        others = [
            f'{medians[side]:.4g} (×{medians[side] / ms:.2f})' if side in medians else ''
            for side in STYLES
        ]
        pairs = [
            ', '.join(form(sides[side]) for side in ('ours', 'torch') if side in sides)
            for form in (
                lambda values: f'{values["peak_mb"] / 1e3:.2f}',
                lambda values: f'{values["seconds"]:.1f}',
            )
        ]
        spread = f'{quartiles[0]:.4g} - {quartiles[2]:.4g}'
        speed = f'{1e3 * tasks / ms:.3g}'
        lines.append([name, f'{ms:.4g}', spread, speed, *others, f'{ms / limit:.2f}', *pairs])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names, sides = step_time.names(EPISODES), step_time.names(('ours', *STYLES))
    parser.add_argument('--episodes', type=names, default=list(EPISODES), help='by commas')
    parser.add_argument('--sides', type=sides, default=['ours', *STYLES], help='ours is always in')
    parser.add_argument('--rounds', type=int, default=9, help='(default: %(default)s)')
    parser.add_argument('--steps', type=int, help='in a turn (default: by episode)')
    parser.add_argument(
        '--torch_python', default=sys.executable, help='Python that has PyTorch (default: this one)'
    )
    parser.add_argument('--output', default='heads.json', help='(default: %(default)s)')
    parser.add_argument('--worker', nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.worker:
        method, workload = given.worker
        serve(lambda: TensorFlowSide(method, Workload.from_json(workload)))
        return
    report = {'machine': step_time.machine(), 'episodes': {}}
    if set(given.sides) & set(STYLES):
        report['machine']['torch'] = step_time.torch_version(given.torch_python)
    step_time.say_machine(report['machine'])
    for name in given.episodes:
        step_time.say(name)
        chosen = EPISODES[name]
        sides = [side for side in chosen.sides if side == 'ours' or side in given.sides]
        steps = given.steps or chosen.workload.steps
        report['episodes'][name] = measure(chosen, sides, given.rounds, steps, given.torch_python)
        step_time.write_json(given.output, report)
    print(table(report['episodes']), flush=True)


if __name__ == '__main__':
    main()
