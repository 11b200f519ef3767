"""The picture of several runs on the same tasks.

Imports no TensorFlow, so that commands that only read results start at once.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maml_tf.evaluation import figures

# Colours for twenty runs; those after them begin anew, with another line.
COLOURS = [f'C{number}' for number in range(10)]
LINES = ('-', '--', ':')
LONGEST = 26  # letters of a label


def draw(
    path: pathlib.Path,
    results: Mapping[str, Mapping[str, Any]],
    steps: Mapping[str, int],
    summaries: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    differences: Mapping[str, tuple[float, float]],
) -> None:
    """Draws the metric along each run's axis, every run's mean, and its difference to the first.

    Args: by the runs' labels, the first run first,
      results: results.json.
      steps: the value on its axis at which a run counts; its curve ends there.
      summaries: (means, deviations, half-widths), each [1].
      differences: (mean, half-width) of the paired difference to the first run.
    """
    first, *others = results
    metric, percent = results[first]['metric'], results[first]['unit'] == '%'
    figure = Figure(figsize=(13, 1.8 + 0.36 * max(8, len(results))))
    along, means, paired = figure.subplots(1, 3, width_ratios=(5, 3, 3))
    paired.sharey(means)
    for number, (label, run) in enumerate(results.items()):
        style = {'color': _colour(number), 'linestyle': LINES[number // 10 % 3]}
        count = run['axis']['values'].index(steps[label]) + 1
        values, curve = run['axis']['values'][:count], np.array(run['mean'][:count], float)
        along.plot(values, curve, marker='o', markersize=3, label=_short(label), **style)
    along.set_xlabel(results[first]['axis']['name'])
    along.set_ylabel(metric)
    along.set_title('along the inner loop')
    along.legend(fontsize='small')
    if not percent:
        along.set_yscale('log')
    _rows(means, {label: (s[0][0], s[2][0]) for label, s in summaries.items()})
    means.set_title(f'{metric}: mean, 95% interval')
    _rows(paired, {first: (np.nan, np.nan)} | {label: differences[label] for label in others})
    paired.tick_params(labelleft=False)
    paired.axvline(0, color='gray', linewidth=1)
    paired.set_title(f'difference to {_short(first)}, paired')
    for axes in (along.yaxis, means.xaxis, paired.xaxis):
        if percent:
            axes.set_major_formatter(lambda value, _: f'{100 * value:g}%')
    for axes in (along, means, paired):
        axes.grid(alpha=0.3)
    figures.fit_and_save(figure, path)


def _rows(axes: Axes, values: Mapping[str, tuple[float, float]]) -> None:
    """Draws a dot with its interval for each label, from the top down."""
    for number, (mean, half) in enumerate(values.values()):
        colour = _colour(number)
        axes.errorbar(mean, number, xerr=half, fmt='o', color=colour, capsize=3, markersize=4)
    axes.set_yticks(range(len(values)), map(_short, values))
    axes.set_ylim(len(values) - 0.5, -0.5)


def _short(label: str) -> str:
    return label if len(label) <= LONGEST else f'…{label[1 - LONGEST :]}'


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
