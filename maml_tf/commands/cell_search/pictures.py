"""Pictures of a search: the cell as a graph, and the accuracies of all children over time."""

import itertools
import pathlib

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from maml_tf.commands.cell_search.records import AGAIN, RANDOM, Row
from maml_tf.evaluation import figures
from maml_tf.networks.cells.cell import OUTSIDE, Cell

OUTSIDE_NAMES = ('cell before\nthe previous', 'previous\ncell')
COLOURS = {'conv': '#cfe3f5', 'sepa': '#d9f0d3', 'max3': '#fde3c8', 'aver': '#fde3c8'}
KINDS = (
    ('chosen by the search', 'tab:blue', 'o', lambda row: row['origin'] not in (RANDOM, AGAIN)),
    ('random, the control', 'tab:orange', 's', lambda row: row['origin'] == RANDOM),
    ('second look', 'tab:green', '^', lambda row: row['origin'] == AGAIN),
)


def draw_cell(path: pathlib.Path, cell: Cell, title: str) -> None:
    """Draws the graph of a cell, from what it takes on the left to what it gives on the right."""
    columns = _columns(cell)
    places = {0: (0.0, 0.5), 1: (0.0, -0.5 - (cell.size - 1))}
    for number, column in enumerate(columns):
        places[OUTSIDE + number] = (3.4 * (column + 1), -1.0 * number)
    end = 3.4 * (max(columns) + 2), -(cell.size - 1) / 2
    figure = Figure(figsize=(2.5 + 2.3 * (max(columns) + 2), 1.6 + 1.25 * cell.size))
    axes = figure.subplots()
    for i, name in enumerate(OUTSIDE_NAMES):
        _box(axes, places[i], name, '#eeeeee', 1.5, 0.5)
    for number, block in enumerate(cell.blocks):
        x, y = places[OUTSIDE + number]
        for place, side in ((0, 0.24), (2, -0.24)):
            taken, operation = block[place : place + 2]
            spot = x - 1.35, y + side
            _arrow(axes, _right_of(places[taken], taken), (spot[0] - 0.62, spot[1]))
            _box(axes, spot, operation, COLOURS.get(operation[:4], 'white'), 1.24, 0.34)
            _arrow(axes, (spot[0] + 0.62, spot[1]), (x - 0.2, y))
        axes.text(x, y, '+', ha='center', va='center', fontsize=13, zorder=3)
        axes.plot([x], [y], 'o', markersize=17, color='white', markeredgecolor='black', zorder=2)
    for taken in cell.ends:
        _arrow(axes, _right_of(places[taken], taken), (end[0] - 0.85, end[1]))
    name = 'conv1x1' if len(cell.ends) == 1 else 'joined,\nconv1x1'
    _box(axes, end, name, '#eeeeee', 1.5, 0.5)
    axes.set_xlim(-1.1, end[0] + 1.1)
    axes.set_ylim(min(y for _, y in places.values()) - 0.6, 1.0)
    axes.set_axis_off()
    axes.set_title(title)
    figures.fit_and_save(figure, path)


def draw_search(path: pathlib.Path, rows: list[Row], title: str) -> None:
    """Draws validation accuracies over the time of the search, and the best so far as a line."""
    minutes = [total / 60 for total in itertools.accumulate(row['seconds'] for row in rows)]
    figure = Figure(figsize=(8, 4.5))
    axes = figure.subplots()
    for label, colour, marker, belongs in KINDS:
        points = [(x, 100 * r['accuracy']) for x, r in zip(minutes, rows) if belongs(r)]
        if points:
            axes.scatter(
                *zip(*points), c=colour, marker=marker, label=label, s=28, alpha=0.8, zorder=3
            )
    for label, colour, marker, belongs in KINDS[:2]:
        line = [(x, 100 * r['accuracy']) for x, r in zip(minutes, rows) if belongs(r)]
        if line:
            times, values = zip(*line)
            best = list(itertools.accumulate(values, max))
            axes.step(
                (*times, minutes[-1]),
                (*best, best[-1]),
                where='post',
                color=colour,
                alpha=0.7,
                label='best so far of these',
            )
        del label, marker
    sizes = [row['size'] for row in rows if row['origin'] != AGAIN]
    for i in range(1, len(sizes)):
        if sizes[i] != sizes[i - 1]:
            axes.axvline(minutes[i - 1], color='tab:gray', linewidth=0.8, linestyle=':')
    for size in sorted(set(sizes)):
        first = minutes[sizes.index(size) - 1] if sizes.index(size) else 0.0
        blocks = f'{size} block' + ('s' if size > 1 else '')
        axes.annotate(
            blocks,
            (first, 1),
            (3, -3),
            ('data', 'axes fraction'),
            'offset points',
            va='top',
            fontsize=8,
            color='dimgray',
        )
    axes.set_xlabel('minutes of search')
    axes.set_ylabel('validation accuracy (%)')
    axes.margins(y=0.12)
    axes.grid(alpha=0.3)
    axes.legend(loc='lower right', fontsize=8)
    axes.set_title(title)
    figures.fit_and_save(figure, path)


def _columns(cell):
    """Returns of each block how many blocks lie at most between it and the left."""
    columns = []
    for block in cell.blocks:
        inner = [columns[taken - OUTSIDE] for taken in block[::2] if taken >= OUTSIDE]
        columns.append(1 + max(inner, default=-1))
    return columns


def _right_of(place, taken):
    return place[0] + (0.75 if taken < OUTSIDE else 0.2), place[1]


def _box(axes, centre, text, colour, width, height):
    x, y = centre
    corner = x - width / 2, y - height / 2
    style = 'round,pad=0.02,rounding_size=0.08'
    axes.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle=style, fc=colour, ec='dimgray', zorder=2)
    )
    axes.text(x, y, text, ha='center', va='center', fontsize=8, zorder=3)


def _arrow(axes, start, end):
    axes.annotate(
        '',
        end,
        start,
        arrowprops={'arrowstyle': '-|>', 'color': 'dimgray', 'linewidth': 1, 'shrinkA': 0},
        zorder=1,
    )
