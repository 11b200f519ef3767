"""Time of a training step of the methods that read a support set as a sequence, against PyTorch.

    python tests/benchmarks/sequence_models.py [--cases=snail_omniglot,...] [--rounds=9]

A step is the embedding of all support and query images, the sequence model, the query loss, its
gradient and Adam, on made-up data in memory. The encoder is that of four convolutions with 64
filters; MANN has none, and the loss is that of all steps of its sequences. Sides:
  ours             the package's training, maml_tf.training.iterate; batch norm by task
  torch            PyTorch, support set and queries at once; batch norm over the meta-batch, as its
                   users have it
  torch_sequences  the same, each query behind a copy of the support set, as released codes have it
  torch_by_task    as torch, with batch norm by task, as in the package
Each side is a process of its own, and one computes at a time: after a first step and a warm-up,
they take turns, round after round. Before that, losses and gradient norms of those with the same
batch norm are compared. MANN has one side in PyTorch. Run it on an idle machine.

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
from heads import episode
from sequence_sides import TensorFlowSide
from workloads import Workload, serve

# {side: its style in torch_sequence_models.py}
STYLES = {'torch': 'plain', 'torch_sequences': 'sequences', 'torch_by_task': 'by_task'}
# Sides of a method that compute the same. MANN has no batch norm, and no queries.
ALIKE = {
    'snail': (('ours', 'torch_by_task'), ('torch', 'torch_sequences')),
    'mann': (('ours', 'torch'),),
}


class Case(NamedTuple):
    """method: one of ALIKE; workload: without inner steps.

    In one of MANN `shot` counts all examples of a class.
    """

    method: str
    workload: Workload

    def gflop(self):
        """Returns the operations of convolutions and products in a step, 10^9.

        Each query is one step after its support set. MANN's products with its memory are left out.
        """
        workload = self.workload
        rows = workload.tasks * workload.way * (workload.shot + workload.query)
        weights = sequence_weights.of_workload(self.method, workload)
        entries = sum(array.size for *_, arrays in weights for array in arrays if array.ndim > 1)
        encoder = 0 if self.method == 'mann' else episode('r2d2', *self._sizes()).gflop()
        return encoder + 6 * rows * entries / 1e9

    def sides(self, asked):
        """Returns those of the sides that are asked for which the method has."""
        there = {side for alike in ALIKE[self.method] for side in alike}
        return [side for side in ('ours', *STYLES) if side in there & {'ours', *asked}]

    def _sizes(self):
        w = self.workload
        return w.input_shape, w.tasks, w.way, w.shot, w.query, w.steps, w.filters


def case(method, *sizes, **kwargs):
    """A Case of the sizes of heads.episode."""
    return Case(method, episode(method, *sizes, **kwargs).workload)


CASES = {
    'snail_omniglot': case('snail', (28, 28, 1), tasks=32, way=5, shot=1, query=1, steps=3),
    'mann_omniglot': case('mann', (20, 20, 1), tasks=16, way=5, shot=10, query=0, steps=3),
}


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
        for alike in ALIKE[chosen.method]:
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
        steps = given.steps or chosen.workload.steps
        report['cases'][name] = measure(
            chosen, chosen.sides(given.sides), given.rounds, steps, given.torch_python
        )
        step_time.write_json(given.output, report)
    print(table(report['cases']), flush=True)


if __name__ == '__main__':
    main()
