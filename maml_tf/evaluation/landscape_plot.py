"""The picture of pre-training against meta-learning in the plane of two weights."""

import pathlib
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maml_tf.evaluation import figures
from maml_tf.evaluation.landscape import LINES, START, Journey, loss_at

COLOURS = ('tab:blue', 'tab:orange')
LEVELS = (0.03, 0.1, 0.3, 1.0, 3.0)


def draw(path: pathlib.Path, journeys: Mapping[str, Journey]) -> None:
    """Draws, side by side, the path of each start point over the losses of both tasks."""
    points = np.concatenate([LINES, [START], *(j.path for j in journeys.values())])
    points = np.concatenate([points, *(j.adapted for j in journeys.values())])
    low, high = points.min(0) - 0.5, points.max(0) + 0.5
    slopes, intercepts = (np.linspace(*ends, 160) for ends in zip(low, high))
    grid = np.stack(np.meshgrid(slopes, intercepts), -1)
    losses = loss_at(grid.reshape(-1, 2)).reshape(-1, *grid.shape[:2])
    figure = Figure(figsize=(12, 5.6))
    panels = figure.subplots(1, len(journeys), sharex=True, sharey=True)
    for axes, (name, journey) in zip(panels, journeys.items()):
        for colour, loss in zip(COLOURS, losses):
            axes.contour(slopes, intercepts, loss, LEVELS, colors=colour, linewidths=0.7, alpha=0.6)
        _journey(axes, journey)
        axes.set_title(
            f'{name}: mean error {journey.before.mean():.3g}, '
            f'after one step {journey.after.mean():.3g}'
        )
        axes.set_xlabel('slope')
    panels[0].set_ylabel('intercept')
    panels[0].legend(loc='lower left', fontsize='small')
    figures.fit_and_save(figure, path)


def _journey(axes: Axes, journey: Journey) -> None:
    axes.plot(*journey.path.T, color='gray', linewidth=1, label='the start point in training')
    axes.plot(*journey.path[0], 'o', color='gray', markersize=4)
    end = journey.path[-1]
    axes.plot(*end, 'o', color='black', markersize=7, label='where it ends')
    for number, (colour, best, place) in enumerate(zip(COLOURS, LINES, journey.adapted), start=1):
        axes.plot(*best, '*', color=colour, markersize=14, label=f'optimum of task {number}')
        axes.annotate(
            '', place, end, arrowprops={'arrowstyle': '->', 'color': colour, 'linewidth': 2}
        )
        axes.plot(*place, 's', color=colour, markersize=5, label=f'one step on task {number}')
