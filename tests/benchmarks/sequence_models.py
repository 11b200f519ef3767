"""Time of a training step of the methods that read a support set as a sequence, against PyTorch.

    python tests/benchmarks/sequence_models.py [--cases=snail_omniglot,...] [--rounds=9]

A step is the embedding of all support and query images, the sequence model, the query loss, its
gradient and Adam, on made-up data in memory. The encoder is that of four convolutions with 64
filters. Sides:
  ours             the package's training, maml_tf.training.iterate; batch norm by task
  torch            PyTorch, support set and queries at once; batch norm over the meta-batch, as its
                   users have it
  torch_sequences  the same, each query behind a copy of the support set, as released codes have it
  torch_by_task    as torch, with batch norm by task, as in the package
Each side is a process of its own, and one computes at a time: after a first step and a warm-up,
they take turns, round after round. Before that, losses and gradient norms of those with the same
batch norm are compared. Run it on an idle machine.

The table: medians of a step; in brackets how many times as long as the package a side takes; the
time over that of the convolutions and products at the speed of a large matrix product ('to limit');
the largest resident memory; the time of the first step.
"""

import argparse
import contextlib
import statistics
import sys
from typing import NamedTuple

import numpy as np
import sequence_weights
import step_time
import tensorflow as tf
from heads import episode
from workloads import Workload, serve

from maml_tf.algorithms.model_based.snail import SNAIL
from maml_tf.episodes.order import random_order, take
from maml_tf.networks.encoders import conv4
from maml_tf.objectives import MeanClassification
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import TrainingOp
from maml_tf.training.outer_optimizers import adam

# {side: its style in torch_sequence_models.py}
STYLES = {'torch': 'plain', 'torch_sequences': 'sequences', 'torch_by_task': 'by_task'}
# Sides that compute the same.
ALIKE = (('ours', 'torch_by_task'), ('torch', 'torch_sequences'))
RATE = 1e-4


class Case(NamedTuple):
    """method: one of BUILD; workload: without inner steps."""

    method: str
    workload: Workload

    def gflop(self):
        """Returns the operations of convolutions and products in a step, 10^9.

        Each query is one step after its support set.
        """
        workload = self.workload
        rows = workload.tasks * workload.way * (workload.shot + workload.query)
        weights = sequence_weights.of_workload(self.method, workload)
        entries = sum(array.size for *_, arrays in weights for array in arrays if array.ndim > 1)
        return episode('r2d2', *self._sizes()).gflop() + 6 * rows * entries / 1e9

    def _sizes(self):
        w = self.workload
        return w.input_shape, w.tasks, w.way, w.shot, w.query, w.steps, w.filters


def case(method, *sizes, **kwargs):
    """A Case of the sizes of heads.episode."""
    return Case(method, episode(method, *sizes, **kwargs).workload)


CASES = {'snail_omniglot': case('snail', (28, 28, 1), tasks=32, way=5, shot=1, query=1, steps=3)}


def encoder_of(workload):
    """The encoder, with the workload's weights."""
    encoder, weights = conv4(workload.input_shape, workload.filters), workload.weights()
    for number in range(1, 5):
        convolution, norm = (encoder.get_layer(f'{kind}{number}') for kind in ('conv', 'norm'))
        convolution.kernel.assign(weights[f'conv{number}'])
        convolution.bias.assign(weights[f'b{number}'])
        norm.beta.assign(weights[f'norm{number - 1}_beta'])
    return encoder


def snail(workload):
    """The package's learner, with the workload's weights."""
    length = workload.way * workload.shot + 1
    learner = SNAIL(encoder_of(workload), MeanClassification(), workload.way, length)
    weights = sequence_weights.of_workload('snail', workload)
    learner.network.set_weights([array for *_, arrays in weights for array in arrays])
    return learner


BUILD = {'snail': snail}


def draw(workload):
    """step_time.draw, so that the package reads the support sets in the order of the workload."""
    drawn = step_time.draw(workload)

    def in_order(start, count):
        task = drawn(start, count)
        back = tf.argsort(random_order(task.support_y))
        support = {name: take(getattr(task, name), back) for name in ('support_x', 'support_y')}
        return task._replace(**support)

    return in_order


