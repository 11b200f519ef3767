"""Results beside flagfiles: what a flagfile's command reached, next to it as JSON, and the README's
table of all.

    python -m maml_tf.results record flags/maml/sinusoid_10shot.flags RUN_DIRECTORY [RUN_DIRECTORY
    ...] python -m maml_tf.results table README.md

A flagfile x.flags has a companion x.json. Its "title" and "paper" (the published figure and where
it stands) are written by hand; `record` fills "ours" from the results.json of one run per seed;
`table` regenerates the README.
"""

import argparse
import json
import pathlib

import numpy as np

from maml_tf.saving.run_directory import write_atomically

BEGIN, END = (
    '<!-- results: python -m maml_tf.results table README.md -->',
    '<!-- end of results -->',
)
HEADER = [
    'task',
    'after',
    'paper',
    'ours',
    'seeds',
    'iterations',
    'hours',
    'machine',
    "paper's source",
]


def pool(runs):
    """results.json contents of several seeds on the same tasks -> (means, half-widths) per step.

    The half-width is the root mean square of the seeds': all seeds are scored on the same tasks, so
    that their mean is no surer about the tasks than one of them.
    """
    means, ci95 = (np.array([run[key] for run in runs]) for key in ('mean', 'ci95'))
    return means.mean(0), np.sqrt(np.square(ci95).mean(0))


def record(flagfile, directories):
    """Fills "ours" in the flagfile's JSON. Raises ValueError where the runs are not of one kind."""
    companion = pathlib.Path(flagfile).with_suffix('.json')
    content = json.loads(companion.read_text('utf-8'))
    directories = [pathlib.Path(directory) for directory in directories]
    runs = [
        json.loads((directory / 'results.json').read_text('utf-8')) for directory in directories
    ]
    clocks = [
        json.loads((directory / 'clock.json').read_text('utf-8')) for directory in directories
    ]
    kinds = {
        json.dumps([run[key] for key in ('metric', 'tasks', 'split', 'iteration', 'inner_steps')])
        + str(run['flags']['update_batch_size'])
        for run in runs
    }
    if len(kinds) > 1:
        raise ValueError(f'{flagfile}: the runs differ in more than the seed: {sorted(kinds)}')
    steps = content['paper']['steps']
    means, ci95 = pool(runs)
    flags = runs[0]['flags']
    content['ours'] = {
        'steps': steps,
        'mean': [round(float(means[s]), 4) for s in steps],
        'ci95': [round(float(ci95[s]), 4) for s in steps],
        'seeds': sorted(run['seed'] for run in runs),
        'tasks': runs[0]['tasks'],
        'split': runs[0]['split'],
        'shot': flags['update_batch_size'],
        'iterations': runs[0]['iteration'],
        'of_iterations': flags['pretrain_iterations'] + flags['metatrain_iterations'],
        'hours': round(sum(clock['training_seconds'] for clock in clocks) / 3600, 3),
        'machine': clocks[0]['machine'],
    }
    write_atomically(companion, json.dumps(content, indent=1, ensure_ascii=False) + '\n')


def rows(flags_directory):
    """Cells of the table, one row per flagfile; what was not run says so."""
    for path in sorted(pathlib.Path(flags_directory).glob('*/*.json')):
        content = json.loads(path.read_text('utf-8'))
        paper, ours = content['paper'], content.get('ours')
        show = lambda values, halves: ' / '.join(
            _figure(value, half, paper['metric']) for value, half in zip(values, halves)
        )
        published = paper.get('ci95') or [None] * len(paper['mean'])
        yield [
            f'[{content["title"]}]({path.with_suffix(".flags").as_posix()})',
            _steps(paper['steps']),
            show(paper['mean'], published) or '–',
            *(
                [
                    show(ours['mean'], ours['ci95']),
                    str(len(ours['seeds'])),
                    f'{ours["iterations"]:,} of {ours["of_iterations"]:,}',
                    f'{ours["hours"]:.2g}',
                    ours['machine'],
                ]
                if ours
                else ['not run', '', '', '', '']
            ),
            paper['source'],
        ]


def _figure(value, half, metric):
    """0.9557, 0.008 -> 95.6 ± 0.8 %; errors keep two digits after the point, small ones four."""
    scale, digits, unit = (
        (100, 1, ' %') if metric == 'accuracy' else (1, 2 if value >= 0.1 else 4, '')
    )
    interval = '' if half is None else f' ± {scale * half:.{digits}f}'
    return f'{scale * value:.{digits}f}{interval}{unit}'


def _steps(steps):
    if steps == [0]:
        return 'no step'
    return ' / '.join(map(str, steps)) + (' step' if steps == [1] else ' steps')


def table(readme):
    """Rewrites the lines between the two markers of the README from flags/ beside it."""
    readme = pathlib.Path(readme)
    text = readme.read_text('utf-8')
    lines = [HEADER, ['---'] * len(HEADER), *rows(readme.parent / 'flags')]
    root = readme.parent.as_posix() + '/'
    markdown = '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines).replace(
        f'({root}', '('
    )
    head, rest = text.split(BEGIN)
    write_atomically(readme, f'{head}{BEGIN}\n{markdown}\n{END}{rest.split(END)[1]}')


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='command', required=True)
    command = commands.add_parser(
        'record', help="fill a flagfile's JSON from finished, evaluated runs"
    )
    command.add_argument('flagfile')
    command.add_argument('run_directory', nargs='+')
    commands.add_parser('table', help='regenerate the results table').add_argument('readme')
    arguments = parser.parse_args()
    if arguments.command == 'record':
        record(arguments.flagfile, arguments.run_directory)
    else:
        table(arguments.readme)


if __name__ == '__main__':
    main()
