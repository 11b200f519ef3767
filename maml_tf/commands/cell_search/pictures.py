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
# Of the images, by their number.
LINES = [f'C{i}' for i in (0, 1, 2, 3, 4, 5, 6, 8, 9)]
_STEP = 2.6  # between blocks
KINDS = (
    ('chosen by the search', 'tab:blue', 'o', lambda row: row['origin'] not in (RANDOM, AGAIN)),
    ('random, the control', 'tab:orange', 's', lambda row: row['origin'] == RANDOM),
    ('second look', 'tab:green', '^', lambda row: row['origin'] == AGAIN),
)


def draw_cell(path: pathlib.Path, cell: Cell, title: str) -> None:
    """Draws the graph of a cell, as stairs: each image has a row, and what takes it lies below.

    So no line runs behind a box. Lines of an image have a colour of their own.
    """
    rows = OUTSIDE + cell.size
    starts = {i: (0.75, -0.8 * i) for i in range(OUTSIDE)}
    end = _STEP * (cell.size + 1) + 0.4
    figure = Figure(figsize=(1.5 + 0.85 * (end + 1), 0.8 + 0.85 * rows))
    axes = figure.subplots()
    for i, name in enumerate(OUTSIDE_NAMES):
        _box(axes, (0.0, -0.8 * i), name, '#eeeeee', 1.5, 0.5)
    for number, block in enumerate(cell.blocks):
        x, y = _STEP * (number + 1), -1.7 - number
        for place, side, gap in ((0, 0.23, 0.2), (2, -0.23, 0.4)):
            taken, operation = block[place : place + 2]
            left, right, height = x - 0.7, x + 0.7, y + side
            # From the row of the image to just before the box, and down to it.
            corner = left - gap
            turns = [starts[taken], (corner, starts[taken][1]), (corner, height), (left, height)]
            _line(axes, turns, LINES[taken])
            _box(axes, (x, height), operation, COLOURS.get(operation[:4], 'white'), 1.4, 0.36)
            _line(axes, [(right, height), (x + 1.0, y)], LINES[OUTSIDE + number])
        starts[OUTSIDE + number] = x + 1.15, y
        axes.plot([x + 1.15], [y], 'o', ms=15, color='white', mec='black', zorder=2)
        axes.text(x + 1.15, y, '+', ha='center', va='center', fontsize=12, zorder=3)
    heights = [starts[taken][1] for taken in cell.ends]
    for taken in cell.ends:
        first = starts[taken][0] + 0.15, starts[taken][1]
        _line(axes, [first, (end - 0.6, first[1])], LINES[taken])
    text = 'conv1x1' if len(heights) == 1 else 'joined,\nconv1x1'
    centre = end, (max(heights) + min(heights)) / 2
    _box(axes, centre, text, '#eeeeee', 1.2, max(heights) - min(heights) + 0.5)
    axes.set_xlim(-0.9, end + 0.8)
    axes.set_ylim(-1.7 - cell.size + 0.3, 0.4)
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
    for _, colour, _, belongs in KINDS[:2]:
        line = [(x, 100 * r['accuracy']) for x, r in zip(minutes, rows) if belongs(r)]
        if line:
            times, values = zip(*line)
            best = list(itertools.accumulate(values, max))
            ends = (*times, minutes[-1]), (*best, best[-1])
            axes.step(*ends, where='post', color=colour, alpha=0.7)
    axes.plot([], color='gray', label='best so far')
    # Second looks are of any size; they may stand before more blocks, too, where a search went on.
    starts = {}
    for end, row in zip(minutes, rows):
        if row['origin'] != AGAIN:
            starts.setdefault(row['size'], end - row['seconds'] / 60)
    for number, (size, first) in enumerate(starts.items()):
        if number:
            axes.axvline(first, color='tab:gray', linewidth=0.8, linestyle=':')
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
    axes.set_title(title)
    figures.fit_and_save(figure, path, legend_of=axes)


def _box(axes, centre, text, colour, width, height):
    x, y = centre
    corner = x - width / 2, y - height / 2
    style = 'round,pad=0.02,rounding_size=0.08'
    axes.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle=style, fc=colour, ec='dimgray', zorder=2)
    )
    axes.text(x, y, text, ha='center', va='center', fontsize=8, zorder=3)


def _line(axes, turns, colour):
    """Draws a line with these turns, and an arrow at its end."""
    axes.plot(*zip(*turns), color=colour, linewidth=1.3, solid_joinstyle='round', zorder=1)
    arrow = {'arrowstyle': '-|>', 'color': colour, 'shrinkA': 0, 'shrinkB': 0}
    axes.annotate('', turns[-1], turns[-2], arrowprops=arrow, zorder=1)
