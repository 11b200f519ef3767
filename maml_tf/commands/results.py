"""Keeps results beside flagfiles, and makes the tables of them.

    python -m maml_tf.results record FLAGFILE RUN_DIRECTORY [RUN_DIRECTORY ...]
    python -m maml_tf.results table

A flagfile x.flags has a companion x.json. By hand it says its "title", "paper" (the published
figure, and where it stands), perhaps "evaluation" (flags that its evaluation adds) and a "note".
`record` fills "ours" from evaluated runs of the flagfile, one per seed. `table` writes the tables
in README.md and in flags/README.md anew, from all companions.
"""

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from maml_tf.errors import UserError
from maml_tf.evaluation import report, results_tables
from maml_tf.saving import records
from maml_tf.serialisation.files import write_atomically
from maml_tf.terminal.exit import errors_as_one_line

# Flags that may differ between a flagfile and its runs. They say where things lie, how fast they
# are computed, or what results.json says besides: the seed, the split, the iteration.
FREE_FLAGS = {
    *('data_dir', 'manual_dir', 'external_dir', 'logdir', 'log', 'resume', 'write_tasks'),
    *('export_dir', 'export_embedding_dir'),
    *('strategy', 'iterations_per_call', 'tasks_at_once', 'rematerialise'),
    *('seed', 'test_set', 'train', 'test_iter'),
}
# What runs that are pooled have in common, besides flags and protocol.
COMMON = ('metric', 'unit', 'axis', 'tasks', 'split', 'iteration')

Run = tuple[pathlib.Path, dict[str, Any]]


