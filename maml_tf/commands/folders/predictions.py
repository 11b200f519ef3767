"""What a classification of images leaves behind: a table on the screen, and predictions.csv."""

import csv
import io
import pathlib
from typing import NamedTuple

import numpy as np

from maml_tf.serialisation.files import write_atomically
from maml_tf.terminal.text import cut, cut_middle, padded, shown, width

LISTED = 40  # images on the screen
ALTERNATIVES = 2  # classes named besides the likeliest


class Predictions(NamedTuple):
    """Holds classified images.

    names:         of the files
    classes:       names of the classes
    probabilities: [images, classes]
    truth:         for each image the number of its class, or None where it is not known
    """

    names: list[str]
    classes: list[str]
    probabilities: np.ndarray
    truth: list[int | None]

    @property
    def predicted(self) -> np.ndarray:
        """The number of each image's likeliest class, [images]."""
        return self.probabilities.argmax(-1)

    def is_wrong(self, image: int) -> bool:
        """Whether the image is known to be of another class."""
        return self.truth[image] not in (None, self.predicted[image])


def table(predictions: Predictions, longest: int = 40) -> str:
    """Returns the screen's table: each image with its class and the next ones, wrong ones marked.

    longest: columns of a name.
    """
    rows = [['image', 'class', 'probability', 'next', '']]
    rows += [_row(predictions, image, longest) for image in range(len(predictions.names))[:LISTED]]
    widths = [max(map(width, column)) for column in zip(*rows)]
    lines = [
        '  '.join(padded(cell, columns) for cell, columns in zip(row, widths)).rstrip()
        for row in rows
    ]
    if (more := len(predictions.names) - LISTED) > 0:
        lines.append(f'and {more} more')
    return '\n'.join(lines)


def _row(predictions, image, longest):
    shares = predictions.probabilities[image]
    best, *others = np.argsort(-shares, kind='stable')[: 1 + ALTERNATIVES]
    name = lambda number, columns: cut(predictions.classes[number], columns)
    wrong = ''
    if predictions.is_wrong(image):
        wrong = f'wrong: {name(predictions.truth[image], longest)}'
    return [
        cut_middle(predictions.names[image], longest),
        name(best, longest),
        f'{shares[best]:.1%}',
        ', '.join(f'{name(number, longest // 2)} {shares[number]:.1%}' for number in others),
        wrong,
    ]


def accuracy(predictions: Predictions) -> str | None:
    """Returns one line on the images whose class is known, or None where there is none."""
    known = [image for image, truth in enumerate(predictions.truth) if truth is not None]
    if not known:
        return None
    right = len(known) - sum(map(predictions.is_wrong, known))
    return (
        f'Accuracy: {right / len(known):.1%}, {right} of the {len(known)} images in folders '
        'named after a class'
    )


def write_csv(path: pathlib.Path, predictions: Predictions) -> None:
    """Writes a row for each image, with the probability of every class.

    The columns are image, class, probability, true_class (empty where it is not known), then one
    for each class.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    names = [shown(name) for name in predictions.classes]
    writer.writerow(
        ['image', 'class', 'probability', 'true_class', *(f'p({name})' for name in names)]
    )
    for image, shares, best, truth in zip(
        predictions.names, predictions.probabilities, predictions.predicted, predictions.truth
    ):
        shares = [f'{share:.6f}' for share in shares]
        true_class = '' if truth is None else names[truth]
        writer.writerow([shown(image), names[best], shares[best], true_class, *shares])
    write_atomically(path, text.getvalue())
