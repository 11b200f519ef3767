"""Pictures of label images: what tiles show, what is true, and what a learner says."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from maml_tf.datasets.landcover.bands import RED_GREEN_BLUE
from maml_tf.episodes.segmentation.tasks import RegionTasks
from maml_tf.episodes.segmentation.values import UNLABELLED
from maml_tf.evaluation import figures
from maml_tf.learner import Learner
from maml_tf.terminal.text import cut

TASKS = 4  # rows of the picture
LONGEST_NAME = 24
NOTHING = (0.85, 0.85, 0.85)  # the colour of what does not count
# As maps have them.
OF_LAND = {
    'forest': '#1b7837',
    'shrubland': '#a6a03c',
    'savanna': '#c9b458',
    'grassland': '#9bd46a',
    'rangeland': '#9bd46a',
    'wetlands': '#3fb8af',
    'croplands': '#f2cf4a',
    'agriculture': '#f2cf4a',
    'urban': '#d7301f',
    'snow and ice': '#bfe3f7',
    'barren': '#a1785a',
    'water': '#2b5fb3',
}
DARKEST, BRIGHTEST = 2, 98  # percentiles that become black and white


def of_tasks(directory: pathlib.Path, learner: Learner, tasks: RegionTasks, title: str) -> None:
    """Draws maps.png: of the first tasks one query tile each, its labels, and what is predicted
    before and after adaptation.

    It is the query tile with the most classes. Pixels of classes that the task has not do not
    count, and are predicted nevertheless.
    """
    picks, images = tasks.fetch(0, TASKS)
    task = tasks.assemble(picks, images)
    steps = learner.evaluation_steps
    # In a graph: the inner loop is one.
    outputs = tf.function(lambda: learner.query_outputs(task, steps), autograph=False)().numpy()
    labels, classes = task.query_y.numpy(), picks.classes.numpy()
    names = tasks.images.class_names
    rows = []
    for i in range(TASKS):
        query = int(labels[i].any((1, 2)).sum(-1).argmax())
        numbers = np.append(classes[i], UNLABELLED)
        truth = np.where(labels[i, query].any(-1), labels[i, query].argmax(-1), -1)
        said = {'after adaptation': outputs[-1, i, query].argmax(-1)}
        if len(outputs) > 1:
            said = {'before adaptation': outputs[0, i, query].argmax(-1), **said}
        maps = {'truth': numbers[truth], **{name: numbers[map_] for name, map_ in said.items()}}
        rows.append((task.query_x[i, query].numpy(), maps))
    regions = [tasks.images.tiles.class_names[number] for number in picks.regions.numpy()]
    draw(directory / 'maps.png', rows, names, title, regions)


def draw(
    path: pathlib.Path,
    rows: Sequence[tuple[np.ndarray, Mapping[str, np.ndarray]]],
    class_names: Sequence[str],
    title: str,
    row_names: Sequence[str],
) -> None:
    """Draws tiles with their maps side by side, a row each, and a legend of the classes in them.

    Args:
      rows: (tile [height, width, bands] from 0 to 1, {column: map [height, width] of numbers of
        classes, UNLABELLED where there is none}), with the same columns in all.
    """
    columns = ['tile', *rows[0][1]]
    figure = Figure(figsize=(2.1 * len(columns) + 1.9, 2.1 * len(rows) + 0.8), layout='constrained')
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    colours = palette(class_names)
    for axes, (tile, maps), row_name in zip(grid, rows, row_names, strict=True):
        axes[0].imshow(visible(tile), interpolation='nearest')
        axes[0].set_ylabel(cut(row_name, LONGEST_NAME), fontsize=8)
        for one, numbers in zip(axes[1:], maps.values(), strict=True):
            one.imshow(coloured(numbers, colours), interpolation='nearest')
        for one in axes:
            one.set_xticks([])
            one.set_yticks([])
    for axes, column in zip(grid[0], columns):
        axes.set_title(column, fontsize=9)
    numbers = np.unique(np.concatenate([m.ravel() for _, maps in rows for m in maps.values()]))
    figure.legend(
        handles=legend(numbers, class_names), loc='outside right upper', fontsize=8, frameon=False
    )
    figure.suptitle(title, fontsize=10)
    figures.save(figure, path)


def palette(class_names: Sequence[str]) -> np.ndarray:
    """Returns the colour of each class, floats [classes, 3].

    Land covers have theirs, other names one by their number.
    """
    others = colormaps['tab10' if len(class_names) <= 10 else 'tab20'].colors
    colours = [
        to_rgb(OF_LAND.get(name.lower(), others[number % len(others)]))
        for number, name in enumerate(class_names)
    ]
    return np.array(colours).reshape(-1, 3)


def coloured(numbers: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Returns floats [height, width, 3] of a map of numbers of classes."""
    table = np.full([256, 3], NOTHING)
    table[: len(colours)] = colours
    return table[numbers]


def legend(numbers: np.ndarray, class_names: Sequence[str]) -> list[Patch]:
    """Returns what a legend shows of the numbers in some maps."""
    colours = palette(class_names)
    handles = [
        Patch(color=colours[number], label=cut(class_names[number], LONGEST_NAME))
        for number in numbers
        if number < len(class_names)
    ]
    if numbers.max(initial=0) >= len(class_names):
        handles.append(Patch(color=NOTHING, label='does not count'))
    return handles


def visible(tile: np.ndarray) -> np.ndarray:
    """Returns floats [height, width, 3] from 0 to 1 of a tile of any bands, brightened for the eye.

    Satellites' reflectances are small: the darkest and the brightest pixels become black and white.
    """
    bands = tile.shape[-1]
    picture = tile[..., RED_GREEN_BLUE] if bands > 3 else tile
    low, high = np.percentile(picture, [DARKEST, BRIGHTEST])
    return np.clip((picture - low) / max(high - low, 1e-6), 0, 1)
