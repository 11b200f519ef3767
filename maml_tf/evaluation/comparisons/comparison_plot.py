"""The picture of several runs on the same tasks.

Imports no TensorFlow, so that commands that only read results start at once.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maml_tf.evaluation import figures
from maml_tf.evaluation.comparisons.comparison import Compared
from maml_tf.evaluation.intervals import summarise
from maml_tf.evaluation.report import GRADIENT_STEPS

# Ten colours; further runs begin anew, with another line.
COLOURS = [f'C{number}' for number in range(10)]
LINES = ('-', '--', ':')
LONGEST = 26  # letters of a label
MOST_MARKERS = 20
# Of the largest error; what is less is the rounding of a method that is exact.
LEAST_ERROR = 1e-5


def draw(path: pathlib.Path, runs: Sequence[Compared]) -> None:
    """Draws the metric along each run's axis up to where it counts, every run's mean, and its
    difference to the first; and before them the metric in the course of training, where a run of
    this program left it."""
    first = runs[0]
    metric, percent = first.results['metric'], first.results['unit'] == '%'
    trained = any(len(run.curve) for run in runs)
    figure = Figure(figsize=(18 if trained else 13, 1.8 + 0.36 * max(8, len(runs))))
    ratios = (*[5] * trained, 5, 3, 3)
    *training, along, means, differences = figure.subplots(1, len(ratios), width_ratios=ratios)
    differences.sharey(means)
    if training:
        _training_curves(training[0], runs, percent)
    for number, run in enumerate(runs):
        axis = run.results['axis']['values']
        count = axis.index(run.steps) + 1
        curve = np.array(run.results['mean'][:count], float)
        style = _style(number)
        if count <= MOST_MARKERS:
            style |= {'marker': 'o', 'markersize': 3}
        along.plot(axis[:count], curve, label=short(run.label), **style)
    along.set_xlabel(first.results['axis']['name'])
    along.set_ylabel(metric)
    name = first.results['axis']['name']
    along.set_title('along the inner loop' if name == GRADIENT_STEPS else f'by {name}')
    along.legend(fontsize='small')
    _scale(along, first.results)
    for number, run in enumerate(runs):
        mean, _, half = summarise(run.scores[:, np.newaxis])
        _dot(means, number, mean[0], half[0])
        if run.difference is not None:
            _dot(differences, number, run.difference, run.ci95)
    means.set_yticks(range(len(runs)), [short(run.label) for run in runs])
    means.set_ylim(len(runs) - 0.5, -0.5)
    means.set_title(f'{metric}: mean, 95% interval')
    differences.tick_params(labelleft=False)
    differences.axvline(0, color='gray', linewidth=1)
    differences.set_title(f'difference to {short(first.label)}, paired')
    for axis in (along.yaxis, means.xaxis, differences.xaxis):
        if percent:
            axis.set_major_formatter(lambda value, _: f'{100 * value:g}%')
    for axes in (along, means, differences):
        axes.grid(alpha=0.3)
    figures.fit_and_save(figure, path)


def _dot(axes: Axes, number: int, mean: float, half: float) -> None:
    axes.errorbar(mean, number, xerr=half, fmt='o', color=_colour(number), capsize=3, markersize=4)


def _training_curves(axes: Axes, runs: Sequence[Compared], percent: bool) -> None:
    for number, run in enumerate(runs):
        if len(run.curve):
            axes.plot(*run.curve.T, linewidth=1, **_style(number))
    axes.set_xlabel('iteration')
    axes.set_title('training tasks, after adaptation')
    axes.grid(alpha=0.3)
    if percent:
        axes.yaxis.set_major_formatter(lambda value, _: f'{100 * value:g}%')
    _scale(axes, runs[0].results)


def _scale(axes: Axes, results: Mapping[str, Any]) -> None:
    """Makes the axis logarithmic for errors, as the learning curve's (plots.py).

    What is below LEAST_ERROR of the largest is left out: an error of rounding would fill the axis.
    """
    values = np.concatenate([line.get_ydata() for line in axes.lines])
    values = values[np.isfinite(values)]
    error = results['unit'] != '%' and not results.get('higher_is_better', False)
    if error and len(values) and (values > 0).all():
        axes.set_yscale('log')
        if values.min() < LEAST_ERROR * values.max():
            axes.set_ylim(LEAST_ERROR * values.max(), 2 * values.max())


def _style(number: int) -> dict[str, str]:
    line = LINES[number // len(COLOURS) % len(LINES)]
    return {'color': _colour(number), 'linestyle': line}


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def short(label: str) -> str:
    """Returns a label that fits beside a picture, the end of a long one."""
    return label if len(label) <= LONGEST else f'…{label[1 - LONGEST :]}'