class TensorFlowSide(step_time.TensorFlowSide):
    """`ours`, see workloads.serve: another learner, whose loss is a mean; steps and reports
    alike."""

    def __init__(self, method, workload):
        learner = BUILD[method](workload)
        self._scale, self._optimizer = 1, adam(RATE)
        op = TrainingOp(learner, self._optimizer, learner.meta_gradients)
        at_once = learner.share(workload.tasks, workload)
        self._run = iterate(op, draw(workload), workload.tasks, at_once)


def command(chosen, side, torch_python=sys.executable):
    """What starts a side's Worker."""
    method, workload = chosen.method, chosen.workload.to_json()
    if side == 'ours':
        return [sys.executable, __file__, '--worker', method, workload]
    program = step_time.HERE / 'torch_sequence_models.py'
    return [torch_python, program, method, STYLES[side], workload]


def measure(chosen, sides, rounds, steps, torch_python):
    """Runs the sides of one case in turns; returns what step_time.measure does.

    Raises:
      SystemExit: sides that should compute the same do not.
    """
    result = {'gflop': chosen.gflop(), 'matmul_gflops': [], 'sides': {}}
    with contextlib.ExitStack() as stack:
        workers = {}
        for side in sides:
            worker = step_time.Worker(command(chosen, side, torch_python))
            workers[side], first = stack.enter_context(worker), worker.first
            result['sides'][side] = first | {'ms': []}
            step_time.say(
                f'  {side}: first step {first["seconds"]:.1f} s, loss {first["loss"]:.6f}, '
                f'gradient norm {first["gradient_norm"]:.6f}'
            )
        for alike in ALIKE:
            there = {side: result['sides'][side] for side in alike if side in sides}
            if there:
                step_time.check_equal(there)
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
    """One Markdown table of {name of the case: what `measure` returned}."""
    titles = ['training step', 'ours, ms', 'quartiles', *(f'{side}, ms' for side in STYLES)]
    titles += ['to limit', 'GB: ours, torch', 'first step s: ours, torch']
    lines = [titles, ['---'] * len(titles)]
    for name, result in measured.items():
        sides = result['sides']
        medians = {side: statistics.median(values['ms']) for side, values in sides.items()}
        ms, limit = medians['ours'], 1e3 * result['gflop'] / np.median(result['matmul_gflops'])
        quartiles = np.percentile(sides['ours']['ms'], [25, 75])
        others = [
            f'{medians[side]:.4g} (×{medians[side] / ms:.2f})' if side in medians else ''
            for side in STYLES
        ]
        pair = lambda form, sides=sides: ', '.join(
            form(sides[side]) for side in ('ours', 'torch') if side in sides
        )
        memory = pair(lambda values: f'{values["peak_mb"] / 1e3:.2f}')
        seconds = pair(lambda values: f'{values["seconds"]:.1f}')
        spread = f'{quartiles[0]:.4g} - {quartiles[1]:.4g}'
        lines.append([name, f'{ms:.4g}', spread, *others, f'{ms / limit:.2f}', memory, seconds])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names, sides = step_time.names(CASES), step_time.names(('ours', *STYLES))
    parser.add_argument('--cases', type=names, default=list(CASES), help='by commas')
    parser.add_argument('--sides', type=sides, default=['ours', *STYLES], help='ours is always in')
    parser.add_argument('--rounds', type=int, default=9, help='(default: %(default)s)')
    parser.add_argument('--steps', type=int, help='in a turn (default: by case)')
    parser.add_argument(
        '--torch_python', default=sys.executable, help='Python that has PyTorch (default: this one)'
    )
    parser.add_argument('--output', default='sequence_models.json', help='(default: %(default)s)')
    parser.add_argument('--worker', nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.worker:
        method, workload = given.worker
        serve(lambda: TensorFlowSide(method, Workload.from_json(workload)))
        return
    report = {'machine': step_time.machine(), 'cases': {}}
    if set(given.sides) & set(STYLES):
        report['machine']['torch'] = step_time.torch_version(given.torch_python)
    step_time.say_machine(report['machine'])
    for name in given.cases:
        step_time.say(name)
        chosen = CASES[name]
        sides = [side for side in ('ours', *STYLES) if side == 'ours' or side in given.sides]
        steps = given.steps or chosen.workload.steps
        report['cases'][name] = measure(chosen, sides, given.rounds, steps, given.torch_python)
        step_time.write_json(given.output, report)
    print(table(report['cases']), flush=True)


if __name__ == '__main__':
    main()
