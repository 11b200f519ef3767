"""Episodes to look at: support above, query below, a column per class, as a PNG. People look before
they trust.

    python -m maml_tf.contact_sheet --datasource=omniglot --num_classes=5 --update_batch_size=1
    --output=episodes.png python -m maml_tf.contact_sheet --datasource=directory --data_dir=photos
    --split=train --tasks=5

Every flag of the data that run_maml.py knows counts here too. Where training tasks differ in size,
all images are drawn that the largest has.
"""

import pathlib
import sys

from maml_tf.terminal import quiet

quiet.import_tensorflow()

import matplotlib  # noqa: E402
import numpy as np  # noqa: E402
from absl import app, flags, logging  # noqa: E402

from maml_tf.commands import command_line  # noqa: E402
from maml_tf.datasets.raw.image_files import shown  # noqa: E402
from maml_tf.datasets.sources import SOURCES, check_flags, episode_spec  # noqa: E402
from maml_tf.errors import UserError  # noqa: E402
from maml_tf.evaluation import evaluate  # noqa: E402

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402

GAP = 2  # pixels between images


def draw(path, tasks, count, title):
    """Writes the first `count` tasks of an ImageTasks as a picture."""
    picks, images = tasks.fetch(0, count)
    task, spec = tasks.assemble(picks, images), tasks.spec
    names = tasks.classes.class_names or [str(number) for number in range(len(tasks.classes.sizes))]
    grids = [
        np.concatenate([_rows(x[i], spec.way) for x in (task.support_x, task.query_x)])
        for i in range(count)
    ]
    # Standardised pixels are stretched over what can be shown.
    low, high = min(0.0, *(g.min() for g in grids)), max(1.0, *(g.max() for g in grids))
    figure, axes = plt.subplots(
        count,
        1,
        squeeze=False,
        figsize=(1.1 + 1.05 * spec.way, 0.5 + count * (0.6 + 1.05 * len(grids[0]))),
    )
    for i, grid in enumerate(grids):
        _draw_task(
            axes[i, 0],
            (grid - low) / (high - low),
            spec.shot,
            [names[c] for c in picks.classes[i].numpy()],
            None if picks.turns is None else picks.turns[i].numpy(),
        )
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _rows(x, way):
    """[way*examples, h, w, c] -> [examples, way, h, w, c]"""
    return np.reshape(x, [way, -1, *x.shape[1:]]).swapaxes(0, 1)


def _draw_task(axes, grid, shot, names, turns):
    """grid: [support and query rows, way, h, w, c]"""
    rows, way, height, width, channels = grid.shape
    band = max(4, height // 6)  # between support and query
    canvas = np.ones([rows * (height + GAP) + band, way * (width + GAP), channels])
    top = lambda row: row * (height + GAP) + (band if row >= shot else 0)
    for row in range(rows):
        for column in range(way):
            left = column * (width + GAP)
            canvas[top(row) : top(row) + height, left : left + width] = grid[row, column]
    axes.imshow(
        canvas if channels == 3 else canvas[..., 0],
        cmap='gray',
        vmin=0,
        vmax=1,
        interpolation='nearest',
    )
    labels = [
        _short(shown(name)) + (f'\n{90 * turn}°' if turns is not None else '')
        for name, turn in zip(names, turns if turns is not None else names)
    ]
    axes.set_xticks(
        [column * (width + GAP) + width / 2 for column in range(way)],
        labels,
        fontsize=6,
        parse_math=False,
    )
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


def _short(name, longest=16):
    """Two lines of a long name, cut where it must be."""
    first, _, rest = name.replace('_', ' ').partition('/')
    cut = lambda text: text if len(text) <= longest else text[: longest - 1] + '…'
    return '\n'.join(map(cut, filter(None, (first, rest))))


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(
            f'unknown argument {argv[1]!r}: every option has the form --name=value'
        )
    logging.set_verbosity(logging.WARNING)
    values = flags.FLAGS
    try:
        spec = episode_spec(values, training=values.split == 'train')
        seed = values.seed if values.split == 'train' else evaluate.TASK_SEED
        if pathlib.Path(values.output).suffix not in ('.png', '.pdf', '.svg'):
            raise UserError(f'--output={values.output}: a name that ends in .png, .pdf or .svg')
        check_flags(values)
        source = SOURCES[values.datasource]
        if not source.classification:
            raise UserError(f'--datasource={values.datasource}: has no images by class to look at')
        split = values.train_on if values.split == 'train' else values.split
        tasks = source.load(values).tasks(split, spec, seed)
        draw(
            values.output,
            tasks,
            values.tasks,
            f'{values.datasource}: the first {values.tasks} '
            f'{values.split} tasks, {spec.way}-way {spec.shot}-shot',
        )
    except UserError as error:
        sys.exit(f'error: {error}')
    except OSError as error:
        sys.exit(f'error: {error.filename or "--output"}: {error.strerror or error}')
    print(f'Episodes to look at: {values.output}')


def run():
    command_line.define_flags(flags)
    flags.DEFINE_enum('split', 'test', ['train', 'val', 'test'], 'whose tasks are drawn')
    flags.DEFINE_integer('tasks', 3, 'number of tasks', lower_bound=1)
    flags.DEFINE_string('output', 'episodes.png', 'the picture')
    app.run(main)


if __name__ == '__main__':
    run()
