"""A contact sheet of episodes: support above, query below, a column per class.

    python -m maml_tf.contact_sheet --datasource=omniglot --num_classes=5 --update_batch_size=1 \\
        --output=episodes.png
    python -m maml_tf.contact_sheet --datasource=directory --data_dir=photos --split=train --tasks=5

Every flag of the data that run_maml.py knows counts here too. Where training tasks differ in size,
all images are drawn that the largest has.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import app, flags, logging
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maml_tf.commands import command_line
from maml_tf.datasets.flags import check_flags, episode_specs
from maml_tf.datasets.sources import SOURCES
from maml_tf.episodes.image_tasks import ImageTasks
from maml_tf.errors import UserError
from maml_tf.evaluation import evaluate, figures
from maml_tf.terminal.exit import errors_as_one_line
from maml_tf.terminal.text import shown

ENDINGS = ('.png', '.pdf', '.svg')
GAP = 2  # pixels between images
INCHES = 1.05  # of an image
LONGEST_NAME = 16


def draw(path: str | pathlib.Path, tasks: ImageTasks, count: int, title: str) -> None:
    """Draws the first `count` tasks; the ending of `path` says as what kind of picture."""
    picks, images = tasks.fetch(0, count)
    task = tasks.assemble(picks, images)
    spec = tasks.spec
    names = tasks.classes.class_names or [str(number) for number in range(len(tasks.classes.sizes))]
    grids = [
        np.concatenate([_rows(x[i], spec.way) for x in (task.support_x, task.query_x)])
        for i in range(count)
    ]
    # Standardised pixels are stretched over what can be shown.
    low, high = min(0.0, *(g.min() for g in grids)), max(1.0, *(g.max() for g in grids))
    height = 0.6 + INCHES * len(grids[0])
    figure = Figure(figsize=(1.1 + INCHES * spec.way, 0.5 + count * height))
    for i, axes in enumerate(figure.subplots(count, 1, squeeze=False)[:, 0]):
        labels = [_two_lines(names[number]) for number in picks.classes[i].numpy()]
        if picks.turns is not None:
            turns = picks.turns[i].numpy()
            labels = [f'{label}\n{90 * turn}°' for label, turn in zip(labels, turns)]
        _draw_task(axes, (grids[i] - low) / (high - low), spec.shot, labels)
    figure.suptitle(title)
    figures.fit_and_save(figure, path, dpi=120)


def _rows(x: tf.Tensor, way: int) -> np.ndarray:
    """Turns [way*examples, h, w, c] into [examples, way, h, w, c]."""
    return np.reshape(x, [way, -1, *x.shape[1:]]).swapaxes(0, 1)


def _draw_task(axes: Axes, grid: np.ndarray, shot: int, labels: Sequence[str]) -> None:
    """Draws a task; grid: [support and query rows, way, h, w, c], labels: of the classes."""
    rows, way, height, width, channels = grid.shape
    band = max(4, height // 6)  # between support and query
    canvas = np.ones([rows * (height + GAP) + band, way * (width + GAP), channels])
    top = lambda row: row * (height + GAP) + (band if row >= shot else 0)
    left = lambda column: column * (width + GAP)
    for row in range(rows):
        for column in range(way):
            place = (
                slice(top(row), top(row) + height),
                slice(left(column), left(column) + width),
            )
            canvas[place] = grid[row, column]
    pixels = canvas if channels == 3 else canvas[..., 0]
    axes.imshow(pixels, cmap='gray', vmin=0, vmax=1, interpolation='nearest')
    centres = [left(column) + width / 2 for column in range(way)]
    axes.set_xticks(centres, labels, fontsize=6, family=figures.fonts(), parse_math=False)
    axes.xaxis.tick_top()
    middle = lambda first, last: (top(first) + top(last) + height) / 2
    axes.set_yticks(
        [middle(0, shot - 1), middle(shot, rows - 1)],
        ['support', 'query'],
        fontsize=8,
        rotation=90,
        va='center',
    )
    axes.tick_params(length=0)
    axes.set_frame_on(False)


def _two_lines(name: str) -> str:
    """Returns two lines of a long name, cut where it must be."""
    first, _, rest = shown(name).replace('_', ' ').partition('/')
    lines = [line for line in (first, rest) if line]
    return '\n'.join(
        line if len(line) <= LONGEST_NAME else f'{line[: LONGEST_NAME - 1]}…' for line in lines
    )


@errors_as_one_line(command_line.FLAG_OF, file='--output')
def _main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(
            f'unknown argument {argv[1]!r}: every option has the form --name=value'
        )
    logging.set_verbosity(logging.WARNING)
    values = flags.FLAGS
    if pathlib.Path(values.output).suffix not in ENDINGS:
        raise UserError(f'--output={values.output}: a name that ends in {", ".join(ENDINGS)}')
    command_line.check_values(values)
    check_flags(values, SOURCES)
    source = SOURCES[values.datasource]
    if not source.classification or source.preparation is None:
        raise UserError(f'--datasource={values.datasource}: has no images by class to look at')
    training, evaluation = episode_specs(values, source)
    if values.split == 'train':
        spec = training
        tasks = source.load(values).tasks(values.train_on, spec, values.seed)
    else:
        spec = evaluation
        tasks = source.load(values).tasks(values.split, spec, evaluate.TASK_SEED)
    draw(
        values.output,
        tasks,
        values.tasks,
        f'{values.datasource}: the first {values.tasks} {values.split} tasks, {spec.way}-way '
        f'{spec.shot}-shot',
    )
    print(f'Episodes to look at: {values.output}')


def main() -> None:
    """Runs the command line."""
    command_line.define_flags(flags)
    flags.DEFINE_enum('split', 'test', ['train', 'val', 'test'], 'whose tasks are drawn')
    flags.DEFINE_integer('tasks', 3, 'number of tasks', lower_bound=1)
    flags.DEFINE_string('output', 'episodes.png', 'the picture')
    app.run(_main)
