"""How a training step's time and memory grow with its sizes, and how fast evaluation is.

    python tests/benchmarks/growth.py [--workloads=omniglot_5way1shot,...] [--axes=meta_batch,...]

Each size changes one thing of a workload of step_time.py, second order, and runs in a process of
its own; evaluation takes 10 inner steps on tasks that lie in memory. Run it on an idle machine;
README.md says how to read the table.
"""

import argparse
import dataclasses
import os
import statistics
import sys

import step_time
from workloads import WORKLOADS, Workload, serve

from maml_tf.episodes.task import EpisodeSpec
from maml_tf.evaluation.evaluate import chunk, evaluator

# Sizes of each axis, and the field of Workload that they are of.
AXES = {
    'meta_batch': ('tasks', (4, 8, 16, 32, 64, 128)),
    'inner_steps': ('inner_steps', (1, 2, 3, 5, 10)),
    'shots': ('shot', (1, 5, 10, 20)),
    'ways': ('way', (2, 5, 10, 20)),
}
EVALUATION_STEPS = 10
# Of this machine's memory; a size that may need more is not tried.
MEMORY_SHARE = 0.7


class EvaluationSide:
    """Scores as many tasks at once as run_maml.py does; a "step" is such a chunk. See
    workloads.serve."""

    def __init__(self, workload):
        self._tasks = workload.tasks
        learner = step_time.build_learner(workload)
        self._evaluate = evaluator(
            learner,
            step_time.draw(workload),
            EVALUATION_STEPS,
            workload.tasks,
            learner.share(workload.tasks, workload),
        )

    def first_step(self):
        self.run(0, 1)
        return {}

    def run(self, first, count):
        del first
        self._evaluate(self._tasks * count)


def measure(command, rounds, steps):
    """(ms of a step, peak memory in GB, seconds to the first step), the median of rounds."""
    with step_time.Worker(command) as worker:
        worker.steps(steps)
        turns = [worker.steps(steps) for _ in range(rounds)]
        return (
            statistics.median(turn['ms'] for turn in turns),
            turns[-1]['peak_mb'] / 1e3,
            worker.first['seconds'],
        )


def grow(workload, axis, rounds):
    """Yields (size, workload, measurement) along an axis; None for the measurement where memory may
    not suffice."""
    field, sizes = AXES[axis]
    memory = MEMORY_SHARE * os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9
    at_most = 0
    for size in sizes:
        grown = dataclasses.replace(workload, **{field: size})
        if at_most * size > memory:
            yield size, grown, None
            continue
        measured = measure(step_time.command('ours', grown), rounds, workload.steps)
        at_most = measured[1] / size
        yield size, grown, measured


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--workloads',
        type=step_time.names(WORKLOADS),
        default=['omniglot_5way1shot', 'miniimagenet_5way1shot'],
        help='separated by commas (default: omniglot_5way1shot,miniimagenet_5way1shot)',
    )
    parser.add_argument(
        '--axes',
        type=step_time.names([*AXES, 'evaluation']),
        default=[*AXES, 'evaluation'],
        help='separated by commas (default: all)',
    )
    parser.add_argument(
        '--rounds', type=int, default=5, help='turns whose median counts (default: %(default)s)'
    )
    parser.add_argument(
        '--output', default='growth.json', help='JSON file of the table (default: %(default)s)'
    )
    parser.add_argument('--worker', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        serve(lambda: EvaluationSide(Workload.from_json(arguments.worker)))
        return
    report = {'machine': step_time.machine(), 'measurements': []}
    step_time.say_machine(report['machine'])
    print(
        f'{"workload":<24}{"axis":<13}{"size":>5}{"ms":>10}{"tasks/s":>10}'
        f'{"peak GB":>9}{"first step s":>14}'
    )
    for name in arguments.workloads:
        for axis in arguments.axes:
            for size, tasks, measured in rows(WORKLOADS[name], axis, arguments.rounds):
                columns = '   not tried: it may need more memory than there is'
                if measured:
                    ms, peak_gb, seconds = measured
                    columns = f'{ms:>10.4g}{1e3 * tasks / ms:>10.0f}{peak_gb:>9.2f}{seconds:>14.1f}'
                    report['measurements'].append(
                        {
                            'workload': name,
                            'axis': axis,
                            'size': size,
                            'tasks': tasks,
                            'ms': ms,
                            'peak_gb': peak_gb,
                            'seconds': seconds,
                        }
                    )
                print(f'{name:<24}{axis:<13}{size:>5}{columns}', flush=True)
                step_time.write_json(arguments.output, report)


def rows(workload, axis, rounds):
    """Yields (size, tasks in a step, measurement or None)."""
    if axis != 'evaluation':
        for size, grown, measured in grow(workload, axis, rounds):
            yield size, grown.tasks, measured
        return
    spec = EpisodeSpec(workload.way, workload.shot, workload.query)
    tasks = chunk(spec)
    command = [
        sys.executable,
        __file__,
        '--worker',
        dataclasses.replace(workload, tasks=tasks).to_json(),
    ]
    yield tasks, tasks, measure(command, rounds, max(1, workload.steps // EVALUATION_STEPS))


if __name__ == '__main__':
    main()
