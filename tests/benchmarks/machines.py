"""What a training step costs in memory, and what a second machine would have to receive for it.

    python tests/benchmarks/machines.py [--settings=maml_omniglot,...]

Each setting is a command line of run_maml.py, whose step is timed on random images in a process of
its own: with its meta-batch, and with half of it, as each of two machines would compute it. A step
of several machines sends every gradient once (see training/operations.py). Two machines are as fast
as one where sending takes as long as half of the meta-batch; on a faster network they pay. Run it
on an idle machine; README.md says how to read the table.
"""

import argparse
import json
import statistics
import sys

import step_time
from workloads import serve

CONV = ('--datasource=omniglot', '--update_batch_size=1')
MINI = ('--datasource=miniimagenet', '--update_batch_size=1')
# A meta-batch of the papers', or the least that two machines can share.
SETTINGS = {
    'maml_omniglot': ('--algorithm=maml', *CONV, '--meta_batch_size=32'),
    'maml_omniglot_20way': (
        *('--algorithm=maml', *CONV, '--num_classes=20', '--meta_batch_size=16', '--num_updates=5'),
    ),
    'maml_miniimagenet': (
        *('--algorithm=maml', *MINI, '--meta_batch_size=4', '--num_filters=32', '--num_updates=5'),
    ),
    'prototypical_miniimagenet': ('--algorithm=prototypical', *MINI, '--meta_batch_size=2'),
    'r2d2_miniimagenet': ('--algorithm=r2d2', *MINI, '--meta_batch_size=2'),
    'metaoptnet_resnet12': (
        *('--algorithm=metaoptnet', *MINI, '--encoder=resnet12', '--meta_batch_size=2'),
    ),
}


class Side:
    """The step of a command line; see workloads.serve."""

    def __init__(self, arguments):
        from maml_tf.commands.folders.timing import finished, training_step

        self._finished = finished
        self._learner, self._run = training_step(arguments)

    def first_step(self):
        self.run(0, 1)
        trained = self._learner.trainable_variables
        return {'bytes': sum(4 * int(variable.value.shape.num_elements()) for variable in trained)}

    def run(self, first, count):
        self._finished(self._run(first, count))


def measure(arguments, rounds, steps):
    """Returns the median ms of a step, the peak memory in GB, and the bytes of the gradients."""
    with step_time.Worker([sys.executable, __file__, '--worker', json.dumps(arguments)]) as worker:
        turns = [worker.steps(steps) for _ in range(rounds)]
        median = statistics.median(turn['ms'] for turn in turns)
        return median, turns[-1]['peak_mb'] / 1e3, worker.first['bytes']


def row(name, rounds, steps):
    """Returns {column: number} of a setting."""
    arguments = SETTINGS[name]
    size = '--meta_batch_size='
    (tasks,) = (int(one.removeprefix(size)) for one in arguments if one.startswith(size))
    half = [f'{size}{tasks // 2}' if one.startswith(size) else one for one in arguments]
    ms, peak_gb, count = measure(arguments, rounds, steps)
    half_ms, half_gb, _ = measure(half, rounds, steps)
    saved = ms - half_ms
    return {
        'setting': name,
        'tasks': tasks,
        'megabytes': count / 1e6,
        'ms': ms,
        'half_ms': half_ms,
        # Each of two machines sends its gradients once, and receives the other's meanwhile.
        'megabit_per_second': 8 * count / 1e6 / (saved / 1e3) if saved > 0 else float('inf'),
        'peak_gb': peak_gb,
        'half_peak_gb': half_gb,
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--settings', type=step_time.names(SETTINGS), default=list(SETTINGS))
    parser.add_argument('--rounds', type=int, default=5, help='turns whose median counts')
    parser.add_argument('--steps', type=int, default=3, help='of a turn')
    parser.add_argument('--output', default='machines.json', help='JSON file of the table')
    parser.add_argument('--worker', help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        serve(lambda: Side(json.loads(given.worker)))
        return
    report = {'machine': step_time.machine(), 'rows': []}
    step_time.say_machine(report['machine'])
    print('| setting | tasks | MB sent | ms | ms of half | pays above, Mbit/s | GB | GB of half |')
    print('|---|---|---|---|---|---|---|---|')
    for name in given.settings:
        found = row(name, given.rounds, given.steps)
        report['rows'].append(found)
        columns = [value if isinstance(value, str) else f'{value:,.4g}' for value in found.values()]
        print(f'| {" | ".join(columns)} |', flush=True)
        step_time.write_json(given.output, report)


if __name__ == '__main__':
    main()
