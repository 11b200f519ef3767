"""The picture of a classification: the photos that were adapted to, and what was found by them."""

import pathlib
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from maml_tf.commands.folders.predictions import Predictions
from maml_tf.evaluation import figures
from maml_tf.terminal.text import cut, wrapped

MOST = 40  # classes, and images
# One unit is an image with its margin.
COLUMNS = 10
NAME = 2  # columns that the name of a class takes
INCHES = 1.1  # of a column
SIDE = 0.9  # of an image
PITCH = 1.52  # of a line of images with what is under them
HEADING = 0.4
COLOURS = (  # None of them is red, which is for what is wrong.
    *('tab:blue', 'tab:orange', 'tab:green', 'tab:purple', 'tab:brown', 'tab:pink'),
    *('tab:olive', 'tab:cyan', 'navy', 'goldenrod', 'darkgreen', 'magenta'),
)
WRONG = '#c62828'
FRAME = '#bbbbbb'
EMPTY = '#e4e4e4'  # of a bar


def draw(
    path: pathlib.Path,
    photos: Mapping[str, np.ndarray],
    predictions: Predictions,
    images: np.ndarray,
) -> None:
    """Draws the photos above, a row for each class in its colour, and the first images below.

    The bar under an image is as long as its probability. What is known to be wrong has a red frame
    and the true class.

    Args:
      photos: {class name: [n, side, side, channels]}, pixels from 0 to 1.
      images: [images, side, side, channels], those of `predictions`.
    """
    rows = list(photos.items())[:MOST]
    tiles = images[:MOST]
    top = HEADING + len(rows) + 0.5  # of the images below
    height = top + PITCH * -(-len(tiles) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * INCHES, height * INCHES))
    canvas = _Canvas(figure, height)
    canvas.text(0, 0.2, f'Adapted to{_of(len(photos), "classes")}', size=11, va='center')
    for number, (name, shots) in enumerate(rows):
        _draw_class(canvas, HEADING + number, name, shots, _colour(number))
    heading = f'Classified{_of(len(images), "images")}'
    canvas.text(0, top - 0.25, heading, size=11, va='center')
    for number, image in enumerate(tiles):
        x, y = number % COLUMNS, top + PITCH * (number // COLUMNS)
        canvas.image(x, y, image, WRONG if predictions.is_wrong(number) else None)
        _draw_verdict(canvas, x, y + SIDE, predictions, number)
    figures.save(figure, path)


class _Canvas:
    """Draws at (x, y), where a unit is an image with its margin and y goes downwards."""

    def __init__(self, figure: Figure, height: float):
        self._axes = figure.add_axes((0.02, 0.01, 0.96, 0.98))
        self._axes.set(xlim=(0, COLUMNS), ylim=(height, 0), aspect='equal', autoscale_on=False)
        self._axes.axis('off')

    def image(self, x: float, y: float, image: np.ndarray, frame: str | None = None) -> None:
        """Draws an image; frame: the colour of a thick frame."""
        pixels = image if image.shape[-1] == 3 else image[..., 0]
        extent = (x, x + SIDE, y + SIDE, y)
        self._axes.imshow(pixels, cmap='gray', vmin=0, vmax=1, extent=extent)
        self._axes.add_patch(
            Rectangle(
                (x, y), SIDE, SIDE, fill=False, color=frame or FRAME, lw=2.5 if frame else 0.5
            )
        )

    def bar(self, x: float, y: float, length: float, colour: str) -> None:
        """Draws a thin bar."""
        self._axes.add_patch(Rectangle((x, y), length, 0.06, color=colour, lw=0))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        colour: str = 'black',
        size: float = 8,
        va: str = 'top',
        ha: str = 'left',
    ) -> None:
        """Writes lines of text."""
        self._axes.text(
            x,
            y,
            text,
            color=colour,
            fontsize=size,
            va=va,
            ha=ha,
            linespacing=1.05,
            family=figures.fonts(),
            parse_math=False,
        )


def _draw_class(canvas, y, name, shots, colour):
    """Draws the photos of a class in a row, after its name."""
    fit = COLUMNS - NAME
    label = _lines(name, 26, 3)
    if len(shots) > fit:
        label += f'\n{fit} of {len(shots)} photos'
    canvas.text(NAME - 0.1, y + SIDE / 2, label, colour, va='center', ha='right')
    for column, shot in enumerate(shots[:fit]):
        canvas.image(NAME + column, y, shot)


def _draw_verdict(canvas, x, y, predictions, image):
    """Draws what stands under an image: probability, class, and the true class of a wrong one."""
    best = predictions.predicted[image]
    share = predictions.probabilities[image, best]
    full = 0.58
    canvas.bar(x, y + 0.06, full, EMPTY)
    canvas.bar(x, y + 0.06, full * share, _colour(best))
    canvas.text(x + SIDE, y + 0.09, f'{share:.0%}', va='center', ha='right')
    name = _lines(predictions.classes[best], 17, 2)
    canvas.text(x, y + 0.17, name, _colour(best))
    if predictions.is_wrong(image):
        true_class = predictions.classes[predictions.truth[image]].replace('_', ' ')
        below = y + 0.19 + 0.125 * len(name.splitlines())
        canvas.text(x, below, f'true: {cut(true_class, 11)}', WRONG)


def _of(count, what):
    return f', the first {MOST} of {count} {what}' if count > MOST else ''


def _lines(name, columns, lines):
    return wrapped(name.replace('_', ' '), columns, lines)


def _colour(number):
    return COLOURS[number % len(COLOURS)]
