"""Plots of numbers: the learning curve, the metric along an axis, and curves that were fitted."""

import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis as AxisOfFigure
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from maml_tf.episodes.task import Task
from maml_tf.evaluation import figures
from maml_tf.objectives.metric import Axis, Metric

MOST_TICKS = 12
FIRST = {'color': 'tab:gray', 'linestyle': ':'}
SECOND = {'color': 'yellowgreen'}
LAST = {'color': 'darkgreen'}
BAND = {'color': LAST['color'], 'alpha': 0.2, 'linewidth': 0}
# Of the predictions of a fit, by their number.
STYLES = {1: (LAST,), 2: (FIRST, LAST), 3: (FIRST, SECOND, LAST)}


def learning_curve(path: pathlib.Path, rows: Sequence[Mapping[str, str]], metric: Metric) -> None:
    """Draws a metric over the iterations: before and after adaptation, and in validation.

    The axis is logarithmic where lower is better and all values are positive.

    Args:
      rows: of metrics.csv, text by column; columns that are missing or empty are left out. Without
        any row nothing is drawn.
    """
    curves = {
        f'pre_{metric.name}': 'training support, before the updates',
        f'post_{metric.name}': 'training query, after',
        f'val_{metric.name}': 'validation query, after',
    }
    points = {
        label: [(int(row['iteration']), float(row[name])) for row in rows if row.get(name)]
        for name, label in curves.items()
    }
    if not any(points.values()):
        return
    values = [value for curve in points.values() for _, value in curve if math.isfinite(value)]
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    for label, curve in points.items():
        if curve:
            marker = 'o' if label.startswith('validation') else None
            axes.plot(*zip(*curve), label=label, marker=marker, markersize=3)
    axes.set_xlabel('iteration')
    axes.set_ylabel(_named(metric))
    if not metric.higher_is_better and all(value > 0 for value in values):
        axes.set_yscale('log')
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5, 7)))  # More would overlap.
        axes.yaxis.set_major_formatter('{x:g}')
        axes.yaxis.set_minor_formatter('{x:g}')
    _in_unit(axes.yaxis, metric)
    axes.grid(alpha=0.3)
    axes.set_title('Learning curve')
    figures.fit_and_save(figure, path, legend_of=axes)


def by_axis(
    path: pathlib.Path,
    axis: Axis,
    means: np.ndarray,
    ci95: np.ndarray,
    metric: Metric,
    title: str,
) -> None:
    """Draws means of a metric with their 95% intervals, such as after every gradient step.

    Args:
      axis: what the entries stand for.
      means, ci95: [entries], means and half-widths of their intervals.
    """
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    axes.errorbar(axis.values, means, yerr=ci95, marker='o', capsize=3)
    axes.set_xlabel(axis.name)
    axes.set_ylabel(f'{_named(metric)}: mean, 95% interval')
    if len(axis.values) <= MOST_TICKS:
        axes.set_xticks(axis.values)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _in_unit(axes.yaxis, metric)
    axes.grid(alpha=0.3)
    axes.set_title(title)
    figures.fit_and_save(figure, path)


def fits(
    path: pathlib.Path,
    task: Task,
    predictions: Mapping[str, np.ndarray],
    title: str,
    deviation: np.ndarray | None = None,
) -> None:
    """Draws for each task the true curve, the support points, and some predictions.

    Args:
      task: its query lies on an even grid of x, the first input.
      predictions: {label: [tasks, n, 1]}, up to three.
      deviation: of the last prediction, [tasks, n, 1]; twice it, either way, is drawn as a band.
    """
    count = len(task.query_x)
    figure = Figure(figsize=(4.5 * count, 4))
    grid = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    for i, axes in enumerate(grid):
        of_task = {label: np.asarray(outputs[i]) for label, outputs in predictions.items()}
        if deviation is not None:
            middle, half = [*of_task.values()][-1][:, 0], 2 * np.asarray(deviation[i])[:, 0]
            band = middle - half, middle + half
            axes.fill_between(task.query_x[i, :, 0], *band, label='± 2 deviations', **BAND)
        _fit(axes, task, of_task, i)
    grid[0].set_ylabel('y')
    figure.suptitle(title)
    figures.fit_and_save(figure, path, legend_of=grid[0])


def _fit(axes: Axes, task: Task, predictions: Mapping[str, np.ndarray], i: int) -> None:
    x = task.query_x[i, :, 0]
    axes.plot(
        x, task.query_y[i, :, 0], color='tab:red', linewidth=3, alpha=0.5, label='true function'
    )
    for (label, outputs), style in zip(predictions.items(), STYLES[len(predictions)]):
        axes.plot(x, outputs[:, 0], label=label, **style)
    axes.plot(
        task.support_x[i, :, 0],
        task.support_y[i, :, 0],
        '^',
        color='tab:purple',
        markersize=8,
        label='support points',
    )
    axes.set_xlabel('x')
    axes.grid(alpha=0.3)


def _named(metric: Metric) -> str:
    """Returns 'Accuracy (%)', 'Mean squared error'."""
    return f'{metric.title} ({metric.unit})' if metric.unit else metric.title


def _in_unit(axis: AxisOfFigure, metric: Metric) -> None:
    """Writes a fraction that is shown as a percentage as one."""
    if metric.unit == '%':
        axis.set_major_formatter(lambda value, _: f'{100 * value:g}')
