"""Pictures of metric learners: embeddings of a task in two dimensions, and what resembles what."""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from maml_tf.evaluation import figures
from maml_tf.terminal.text import cut

MOST_ROWS, MOST_COLUMNS = 36, 16  # of a matrix whose cells have room for a number
LONGEST_NAME = 22
FEW_SUPPORT = 25  # images that can be drawn large
CLASSES_PER_COLUMN = 25  # of the legend


def project(*groups: ArrayLike) -> tuple[list[np.ndarray], np.ndarray]:
    """Projects points on the two principal directions of all together.

    Args:
      groups: arrays [n, features], [m, features] ...
    Returns: [n, 2], [m, 2] ...; and the shares of the variance that the two directions hold, [2].
    """
    # A single feature has no second direction: one that is always 0 stands for it.
    groups = [
        np.pad(np.asarray(group, np.float64), ((0, 0), (0, max(0, 2 - np.shape(group)[1]))))
        for group in groups
    ]
    together = np.concatenate(groups)
    centre = together.mean(0)
    _, singular, directions = np.linalg.svd(together - centre, full_matrices=False)
    variances = np.square(singular) / max(np.square(singular).sum(), np.finfo(float).tiny)
    return [(group - centre) @ directions[:2].T for group in groups], variances[:2]


def episode_embedding(
    path: pathlib.Path,
    support: ArrayLike,
    support_y: ArrayLike,
    query: ArrayLike,
    query_y: ArrayLike,
    class_names: Sequence[str] | None = None,
    prototypes: ArrayLike | None = None,
    title: str | None = None,
) -> None:
    """Draws the embeddings of one task: support as squares, queries as dots, prototypes as stars.

    Each class has a colour.

    Args:
      support, query: embeddings [n, features]; more axes are flattened.
      support_y, query_y: one-hot labels [n, way].
      class_names: a name for each class, for the legend; None: their numbers.
      prototypes: [way, features], or None.
    """
    support_y, query_y = np.asarray(support_y), np.asarray(query_y)
    way = support_y.shape[1]
    groups = [group for group in (support, query, prototypes) if group is not None]
    projected, variances = project(*(np.reshape(group, [len(group), -1]) for group in groups))
    names = class_names or [f'class {k}' for k in range(way)]
    colours = colormaps['tab10' if way <= 10 else 'tab20'](np.arange(way) % 20)
    size = 90 if len(support_y) <= FEW_SUPPORT else 35
    edged = {'edgecolors': 'black', 'zorder': 3}
    figure = Figure(figsize=(8, 5.5))
    axes = figure.subplots()
    for k, colour in enumerate(colours):
        of_query, of_support = projected[1][query_y[:, k] > 0], projected[0][support_y[:, k] > 0]
        axes.scatter(*of_query.T, s=26, color=colour, alpha=0.6, linewidths=0)
        axes.scatter(*of_support.T, s=size, marker='s', color=colour, **edged)
        if prototypes is not None:
            axes.scatter(*projected[2][k], s=230, marker='*', color=colour, **edged)
    _add_legend(axes, names, colours, prototypes is not None)
    axes.set_xlabel(f'first principal direction ({variances[0]:.0%} of the variance)')
    axes.set_ylabel(f'second ({variances[1]:.0%})')
    axes.set_aspect('equal', 'datalim')
    axes.grid(alpha=0.3)
    axes.set_title(title or f'Embeddings of one {way}-way task')
    figures.fit_and_save(figure, path)


def similarity_matrix(
    path: pathlib.Path,
    matrix: ArrayLike,
    query_labels: ArrayLike,
    support_labels: ArrayLike,
    title: str,
    class_names: Sequence[str] | None = None,
) -> None:
    """Draws how much queries resemble support examples, in rows and columns ordered by class.

    A frame marks the support examples of a query's own class: what should be dark lies in it.

    Args:
      matrix: [query, support], such as an attention.
      query_labels, support_labels: the class of each row and column, numbers.
      class_names: a name for each class; None: their numbers.
    """
    query_labels, support_labels = np.asarray(query_labels), np.asarray(support_labels)
    rows, columns = (np.argsort(labels, kind='stable') for labels in (query_labels, support_labels))
    matrix = np.asarray(matrix)[np.ix_(rows, columns)]
    query_labels, support_labels = query_labels[rows], support_labels[columns]
    count = 1 + max(query_labels.max(), support_labels.max())
    names = [cut(name, LONGEST_NAME) for name in class_names or range(count)]
    height, width = matrix.shape
    size = np.clip([2 + 0.5 * width, 1.5 + 0.25 * height], [5.5, 4], [11, 9])
    figure = Figure(figsize=size)
    axes = figure.subplots()
    low, high = min(0.0, matrix.min()), matrix.max()
    image = axes.imshow(matrix, cmap='Blues', vmin=low, vmax=high, aspect='auto')
    if height <= MOST_ROWS and width <= MOST_COLUMNS:
        _write_values(axes, matrix, (low + high) / 2)
    _frame_own_classes(axes, query_labels, support_labels)
    for axis, labels, what in (
        (axes.xaxis, support_labels, 'support'),
        (axes.yaxis, query_labels, 'query'),
    ):
        classes = np.unique(labels)
        places = [np.flatnonzero(labels == k).mean() for k in classes]
        shown = [names[k] for k in classes]
        axis.set_ticks(places, shown, fontsize=8, family=figures.fonts(), parse_math=False)
        axis.set_label_text(f'{what}, by class')
    axes.tick_params(length=0)
    if max(map(len, names)) > 3:
        axes.tick_params(axis='x', rotation=90)
    figure.colorbar(image, ax=axes)
    axes.set_title(title, fontsize=10)
    figures.fit_and_save(figure, path)


def _add_legend(
    axes: Axes, names: Sequence[str], colours: np.ndarray, has_prototypes: bool
) -> None:
    def key(label, marker='o', size=6, colour='grey'):
        return Line2D([], [], ls='', marker=marker, color=colour, markersize=size, label=label)

    shapes = [key('support', 's', 8), key('query', 'o', 5)]
    if has_prototypes:
        shapes.append(key('prototype', '*', 13))
    classes = [key(cut(name, LONGEST_NAME), colour=colour) for name, colour in zip(names, colours)]
    legend = axes.legend(
        handles=shapes + classes,
        loc='center left',
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        prop={'family': figures.fonts(), 'size': 8},
        ncol=1 + len(names) // CLASSES_PER_COLUMN,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # A name may hold dollars.


def _write_values(axes: Axes, matrix: np.ndarray, middle: float) -> None:
    """Writes each value into its cell, in white where the cell is dark."""
    for (row, column), value in np.ndenumerate(matrix):
        axes.text(
            column,
            row,
            f'{value:.2f}'.replace('0.', '.'),
            ha='center',
            va='center',
            fontsize=7,
            color='white' if value > middle else 'black',
        )


def _frame_own_classes(axes: Axes, query_labels: np.ndarray, support_labels: np.ndarray) -> None:
    for k in np.unique(query_labels):
        rows, columns = np.flatnonzero(query_labels == k), np.flatnonzero(support_labels == k)
        if len(columns):
            corner = columns[0] - 0.5, rows[0] - 0.5
            axes.add_patch(
                Rectangle(
                    corner, len(columns), len(rows), fill=False, edgecolor='tab:orange', linewidth=2
                )
            )
