"""The pictures of an evaluated policy: its paths, its returns by step, its learning curve."""

import pathlib

import numpy as np
from matplotlib.figure import Figure

from maml_tf.commands.experiment import Experiment
from maml_tf.evaluation import figures, pictures
from maml_tf.objectives import Axis
from maml_tf.rl.environments.environment import Environment
from maml_tf.rl.environments.navigation2d import Navigation2D
from maml_tf.rl.evaluation import Evaluation

PATHS = 5  # rollouts that are drawn of each task and step
COLOURS = ('tab:gray', 'yellowgreen', 'tab:green', 'darkgreen')


def draw(experiment: Experiment, result: Evaluation, axis: Axis, title: str) -> None:
    """Draws paths.png, adaptation_by_step.png and learning_curve.png into the run directory."""
    path, returns = experiment.directory.path, result.returns
    pictures.of_scores(
        path,
        returns,
        axis,
        experiment.learner.metric,
        experiment.directory.metrics(),
        f'{title}, {len(returns)} tasks',
    )
    paths(path / 'paths.png', experiment.source.environment, result, title)


def paths(path: pathlib.Path, environment: Environment, result: Evaluation, title: str) -> None:
    """Draws the first rollouts of some tasks, a column a task and a row a gradient step.

    A body that moves in the plane is drawn there, another by its place over time.
    """
    columns, rows = len(result.tasks), len(result.positions)
    figure = Figure(figsize=(2.9 * columns, 2.7 * rows + 0.5))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for step, positions in enumerate(result.positions):
        for i, axes in enumerate(grid[step]):
            colour = COLOURS[min(step, len(COLOURS) - 1)]
            for rollout, counts in zip(positions[i, :PATHS], result.counts[step][i, :PATHS]):
                taken = rollout[: int(counts.sum()) + 1]
                planar = taken.shape[-1] == 2
                x, y = taken.T if planar else (np.arange(len(taken)), taken[:, 0])
                axes.plot(x, y, color=colour, linewidth=1, alpha=0.8)
            if planar:
                axes.set_aspect('equal', adjustable='box')
            _mark(axes, environment, result.tasks[i])
            axes.grid(alpha=0.3)
            axes.set_title(f'{result.returns[i, step]:.1f}', fontsize=9, loc='right')
            if step == 0:
                axes.set_title(environment.describe(result.tasks[i]), fontsize=9, loc='left')
            if step == rows - 1:
                axes.set_xlabel('x' if planar else 'step')
        label = 'before adaptation' if step == 0 else f'after {step} step{"s" * (step > 1)}'
        grid[step][0].set_ylabel(f'{label}\n{"y" if planar else "x"}')
    figure.suptitle(f'{title}: paths, and the average return')
    figures.fit_and_save(figure, path)


def _mark(axes, environment, task):
    """Marks where there is something to mark: the start, and the goal of navigation."""
    if environment.name == Navigation2D.name:
        axes.plot(0, 0, 'o', color='black', markersize=4)
        axes.plot(*task, '*', color='tab:red', markersize=11)
