"""Pictures of metric learners: an episode's embeddings in two dimensions, and what resembles
what."""

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402  (the backend comes first: there may be no screen)
import numpy as np  # noqa: E402

MOST_ROWS, MOST_COLUMNS = 36, 16  # of a matrix whose cells have room for a number


def project(*groups):
    """Arrays [n, features], [m, features] ... -> each in the two principal directions of all
    together, [n, 2] ...; and the shares of the variance that the two directions hold."""
    # A single feature has no second direction: one that is always 0 stands for it.
    groups = [
        np.pad(np.asarray(group, np.float64), ((0, 0), (0, max(0, 2 - group.shape[1]))))
        for group in groups
    ]
    together = np.concatenate(groups)
    centre = together.mean(0)
    _, singular, directions = np.linalg.svd(together - centre, full_matrices=False)
    variances = np.square(singular) / max(np.square(singular).sum(), np.finfo(float).tiny)
    return [(group - centre) @ directions[:2].T for group in groups], variances[:2]


def episode_embedding(
    path, support, support_y, query, query_y, class_names=None, prototypes=None, title=None
):
    """Draws one task: a colour per class, support as large squares, queries as dots, prototypes as
    stars.

    Args:
      support, query: embeddings [n, features]; more axes are flattened.
      support_y, query_y: one-hot labels [n, way].
      class_names: a name for each class, for the legend; None: their numbers.
      prototypes: [way, features], or None.
    """
    support_y, query_y = np.asarray(support_y), np.asarray(query_y)
    way = support_y.shape[1]
    groups = [
        np.reshape(group, [len(group), -1])
        for group in (support, query, prototypes)
        if group is not None
    ]
    projected, variances = project(*groups)
    names = class_names or [f'class {k}' for k in range(way)]
    colours = plt.get_cmap('tab10' if way <= 10 else 'tab20')(np.arange(way) % 20)
    figure, axes = plt.subplots(figsize=(8, 5.5))
    for k in range(way):
        here = lambda points, labels: points[labels[:, k] > 0].T
        axes.scatter(*here(projected[1], query_y), s=26, color=colours[k], alpha=0.6, linewidths=0)
        axes.scatter(
            *here(projected[0], support_y),
            s=90 if len(support_y) <= 25 else 35,
            marker='s',
            color=colours[k],
            edgecolors='black',
            zorder=3,
        )
        if prototypes is not None:
            axes.scatter(
                *projected[2][k], s=230, marker='*', color=colours[k], edgecolors='black', zorder=4
            )
    key = lambda label, marker='o', size=6, colour='grey': plt.Line2D(
        [], [], linestyle='', marker=marker, color=colour, markersize=size, label=label
    )
    shapes = [key('support', 's', 8), key('query', 'o', 5)] + [key('prototype', '*', 13)] * (
        prototypes is not None
    )
    classes = [key(_short(name), colour=colour) for name, colour in zip(names, colours)]
    axes.legend(
        handles=shapes + classes,
        loc='center left',
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=8,
        ncol=1 + way // 25,
    )
    axes.set_xlabel(f'first principal direction ({variances[0]:.0%} of the variance)')
    axes.set_ylabel(f'second ({variances[1]:.0%})')
    axes.set_aspect('equal', 'datalim')
    axes.grid(alpha=0.3)
    axes.set_title(title or f'Embeddings of one {way}-way task')
    _save(figure, path)


def similarity_matrix(path, matrix, query_labels, support_labels, title, class_names=None):
    """Draws a matrix [query, support], such as an attention, its rows and columns ordered by class.

    A frame marks the support examples of a query's own class: what should be dark lies in it.

    Args:
      query_labels, support_labels: the class of each row and column, numbers.
      class_names: a name for each class; None: their numbers.
    """
    query_labels, support_labels = np.asarray(query_labels), np.asarray(support_labels)
    rows, columns = (np.argsort(labels, kind='stable') for labels in (query_labels, support_labels))
    matrix = np.asarray(matrix)[np.ix_(rows, columns)]
    query_labels, support_labels = query_labels[rows], support_labels[columns]
    names = class_names or [
        str(k) for k in range(1 + max(query_labels.max(), support_labels.max()))
    ]
    size = np.clip([2 + 0.5 * matrix.shape[1], 1.5 + 0.25 * matrix.shape[0]], [5.5, 4], [11, 9])
    figure, axes = plt.subplots(figsize=size)
    image = axes.imshow(
        matrix, cmap='Blues', vmin=min(0.0, matrix.min()), vmax=matrix.max(), aspect='auto'
    )
    if matrix.shape[0] <= MOST_ROWS and matrix.shape[1] <= MOST_COLUMNS:
        middle = (image.norm.vmin + image.norm.vmax) / 2
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
    for k in np.unique(query_labels):
        own = [np.flatnonzero(labels == k) for labels in (query_labels, support_labels)]
        if all(map(len, own)):
            axes.add_patch(
                plt.Rectangle(
                    (own[1][0] - 0.5, own[0][0] - 0.5),
                    len(own[1]),
                    len(own[0]),
                    fill=False,
                    edgecolor='tab:orange',
                    linewidth=2,
                )
            )
    for axis, labels, what in (
        (axes.xaxis, support_labels, 'support'),
        (axes.yaxis, query_labels, 'query'),
    ):
        classes = np.unique(labels)
        axis.set_ticks(
            [np.flatnonzero(labels == k).mean() for k in classes],
            [_short(names[k]) for k in classes],
            fontsize=8,
        )
        axis.set_label_text(f'{what}, by class')
    axes.tick_params(length=0)
    if max(map(len, names)) > 3:
        axes.tick_params(axis='x', rotation=90)
    figure.colorbar(image, ax=axes)
    axes.set_title(title, fontsize=10)
    _save(figure, path)


def _short(name, longest=22):
    return name if len(name) <= longest else name[: longest - 1] + '…'


def _save(figure, path):
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
