"""The picture of several methods over the number of shots.

Imports no TensorFlow, so that commands that only read results start at once.
"""

import pathlib
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maml_tf.evaluation import figures
from maml_tf.evaluation.comparisons.comparison_plot import LINES, short
from maml_tf.evaluation.comparisons.over_shots import OverShots

MARKERS = 'osD^v<>pPX'


def draw(path: pathlib.Path, over_shots: OverShots) -> None:
    """Draws a curve of the metric over the shots for each method, with the band of its 95%
    interval, and beside it the paired differences to the first."""
    results, shots, methods = over_shots
    several = len(methods) > 1
    figure = Figure(figsize=(11 if several else 6, 4.4))
    curves, *differences = figure.subplots(1, 2 if several else 1, squeeze=False)[0]
    first = next(iter(methods))
    for number, (method, cells) in enumerate(methods.items()):
        style = {
            'color': f'C{number % 10}',
            'linestyle': LINES[number // 10 % len(LINES)],
            'marker': MARKERS[number % len(MARKERS)],
            'label': short(method),
        }
        _curve(curves, [(shot, cell.mean, cell.ci95) for shot, cell in cells.items()], style)
        compared = [
            (shot, cell.difference, cell.difference_ci95)
            for shot, cell in cells.items()
            if cell.difference is not None
        ]
        for axes in differences:
            _curve(axes, compared, style)
    curves.set_ylabel(results['metric'])
    curves.legend(fontsize='small')
    curves.set_title(f'{results["metric"]} on {results["tasks"]} tasks, 95% intervals')
    for axes in differences:
        axes.axhline(0, color='gray', linewidth=1)
        axes.set_title(f'difference to {short(first)}, paired')
    for axes in (curves, *differences):
        axes.set_xscale('log')  # From 1 to 2 shots is as far as from 5 to 10.
        axes.set_xticks(shots, [str(number) for number in shots])
        axes.set_xticks([], minor=True)
        axes.set_xlabel('shots')
        axes.grid(alpha=0.3)
        if results['unit'] == '%':
            axes.yaxis.set_major_formatter(lambda value, _: f'{100 * value:g}%')
    figures.fit_and_save(figure, path)


def _curve(axes: Axes, points: Sequence[tuple[int, float, float]], style: dict[str, str]) -> None:
    """Draws (shots, value, half-width of its interval)."""
    if not points:
        return
    shots, means, halves = zip(*points)
    axes.plot(shots, means, markersize=4, **style)
    low, high = ([m + sign * h for m, h in zip(means, halves)] for sign in (-1, 1))
    if len(points) == 1:
        axes.errorbar(shots, means, halves, fmt='none', color=style['color'], capsize=3)
    axes.fill_between(shots, low, high, color=style['color'], alpha=0.2, linewidth=0)
