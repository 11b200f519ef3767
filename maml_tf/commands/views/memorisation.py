"""Says whether learners adapt or remember: their scores on training tasks and on new ones.

A learner that remembers its training tasks is about as good on them before adaptation as after it,
and on new tasks it stays bad (Yin et al. 2020, arXiv 1912.03820). One that adapts is bad on either
before, and good on either after.

    python -m maml_tf.commands.memorisation RUN_DIRECTORY ... [--tasks=600]
        [--picture=memorisation.png]

A run may have a name and a number of inner steps (else: those of its evaluation), as in
MAML=logs/run@5. New tasks are those of the test split.
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from maml_tf import algorithms
from maml_tf.commands import command_line
from maml_tf.commands.experiment import problem_of
from maml_tf.commands.views.compare import labelled_run
from maml_tf.commands.views.runs import flags_of
from maml_tf.datasets.sources import SOURCES
from maml_tf.errors import UserError
from maml_tf.evaluation import evaluate, figures
from maml_tf.evaluation.intervals import summarise
from maml_tf.objectives.metric import Metric
from maml_tf.objectives.objective import Return
from maml_tf.saving.init_from import load_weights
from maml_tf.terminal.exit import errors_as_one_line

TRAINING, NEW = 'training tasks', 'new tasks'
COLOURS = {TRAINING: 'tab:blue', NEW: 'tab:orange'}


def scores_of(
    directory: pathlib.Path, steps: int | None, tasks: int, data_dir: str | None = None
) -> tuple[dict[str, np.ndarray], Metric]:
    """Scores the last checkpoint of a run on tasks that it was trained on, and on new ones.

    Args:
      steps: inner steps; None: those of the run's evaluation.
      data_dir: where the data are now; None: where they were.
    Returns: {TRAINING: [tasks, steps + 1], NEW: the same}, and what the scores are.
    Raises: UserError where it is no run, or of a learner that takes no inner steps.
    """
    flags = flags_of(directory)
    row = SOURCES[flags.datasource]
    if data_dir is not None:
        flags.data_dir = data_dir
    if isinstance(row.objective, Return):
        raise UserError(
            f'{directory}: a run of --datasource={flags.datasource}, which has rollouts'
        )
    source = row.load(flags)
    problem = problem_of(flags, source)
    learner = algorithms.registry()[flags.algorithm].from_flags(flags, problem)
    if not learner.takes_steps:
        raise UserError(f'{directory}: --algorithm={flags.algorithm} takes no inner steps')
    load_weights(learner, directory, for_tasks_alone=True)
    learner.check_ready()
    spec = learner.evaluation_draws(problem.evaluation)
    chunk, scores = evaluate.chunk(spec), {}
    for name, split in ((TRAINING, flags.train_on), (NEW, 'test')):
        draw = source.tasks(split, spec, evaluate.TASK_SEED)
        at_once = learner.evaluation_share(chunk, spec)
        scores[name] = evaluate.evaluator(learner, draw, steps, chunk, at_once)(tasks)
    return scores, learner.metric


def table(runs: Mapping[str, tuple[Mapping[str, np.ndarray], Metric]]) -> str:
    """Returns a table of the scores before adaptation and after it; runs: {label: `scores_of`}."""
    longest = max(len(label) for label in runs)
    headings = [f'{name}, {when}' for name in COLOURS for when in ('before', 'after')]
    lines = [' ' * longest + ''.join(f'{heading:>25}' for heading in headings)]
    for label, (scores, metric) in runs.items():
        cells = []
        for name in COLOURS:
            means, _, ci95 = summarise(scores[name])
            cells += [f'{metric.show(means[i])} ± {metric.show(ci95[i])}' for i in (0, -1)]
        lines.append(f'{label:{longest}}' + ''.join(f'{cell:>25}' for cell in cells))
    return '\n'.join(lines)


def draw(path: pathlib.Path, runs: Mapping[str, tuple[Mapping[str, np.ndarray], Metric]]) -> None:
    """Draws, side by side, the scores of each run after every inner step."""
    figure = Figure(figsize=(1 + 4.2 * len(runs), 4.2))
    panels = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
    for axes, (label, (scores, _)) in zip(panels, runs.items()):
        for name, colour in COLOURS.items():
            means, _, ci95 = summarise(scores[name])
            steps = np.arange(len(means))
            axes.plot(steps, means, color=colour, marker='.', label=name)
            axes.fill_between(steps, means - ci95, means + ci95, color=colour, alpha=0.2)
        axes.set_title(label)
        axes.set_xlabel('gradient steps')
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel(next(iter(runs.values()))[1].title)
    panels[0].legend()
    figures.fit_and_save(figure, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; arguments: None: those of the program."""
    parser = argparse.ArgumentParser(
        prog='python -m maml_tf.commands.memorisation',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('run', nargs='+', metavar='[LABEL=]RUN_DIRECTORY[@STEPS]')
    parser.add_argument('--tasks', type=int, default=600, help='of either kind, at least 2')
    parser.add_argument('--data_dir', help='where the data are, if not where they were')
    parser.add_argument('--picture', type=pathlib.Path, help='the PNG file to write')
    given = parser.parse_args(arguments)
    with errors_as_one_line(command_line.FLAG_OF, file='--picture'):
        if given.tasks < 2:
            raise UserError(f'--tasks={given.tasks}: at least 2')
        runs = {}
        for label, directory, steps in map(labelled_run, given.run):
            if label in runs:
                raise UserError(f'{label}: two runs of this name; say NAME={directory}')
            runs[label] = scores_of(directory, steps, given.tasks, given.data_dir)
        if len({metric for _, metric in runs.values()}) > 1:
            raise UserError('the runs are scored by different metrics')
        print(table(runs))
        if given.picture:
            draw(given.picture, runs)
            print(f'Picture: {given.picture}')
