"""Time and memory of a training step of each gradient-based method, beside MAML's.

    python tests/benchmarks/methods.py [--workloads=sinusoid,...] [--methods=anil,...]
    python tests/benchmarks/methods.py --memory=1,5,16,50 [--picture=memory.png]

A step is what run_maml.py compiles for an iteration, on meta-batches that lie in memory, with the
method's own network. Methods that take MAML's inner steps take the workload's; Reptile, iMAML and
MAML++ take their own. Each is a process of its own, and one computes at a time, in turns. Ratios
are to MAML in the same run. --memory measures the peak memory of MAML, of MAML with --rematerialise
and of iMAML for these numbers of inner steps, all tasks at once. Run it on an idle machine.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import statistics
import sys

import step_time
from matplotlib.figure import Figure
from workloads import WORKLOADS, Workload, serve

from maml_tf import algorithms
from maml_tf.commands.command_line import parsed
from maml_tf.commands.experiment import problem_of
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import op_of
from maml_tf.training.phases import OuterLoop

# {name in the table: its flags besides the workload's}
METHODS = {
    'maml': ['--algorithm=maml'],
    'maml first order': ['--algorithm=maml', '--stop_grad'],
    'anil': ['--algorithm=anil'],
    'meta_sgd': ['--algorithm=meta_sgd'],
    'alpha_maml': ['--algorithm=alpha_maml'],
    'cavia': ['--algorithm=cavia'],
    'bias_transformation': ['--algorithm=bias_transformation'],
    'mamlpp': ['--algorithm=mamlpp', '--num_updates=5'],
    'mamlpp, last step': ['--algorithm=mamlpp', '--num_updates=5']
    + ['--mamlpp_multi_step_iterations=0'],
    'imaml': ['--algorithm=imaml', '--num_updates=16'],
    'reptile': ['--algorithm=reptile', '--num_updates=5', '--reptile_inner_batch=5'],
}
OF_MEMORY = {
    'MAML': ['--algorithm=maml'],
    'MAML, --rematerialise': ['--algorithm=maml', '--rematerialise'],
    'iMAML': ['--algorithm=imaml'],
}
MEMORY_TASKS = 8


def flags_of(workload, own):
    """The values of the command line of a method on a workload."""
    data = ['--datasource=sinusoid', '--norm=None']
    if not workload.hidden:
        data = ['--datasource=omniglot', f'--num_classes={workload.way}']
    if workload.max_pool:
        data = ['--datasource=miniimagenet', f'--num_classes={workload.way}', '--max_pool']
        data.append(f'--num_filters={workload.filters}')
    return parsed(
        *data,
        f'--update_batch_size={workload.shot}',
        f'--num_updates={workload.inner_steps}',
        f'--meta_batch_size={workload.tasks}',
        *own,
    )


class Side:
    """A method on a workload, see workloads.serve."""

    def __init__(self, workload, own):
        flags = flags_of(workload, own)
        problem = problem_of(flags)
        learner = algorithms.registry()[flags.algorithm].from_flags(flags, problem)
        outer = OuterLoop(0, 10**6, 1e-5, problem.training)
        phase = next(phase for phase in learner.phases(outer) if phase.name == 'metatrain')
        at_once = learner.share(workload.tasks, problem.training)
        draw = step_time.draw(workload)
        self._run = iterate(op_of(learner, phase), draw, workload.tasks, at_once)

    def first_step(self):
        return {'loss': self.run(0, 1)}

    def run(self, first, count):
        return float(self._run(first, count)['post_loss'])


def command(workload, own):
    """What starts a method's Worker."""
    return [sys.executable, __file__, '--worker', workload.to_json(), json.dumps(own)]


def compare(workload, methods, rounds):
    """{method: {'ms': median of a step, 'peak_gb', 'seconds': of the first step}}"""
    with contextlib.ExitStack() as stack:
        workers = {}
        for name in methods:
            worker = step_time.Worker(command(workload, METHODS[name]))
            workers[name] = stack.enter_context(worker)
            step_time.say(f'  {name}: first step {worker.first["seconds"]:.1f} s')
        turns = {name: [] for name in methods}
        for _ in range(rounds + 1):  # The first one warms up.
            for name, worker in workers.items():
                turns[name].append(worker.steps(workload.steps))
        return {
            name: {
                'ms': statistics.median(turn['ms'] for turn in turns[name][1:]),
                'peak_gb': turns[name][-1]['peak_mb'] / 1e3,
                'seconds': worker.first['seconds'],
            }
            for name, worker in workers.items()
        }


def table(name, measured):
    """A Markdown table of `compare`."""
    lines = [
        f'| {name} | ms | to MAML | peak GB | to MAML | first step s |',
        '| --- | --- | --- | --- | --- | --- |',
    ]
    maml = measured['maml']
    for method, values in measured.items():
        ratios = [values[key] / maml[key] for key in ('ms', 'peak_gb')]
        lines.append(
            f'| {method} | {values["ms"]:.4g} | {ratios[0]:.2f} | {values["peak_gb"]:.2f} | '
            f'{ratios[1]:.2f} | {values["seconds"]:.1f} |'
        )
    return '\n'.join(lines) + '\n'


def memory(steps):
    """{label: [GB for each number of steps]}"""
    workload = dataclasses.replace(WORKLOADS['omniglot_5way1shot'], tasks=MEMORY_TASKS)
    found = {}
    for label, own in OF_MEMORY.items():
        found[label] = []
        for number in steps:
            sized = [*own, f'--num_updates={number}', f'--tasks_at_once={MEMORY_TASKS}']
            with step_time.Worker(command(workload, sized)) as worker:
                found[label].append(worker.steps(1)['peak_mb'] / 1e3)
            step_time.say(f'  {label}, {number} steps: {found[label][-1]:.2f} GB')
    return found


def draw_memory(path, steps, found):
    """Draws the curves of `memory`."""
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    for label, gigabytes in found.items():
        axes.plot(steps, gigabytes, marker='o', label=label)
    axes.set_xlabel('inner steps')
    axes.set_ylabel('peak memory of the process (GB)')
    axes.set_ylim(bottom=0)
    axes.set_title(f'Omniglot 5-way 1-shot, {MEMORY_TASKS} tasks at once')
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = ['sinusoid', 'omniglot_5way1shot', 'omniglot_20way1shot']
    parser.add_argument('--workloads', type=step_time.names(WORKLOADS), default=default)
    parser.add_argument('--methods', type=step_time.names(METHODS), default=list(METHODS))
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--memory', help='numbers of inner steps, separated by commas')
    parser.add_argument('--picture', type=pathlib.Path, default=pathlib.Path('memory.png'))
    parser.add_argument('--output', default='methods.json', help='(default: %(default)s)')
    parser.add_argument('--worker', nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.worker:
        workload, own = given.worker
        serve(lambda: Side(Workload.from_json(workload), json.loads(own)))
        return
    report = {'machine': step_time.machine()}
    step_time.say_machine(report['machine'])
    if given.memory:
        steps = [int(number) for number in given.memory.split(',')]
        report['memory'] = {'steps': steps, 'gigabytes': memory(steps)}
        draw_memory(given.picture, steps, report['memory']['gigabytes'])
    else:
        methods = ['maml', *(name for name in given.methods if name != 'maml')]
        report['methods'] = {}
        for name in given.workloads:
            report['methods'][name] = compare(WORKLOADS[name], methods, given.rounds)
            print(table(name, report['methods'][name]), flush=True)
    step_time.write_json(given.output, report)


if __name__ == '__main__':
    main()