def pool(runs: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Averages the results of several seeds on the same tasks.

    Returns means and half-widths, each [entries]. A half-width is the root mean square of the
    seeds': all seeds are scored on the same tasks, so their mean is no surer about the tasks than
    one of them.
    """
    means, ci95 = (np.array([run[key] for run in runs], float) for key in ('mean', 'ci95'))
    return means.mean(0), np.sqrt(np.square(ci95).mean(0))


def record(flagfile: pathlib.Path, directories: Sequence[pathlib.Path]) -> None:
    """Fills "ours" in a flagfile's companion from runs that differ in nothing but the seed.

    Raises UserError, naming the run and what differs, where they differ in more or are not runs of
    the flagfile.
    """
    companion = flagfile.with_suffix('.json')
    content = results_tables.read_companion(companion)
    runs = [(directory, report.read(directory)) for directory in directories]
    check_flags(runs, flagfile, content.get('evaluation', ()))
    check_alike(runs)
    entries = _entries(content['paper'], *runs[0])
    clocks = [records.clock(directory / 'clock.json') for directory in directories]
    means, ci95 = pool([run for _, run in runs])
    (directory, first), *_ = runs
    if not np.isfinite([means[entries], ci95[entries]]).all():
        raise UserError(f'{directory}: the mean {first["metric"]} of the runs is not finite')
    flags = first['flags']
    content['ours'] = {
        'steps': content['paper']['steps'],
        'mean': [round(float(value), 4) for value in means[entries]],
        'ci95': [round(float(value), 4) for value in ci95[entries]],
        'seeds': sorted(run['seed'] for _, run in runs),
        'tasks': first['tasks'],
        'split': first['split'],
        'shot': flags['update_batch_size'],
        'iterations': first['iteration'],
        'of_iterations': flags['pretrain_iterations'] + flags['metatrain_iterations'],
        'hours': round(sum(clock['training_seconds'] for clock in clocks) / 3600, 3),
        'machine': '; '.join(dict.fromkeys(clock['machine'] for clock in clocks)),
        'protocol': first['protocol'],
    }
    write_atomically(companion, json.dumps(content, indent=1, ensure_ascii=False) + '\n')


def check_flags(runs: Sequence[Run], flagfile: pathlib.Path, evaluation: Sequence[str]) -> None:
    """Raises UserError for a run whose flags are not those of the flagfile.

    evaluation: flags that the flagfile's evaluation adds to it.
    """
    expected = _settings(f'--flagfile={flagfile}', *evaluation)
    defaults = _settings(f'--algorithm={expected["algorithm"]}')
    for directory, run in runs:
        # A run may be older than a flag; then it did what the default does.
        flags = {name: run['flags'].get(name, defaults[name]) for name in expected}
        for name, value, wanted in report.differing(flags, expected):
            raise UserError(
                f'{directory}: not a run of {flagfile}, it has {_flag(name, value)} and not '
                f'{_flag(name, wanted)}'
            )


def check_alike(runs: Sequence[Run]) -> None:
    """Raises UserError for runs that were not scored alike on the same test tasks."""
    first_directory, first = runs[0]
    of_seed: dict[int, pathlib.Path] = {}
    for directory, run in runs:
        if run['seed'] in of_seed:
            raise UserError(
                f'{directory}: has --seed={run["seed"]} as {of_seed[run["seed"]]} has; runs of '
                'one seed are one run'
            )
        of_seed[run['seed']] = directory
        if run['split'] != 'test':
            raise UserError(
                f'{directory}: evaluated on the {run["split"]} split, and the tables are of the '
                'test split; evaluate with --train=False --test_set=True'
            )
        common, of_first = ({name: r[name] for name in COMMON} for r in (run, first))
        for name, value, other in report.differing(common, of_first):
            raise UserError(f'{directory}: {name} is {value}, and {other} in {first_directory}')
        for name, value, other in report.differing(run['protocol'], first['protocol']):
            raise UserError(
                f'{directory}: not on the tasks of {first_directory}, its protocol has {name} '
                f'{value} and not {other}'
            )


def _entries(paper: dict[str, Any], directory: pathlib.Path, run: dict[str, Any]) -> list[int]:
    """Returns which entries of a run stand beside the paper's."""
    published = {'metric': paper['metric'], 'axis': results_tables.axis_of(paper)}
    ours = {'metric': run['metric'], 'axis': run['axis']['name']}
    for name, value, wanted in report.differing(ours, published):
        raise UserError(f"{directory}: its {name} is {value}, the paper's is {wanted}")
    values = run['axis']['values']
    for step in paper['steps']:
        if step not in values:
            raise UserError(f'{directory}: not evaluated at {ours["axis"]} {step}')
    return [values.index(step) for step in paper['steps']]


def _settings(*arguments: str) -> dict[str, Any]:
    """Returns {name: value} of the flags that a run shares with its flagfile."""
    # TensorFlow is needed to ask every module for its flags, but not for --help and the tables.
    from maml_tf.terminal import quiet

    quiet.import_tensorflow()
    from absl import flags

    from maml_tf.commands import command_line

    try:
        values = command_line.as_dict(command_line.parsed(*arguments))
    except flags.Error as error:
        raise UserError(f'{" ".join(arguments)}: {error}') from None
    # Defaults of other methods may have changed since a run.
    free = FREE_FLAGS | command_line.of_other_methods(values['algorithm'])
    return {name: value for name, value in values.items() if name not in free}


def _flag(name: str, value: Any) -> str:
    return f'no --{name}' if value is None else f'--{name}={value}'


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; arguments: None: those of the program."""
    parser = argparse.ArgumentParser(
        prog='python -m maml_tf.results',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest='command', required=True)
    command = commands.add_parser(
        'record', help="fill a flagfile's companion from evaluated runs, one per seed"
    )
    command.add_argument('flagfile', type=pathlib.Path)
    command.add_argument('run_directory', type=pathlib.Path, nargs='+')
    command = commands.add_parser('table', help='write the tables in the README files anew')
    command.add_argument(
        'checkout', type=pathlib.Path, nargs='?', default='.', help='holds README.md and flags/'
    )
    given = parser.parse_args(arguments)
    with errors_as_one_line():
        if given.command == 'record':
            record(given.flagfile, given.run_directory)
        else:
            results_tables.write(given.checkout)


if __name__ == '__main__':
    main()
