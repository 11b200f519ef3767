"""Images that learners complete from some of their pixels, and the picture of them."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from matplotlib import colormaps
from matplotlib.figure import Figure

from maml_tf.episodes.image_completion import ImageCompletion
from maml_tf.episodes.task import Task
from maml_tf.evaluation import figures
from maml_tf.learner import Learner

GIVEN = (10, 100, 1000)  # pixels, as in the papers' tables
IMAGES = 4
NOT_GIVEN = (0.35, 0.45, 0.75)  # the colour of pixels that are to be predicted
DEVIATIONS = colormaps['viridis']
GAP, WIDE_GAP = 2, 8  # pixels between images, and between those of one original
INCHES = 0.75  # of an image


class ImageTasks(NamedTuple):
    """Images with some of their pixels given.

    task: the support are the most pixels that are given, the query is the whole image, row by row.
    given: how many pixels are given, ascending. shape: (height, width, channels).
    """

    task: Task
    given: tuple[int, ...]
    shape: tuple[int, int, int]


class Completed(NamedTuple):
    """What a learner makes of images, each [given, images, pixels, channels].

    deviation: None: the learner says none.
    """

    mean: np.ndarray
    deviation: np.ndarray | None


def tasks_of(
    source: ImageCompletion,
    split: str,
    seed: int,
    count: int = IMAGES,
    given: Sequence[int] = GIVEN,
) -> ImageTasks:
    """Returns the first images of a split, those of the evaluation's tasks where the seed is its.

    given: numbers of pixels; what an image has not is left out.
    """
    height, width, channels = source.images.input_shape
    given = tuple(sorted({min(number, height * width) for number in given}))
    task = source.whole_images(split, seed, count, given[-1])
    return ImageTasks(task, given, (height, width, channels))


def complete(learner: Learner, tasks: ImageTasks, steps: int | None = None) -> Completed:
    """Completes the images from the first pixels that are given; each number is a task by itself.

    steps: of adaptation; None: those of the learner's evaluation.
    """
    steps = learner.evaluation_steps if steps is None else steps

    @tf.function(autograph=False)
    def predictions(task):
        outputs = learner.query_outputs(task, steps)[-1]
        return learner.objective.predictions(outputs)

    means, deviations = [], []
    for number in tasks.given:
        task = tasks.task._replace(
            support_x=tasks.task.support_x[:, :number], support_y=tasks.task.support_y[:, :number]
        )
        said = predictions(task)
        means.append(np.array(said.get('mean', said['outputs'])))
        if 'deviation' in said:
            deviations.append(np.array(said['deviation']))
    return Completed(np.stack(means), np.stack(deviations) if deviations else None)


def draw(path: pathlib.Path, tasks: ImageTasks, completed: Mapping[str, Completed]) -> None:
    """Draws what is given, what each learner makes of it (with its deviations, averaged over the
    channels, where it says some), and the images themselves.

    A column is an image and a number of pixels that are given.

    Args:
      path: its ending says as what kind of picture.
      completed: {label: what a learner makes of the tasks}, in the order of the rows.
    """
    rows = {'given pixels': _given(tasks)}
    for label, made in completed.items():
        rows[label] = _images(made.mean, tasks.shape)
        if made.deviation is not None:
            mean = made.deviation.mean(-1)
            low, high = mean.min(), mean.max()
            coloured = DEVIATIONS((mean - low) / max(high - low, 1e-9))[..., :3]
            rows[f'{label}: deviation\n{low:.2f} (dark) to {high:.2f}'] = _images(
                coloured, tasks.shape
            )
    truth = np.array(tasks.task.query_y)[np.newaxis].repeat(len(tasks.given), 0)
    rows['truth'] = _images(truth, tasks.shape)
    _draw(path, rows, tasks)


def _images(values: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """[given, images, pixels, channels] -> [given, images, height, width, 3], from 0 to 1."""
    images = values.reshape(*values.shape[:2], *shape[:2], values.shape[-1])
    if images.shape[-1] == 1:
        images = images.repeat(3, -1)
    return np.clip(images, 0, 1)


def _given(tasks: ImageTasks) -> np.ndarray:
    """Returns the given pixels among others of one colour, in the shape of `_images`."""
    height, width, channels = tasks.shape
    x, y = (np.array(part) for part in (tasks.task.support_x, tasks.task.support_y))
    places = np.rint(x * (height - 1, width - 1)).astype(int)
    canvas = np.empty([len(tasks.given), len(x), height, width, 3])
    canvas[:] = NOT_GIVEN
    for row, number in zip(canvas, tasks.given):
        for image, place, values in zip(row, places[:, :number], y[:, :number]):
            image[place[:, 0], place[:, 1]] = values
    return canvas


def _draw(path, rows, tasks):
    height, width, _ = tasks.shape
    numbers, count = len(tasks.given), tasks.task.support_x.shape[0]
    lefts = [
        image * (numbers * (width + GAP) + WIDE_GAP) + number * (width + GAP)
        for image in range(count)
        for number in range(numbers)
    ]
    tops = [row * (height + GAP) for row in range(len(rows))]
    canvas = np.ones([tops[-1] + height, lefts[-1] + width, 3])
    for top, images in zip(tops, rows.values()):
        columns = images.swapaxes(0, 1).reshape(-1, height, width, 3)  # image by image
        for left, image in zip(lefts, columns):
            canvas[top : top + height, left : left + width] = image
    figure = Figure(figsize=(2.2 + INCHES * len(lefts), 0.8 + INCHES * len(rows)))
    axes = figure.subplots()
    axes.imshow(canvas, interpolation='nearest')
    given = [str(number) for number in tasks.given] * count
    axes.set_xticks([left + width / 2 for left in lefts], given, fontsize=8)
    axes.xaxis.tick_top()
    axes.set_yticks([top + height / 2 for top in tops], list(rows), fontsize=8, parse_math=False)
    axes.tick_params(length=0)
    axes.set_frame_on(False)
    axes.set_title('pixels that are given', fontsize=9)
    figures.fit_and_save(figure, path, dpi=120)
