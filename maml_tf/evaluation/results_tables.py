"""Tables of all results: every row in flags/README.md, in README.md runs of published figures."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from maml_tf.errors import UserError
from maml_tf.evaluation.report import GRADIENT_STEPS
from maml_tf.serialisation.files import write_atomically

BEGIN = '<!-- results: python -m maml_tf.results table -->'
END = '<!-- end of results -->'
README_COLUMNS = ('task', 'after', 'paper', 'ours', 'seeds', 'iterations')
COLUMNS = (*README_COLUMNS, 'hours', 'machine', "paper's source")
HEADER = """\
# Results

<!-- Written by `python -m maml_tf.results table` from the .json files: change those. -->

A row is a figure of a paper, or an experiment of this package. Its flagfile, behind the link, holds
the settings, and says where they are not the paper's. From the checkout it is trained and evaluated
by, for instance,

    python run_maml.py --flagfile=flags/maml/sinusoid_10shot.flags --test_set=True

Some rows are evaluated with further flags, which the notes below the table give.

Rows that were run come first. *Not run* means that nobody has run the flagfile yet.

- **after**: the inner gradient steps after which the figures stand. *No step*: before any, or the
  method takes none.
- **paper**: the published figure, with its 95% interval where the paper gives one. *As quoted,
  unverified* in the last column: nobody has looked it up in the paper.
- **ours**: the mean over the test tasks and the seeds, with the 95% interval over the test tasks.
  In %: accuracy; in nats: log-likelihood per point; AUC: area under the ROC curve; of environments:
  the average return; else: mean squared error, and of channel coding the share of wrong bits.
- **seeds**: runs with other initial weights and training tasks, evaluated on the same tasks.
- **iterations**: of the evaluated checkpoint, and how many the flagfile asks for.
- **hours**: of training, all seeds together.

Pictures beside a flagfile are of its run. To change a row, note evaluated runs, one per seed, in
the flagfile's .json file, and write this page anew:

    python -m maml_tf.results record FLAGFILE RUN_DIRECTORY [RUN_DIRECTORY ...]
    python -m maml_tf.results table

"""


def read_companion(path: pathlib.Path) -> dict[str, Any]:
    """Returns what a flagfile's companion says. Raises UserError where it is not JSON."""
    try:
        return json.loads(path.read_text('utf-8'))
    except ValueError as error:
        raise UserError(f'{path}: not JSON ({error})') from None


def axis_of(paper: dict[str, Any]) -> str:
    """Returns what the "steps" of a paper's figure count; most do not say: gradient steps."""
    return paper.get('axis', GRADIENT_STEPS)


def write(checkout: pathlib.Path) -> None:
    """Writes the tables in README.md and flags/README.md anew. Raises UserError, see `pages`."""
    for path, text in pages(checkout).items():
        write_atomically(path, text)


def pages(checkout: pathlib.Path) -> dict[pathlib.Path, str]:
    """Returns README.md with a new table between its two markers, and flags/README.md.

    README.md has the rows that were run and have a figure of a paper to be held against.

    Raises UserError where README.md has not got the markers.
    """
    readme, folder = checkout / 'README.md', checkout / 'flags'
    text = readme.read_text('utf-8')
    if text.count(BEGIN) != 1 or END not in text.split(BEGIN)[1]:
        raise UserError(f'{readme}: needs a line {BEGIN} and a line {END}, for the table between')
    before, rest = text.split(BEGIN)
    after = rest.split(END, 1)[1]
    companions = {
        path.relative_to(folder).as_posix(): read_companion(path)
        for path in sorted(folder.glob('*/*.json'))
    }
    was_run = {path: content for path, content in companions.items() if content.get('ours')}
    runs_first = was_run | companions
    published = {path: said for path, said in was_run.items() if said['paper']['mean']}
    short = markdown([row(path, said, 'flags/') for path, said in published.items()])
    full = markdown([row(path, content) for path, content in runs_first.items()], COLUMNS)
    notes = [
        f'- {_link(path, content)}: {" ".join(said)}\n'
        for path, content in runs_first.items()
        if (said := _notes(content))
    ]
    return {
        readme: f'{before}{BEGIN}\n{short}{END}{after}',
        folder / 'README.md': HEADER + full + ''.join(['\nNotes:\n\n', *notes] if notes else []),
    }


def markdown(rows: Sequence[dict[str, str]], columns: Sequence[str] = README_COLUMNS) -> str:
    """Returns a table in Markdown, with a line's end after each row."""
    lines = [columns, ['---'] * len(columns), *([row[name] for name in columns] for row in rows)]
    return ''.join(f'| {" | ".join(cells)} |\n' for cells in lines)


def row(path: str, content: dict[str, Any], folder: str = '') -> dict[str, str]:
    """Returns {column: cell} of a companion; `path` is its own below flags/."""
    paper, ours = content['paper'], content.get('ours')
    cells = dict.fromkeys(COLUMNS, '') | {
        'task': _link(folder + path, content),
        'after': _after(paper['steps'], axis_of(paper)),
        'paper': _figures(paper, paper['metric']) or '–',
        'ours': 'not run',
        "paper's source": paper['source'],
    }
    if ours:
        cells |= {
            'ours': _figures(ours, paper['metric']),
            'seeds': str(len(ours['seeds'])),
            'iterations': f'{ours["iterations"]:,} of {ours["of_iterations"]:,}',
            'hours': f'{ours["hours"]:.2g}',
            'machine': ours['machine'],
        }
    return cells


def _notes(content: dict[str, Any]) -> list[str]:
    """Returns what there is to say of a row besides its cells."""
    evaluation = ' '.join(content.get('evaluation', ()))
    said = [f'Evaluated with `{evaluation}`.'] if evaluation else []
    return [*said, *([content['note']] if 'note' in content else [])]


def _link(path: str, content: dict[str, Any]) -> str:
    return f'[{content["title"]}]({pathlib.PurePosixPath(path).with_suffix(".flags")})'


def _figures(result: dict[str, Any], metric: str) -> str:
    halves = result['ci95'] or [None] * len(result['mean'])
    return ' / '.join(_figure(*pair, metric) for pair in zip(result['mean'], halves))


def _figure(value: float, half: float | None, metric: str) -> str:
    """Writes 0.9557, 0.008 as '95.6 ± 0.8 %'; errors keep two digits, small ones four."""
    if metric in ('accuracy', 'pixel_accuracy'):
        value, digits, unit = 100 * value, 1, ' %'
        half = None if half is None else 100 * half
    elif metric == 'log_likelihood':
        digits, unit = 3, ' nats'
    elif metric == 'roc_auc':
        digits, unit = 3, ' AUC'
    elif metric == 'return':
        digits, unit = 1, ''
    else:
        digits, unit = (2 if value >= 0.1 else 4), ''
    interval = '' if half is None else f' ± {half:.{digits}f}'
    return f'{value:.{digits}f}{interval}{unit}'


def _after(steps: Sequence[int], axis: str) -> str:
    """Writes [1, 5] as '1 / 5 steps', and on another axis as 'instance number 1 / 5'."""
    if axis != GRADIENT_STEPS:
        return f'{axis} {" / ".join(map(str, steps))}'
    if steps == [0]:
        return 'no step'
    return ' / '.join(map(str, steps)) + (' step' if steps == [1] else ' steps')
