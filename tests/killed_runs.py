"""Runs of run_maml.py that end themselves at chosen moments.

Importing TensorFlow takes most of a short run, so one process imports it and forks the runs, before
TensorFlow has started a thread.
"""

import dataclasses
import functools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import traceback

from command import ROOT
from file_operations import Operations, recorded

ITERATIONS, SAVE_EVERY, PRINT_EVERY, CALL = 300, 20, 10, 10
FLAGS = (
    *('--datasource=sinusoid', '--norm=None', '--update_batch_size=10', '--test_set=True'),
    *('--test_tasks=50', f'--metatrain_iterations={ITERATIONS}'),
)


@dataclasses.dataclass(frozen=True)
class End:
    """How a run ends.

    at: a number of iterations: in the midst of the call that takes the last of them. Or a file: the
      run ends when it is to take this name (the end of a path, * for any text).
    after: when the file has the name, rather than before.
    torn: the file's content is cut in half first.
    removed: not when the file takes its name, but when it is removed.
    times: how often that happens; the run ends the last time.
    by: the signal.
    phase, how: of file_operations.Operations; `at` is then the part of the phase's operations in an
      undisturbed run that comes before, from 0 to 1.
    """

    at: int | str | float
    after: bool = False
    torn: bool = False
    removed: bool = False
    times: int = 1
    by: int = signal.SIGKILL
    phase: str = ''
    how: str = 'before'


def run(chains, flags=None):
    """Runs the program one time after the other, in each directory the same command.

    Args:
      chains: {directory: ends}; each run ends by its End, None: as it ends by itself.
      flags: {directory: the command line besides --logdir}; None: FLAGS for each. Where Ends name a
        phase, the first directory of this command line has one run alone, which nothing disturbs.
    Returns: {directory: a dict for each run}, in which are `status`, minus the signal that killed
      the run or its exit code; `checkpoints`, the iterations that there are; `output`, all that it
      printed; `operations`, of a run that was to end in a phase or to count them.
    """
    plan = {
        str(logdir): {
            'flags': [*(flags or {}).get(logdir, FLAGS)],
            'counts': bool(flags),
            'ends': [end and dataclasses.asdict(end) for end in ends],
        }
        for logdir, ends in chains.items()
    }
    result = subprocess.run(
        [sys.executable, '-c', 'import killed_runs; killed_runs.main()'],
        input=json.dumps(plan),
        text=True,
        capture_output=True,
        env=os.environ | {'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])},
        cwd=pathlib.Path(__file__).parent,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    reports = json.loads(result.stdout.splitlines()[-1])
    return {logdir: reports[str(logdir)] for logdir in chains}


def main():
    """Forks the runs that standard input describes, one after the other."""
    import run_maml

    plan, reports, counts = json.load(sys.stdin), {}, {}
    for logdir, chain in plan.items():
        reports[logdir] = []
        for number, end in enumerate(chain['ends']):
            record = pathlib.Path(f'{logdir}.{number}.json') if chain['counts'] else None
            flags = [*chain['flags'], f'--logdir={logdir}']
            # No file, which a limit on the size of files would concern.
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(reader)
                _child(run_maml, writer, flags, end and End(**end), record, counts)
            os.close(writer)
            with open(reader, 'rb') as pipe:
                output = pipe.read().decode(errors='replace')
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            indices = pathlib.Path(logdir).glob('*/model-*.index')
            found = sorted(int(path.stem.split('-')[1]) for path in indices)
            report = {'status': status, 'checkpoints': found, 'output': output}
            if record:
                report['operations'] = recorded(record)
                if chain['ends'] == [None]:
                    counts = report['operations']
            reports[logdir].append(report)
    print(json.dumps(reports))


def _child(run_maml, output, flags, end, record, counts):
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    sys.stdout.reconfigure(line_buffering=True)
    code = 1
    try:
        faster()
        sys.argv = ['run_maml.py', *flags]
        if record:
            operations = Operations(record.parent, record, **_operation(end, counts))
        elif end is not None:
            _prepare(end)
        run_maml.run()
    except SystemExit as error:
        if isinstance(error.code, str):  # A message, which the interpreter would print.
            print(error.code, file=sys.stderr)
        code = error.code if isinstance(error.code, int | None) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        if record and end is None:
            operations.write()
        elif record:  # It has not come to its end yet: this is the last.
            os.kill(os.getpid(), signal.SIGKILL)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def _operation(end, counts):
    """Returns where an End of a phase is."""
    if end is None:
        return {}
    number = 1 + int(end.at * counts[end.phase])
    return {'phase': end.phase, 'number': number, 'how': end.how}


def faster():
    """Saves and prints often, so that few iterations see all there is to see."""
    from maml_tf.algorithms.metric.prototypical import Prototypical
    from maml_tf.algorithms.optimisation.maml import MAML
    from maml_tf.commands import run_training
    from maml_tf.datasets.raw import memory_map
    from maml_tf.datasets.sources import SOURCES

    SOURCES['sinusoid'] = dataclasses.replace(
        SOURCES['sinusoid'],
        print_every=PRINT_EVERY,
        iterations_per_call=CALL,
        validate_every=2 * SAVE_EVERY,
        save_every=SAVE_EVERY,
    )
    run_training.Schedule = functools.partial(run_training.Schedule, seconds_per_call=float('inf'))
    MAML.xla = Prototypical.xla = False
    memory_map.IN_MEMORY = 0


def _prepare(end):
    """Makes the run end as it is to."""
    if isinstance(end.at, int):
        _at_iteration(end)
    elif end.removed:
        _at_file(end, pathlib.Path, 'unlink')
    elif end.at == 'metrics.csv':
        _at_metrics(end)
    else:
        _at_file(end, os, 'replace')


def _at_iteration(end):
    from maml_tf.commands import run_training

    make_run, left = run_training._run_of, [end.at]

    def run_of(*arguments):
        run = make_run(*arguments)

        def ending(first, count):
            log = run(first, count)
            left[0] -= count
            if left[0] <= 0:
                os.kill(os.getpid(), end.by)
            return log

        return ending

    run_training._run_of = run_of


def _at_file(end, module, name):
    """At a call of os.replace(source, target) or path.unlink()."""
    act, left = getattr(module, name), [end.times]
    pattern = re.compile('.*'.join(map(re.escape, end.at.split('*'))) + '$')

    def acting(path, *arguments, **options):
        hit = bool(pattern.search(str(arguments[0] if arguments else path)))
        left[0] -= hit
        now = hit and not left[0]
        if now and end.torn:
            os.truncate(path, os.path.getsize(path) // 2)
        if now and not end.after:
            os.kill(os.getpid(), end.by)
        act(path, *arguments, **options)
        if now:
            os.kill(os.getpid(), end.by)

    setattr(module, name, acting)


def _at_metrics(end):
    """When half of a row is written."""
    from maml_tf.saving.run_directory import RunDirectory

    append, left = RunDirectory.append_metrics, [end.times]

    def appending(self, row):
        path = self.path / 'metrics.csv'
        before = path.stat().st_size if path.exists() else 0
        append(self, row)
        left[0] -= 1
        if not left[0]:
            os.truncate(path, (before + path.stat().st_size) // 2)
            os.kill(os.getpid(), end.by)

    RunDirectory.append_metrics = appending
