"""The pictures of an evaluated policy: its paths, its returns by step, its learning curve."""

import pathlib

import numpy as np
from matplotlib.figure import Figure

from maml_tf.commands.experiment import Experiment
from maml_tf.errors import UserError
from maml_tf.evaluation import figures, pictures
from maml_tf.objectives.metric import Axis
from maml_tf.rl.environments.environment import Environment
from maml_tf.rl.environments.mujoco_rollouts import MuJoCoEnvironment
from maml_tf.rl.environments.navigation2d import Navigation2D
from maml_tf.rl.environments.told import Told
from maml_tf.rl.evaluation import Evaluation

PATHS = 5  # rollouts that are drawn of each task and step
FRAMES = 8  # of a robot, over one rollout
COLOURS = ('tab:gray', 'yellowgreen', 'tab:green', 'darkgreen')


def draw(experiment: Experiment, result: Evaluation, axis: Axis, title: str) -> None:
    """Draws into the run directory: paths.png, adaptation_by_step.png, learning_curve.png, and
    strip.png of a robot."""
    path, returns = experiment.directory.path, result.returns
    pictures.of_scores(
        path,
        returns,
        axis,
        experiment.learner.metric,
        experiment.directory.metrics(),
        f'{title}, {len(returns)} tasks',
    )
    environment = experiment.source.environment
    paths(path / 'paths.png', environment, result, title)
    scene = environment.environment if isinstance(environment, Told) else environment
    if isinstance(scene, MuJoCoEnvironment):
        try:
            strip(path / 'strip.png', scene, result, title)
        except UserError as error:
            print(f'No strip.png: {error}')


def paths(path: pathlib.Path, environment: Environment, result: Evaluation, title: str) -> None:
    """Draws the first rollouts of some tasks, a column a task and a row a gradient step.

    A body that moves in the plane is drawn there, another by its place over time.
    """
    columns, rows = len(result.tasks), len(result.trajectories)
    figure = Figure(figsize=(2.9 * columns, 2.7 * rows + 0.5))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for step, (*_, counts, positions) in enumerate(result.trajectories):
        for i, axes in enumerate(grid[step]):
            colour = COLOURS[min(step, len(COLOURS) - 1)]
            for rollout, counts_of_it in zip(positions[i, :PATHS], counts[i, :PATHS]):
                taken = rollout[: int(counts_of_it.sum()) + 1]
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
        grid[step][0].set_ylabel(f'{_moment(step)}\n{"y" if planar else "x"}')
    figure.suptitle(f'{title}: paths, and the average return')
    figures.fit_and_save(figure, path)


def strip(
    path: pathlib.Path, environment: MuJoCoEnvironment, result: Evaluation, title: str
) -> None:
    """Draws a robot in two tasks, before and after adaptation, over the rollout of median return.

    The tasks are those with the least and the greatest number, as backward and forward.
    Raises: UserError where nothing can be drawn.
    """
    tasks = sorted({int(np.argmin(result.tasks)), int(np.argmax(result.tasks))})
    steps = sorted({0, len(result.trajectories) - 1})
    rows = [(task, step) for task in tasks for step in steps]
    figure = Figure(figsize=(1.5 * FRAMES, 1.8 * len(rows) + 0.5))
    for (task, step), axes in zip(rows, figure.subplots(len(rows), 1, squeeze=False)[:, 0]):
        trajectories = result.trajectories[step]
        returns = trajectories.returns[task]
        rollout = int(np.argsort(returns)[len(returns) // 2])
        axes.imshow(environment.strip(trajectories, task, rollout, FRAMES))
        axes.set_axis_off()
        taken = int(trajectories.counts[task, rollout].sum())
        x = trajectories.positions[task, rollout, : taken + 1, 0]
        axes.set_title(
            f'{environment.describe(result.tasks[task])}, {_moment(step)}: {x[-1] - x[0]:+.1f} in '
            f'{taken} steps',
            fontsize=9,
            loc='left',
        )
    figure.suptitle(f'{title}: the rollout of median return, evenly spaced frames')
    figures.fit_and_save(figure, path)


def _moment(step):
    return 'before adaptation' if step == 0 else f'after {step} step{"s" * (step > 1)}'


def _mark(axes, environment, task):
    """Marks where there is something to mark: the start, and the goal of navigation."""
    if environment.name == Navigation2D.name:
        axes.plot(0, 0, 'o', color='black', markersize=4)
        axes.plot(*task, '*', color='tab:red', markersize=11)
