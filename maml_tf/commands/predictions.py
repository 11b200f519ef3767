"""What a classification of images leaves behind: a table on the screen, predictions.csv and a
picture."""

import csv
import functools
import io
import os
import textwrap
import unicodedata
import warnings
from typing import NamedTuple

import matplotlib
import matplotlib.font_manager
import numpy as np

from maml_tf.datasets.raw.image_files import shown
from maml_tf.saving.run_directory import write_atomically

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402  (the backend comes first: there may be no screen)

LISTED = 40  # images on the screen and in the picture
COLUMNS, NAME = 10, 2  # of the picture, and how many of them the name of a class takes
INCHES, SIDE, PITCH = (
    1.1,
    0.9,
    1.52,
)  # a column; in columns: an image, and a line of images with what is under them
# Fonts with the world's scripts, asked after matplotlib's own where they are installed.
FONTS = (
    'Noto Sans',
    'Noto Sans CJK JP',
    'Noto Sans CJK SC',
    'Noto Sans JP',
    'Noto Sans SC',
    'Noto Sans Devanagari',
    'Hiragino Sans',
    'PingFang SC',
    'Yu Gothic',
    'Microsoft YaHei',
    'Malgun Gothic',
    'WenQuanYi Zen Hei',
    'Arial Unicode MS',
)
COLOURS = (
    'tab:blue',
    'tab:orange',
    'tab:green',
    'tab:purple',
    'tab:brown',
    'tab:pink',
    'tab:olive',
    'tab:cyan',
    'navy',
    'goldenrod',
    'darkgreen',
    'magenta',
)  # none of them red, which is for what is wrong
WRONG = '#c62828'


class Predictions(NamedTuple):
    """Classified images.

    names: of the files; classes: class names; probabilities: [images, classes]
    truth: for each image the number of its class, or None where it is not known
    """

    names: list
    classes: list
    probabilities: np.ndarray
    truth: list

    @property
    def predicted(self):
        """[images], the number of the likeliest class."""
        return self.probabilities.argmax(-1)

    def is_wrong(self, image):
        """Whether the image is known to be of another class."""
        return self.truth[image] not in (None, self.predicted[image])


def table(predictions, longest=40):
    """The screen's table: each image with its class and the two next ones, those that are wrong
    marked."""
    rows = []
    for i, p in enumerate(predictions.probabilities[:LISTED]):
        first, *others = [
            (predictions.classes[c], f'{p[c]:.1%}') for c in np.argsort(-p, kind='stable')[:3]
        ]
        wrong = (
            f'wrong: {_cut(predictions.classes[predictions.truth[i]], longest)}'
            if predictions.is_wrong(i)
            else ''
        )
        rows.append(
            [
                _cut_middle(predictions.names[i], longest),
                _cut(first[0], longest),
                first[1],
                ', '.join(f'{_cut(name, longest // 2)} {share}' for name, share in others),
                wrong,
            ]
        )
    rows = [['image', 'class', 'probability', 'next', ''], *rows]
    widths = [max(map(_width, column)) for column in zip(*rows)]
    lines = [
        '  '.join(_pad(cell, width) for cell, width in zip(row, widths)).rstrip() for row in rows
    ]
    if (more := len(predictions.names) - LISTED) > 0:
        lines.append(f'and {more} more')
    return '\n'.join(lines)


def accuracy(predictions):
    """One line on the images whose class is known, or None where there is none."""
    known = [i for i, truth in enumerate(predictions.truth) if truth is not None]
    if not known:
        return None
    right = len(known) - sum(map(predictions.is_wrong, known))
    return f'Accuracy: {right / len(known):.1%}, {right} of the {len(known)} images in folders '
    'named after a class'


def write_csv(path, predictions):
    """image, class, probability, true class (empty where unknown), then the probability of every
    class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    names = [shown(name) for name in predictions.classes]
    writer.writerow(
        ['image', 'class', 'probability', 'true_class', *(f'p({name})' for name in names)]
    )
    for image, p, best, truth in zip(
        predictions.names, predictions.probabilities, predictions.predicted, predictions.truth
    ):
        writer.writerow(
            [
                shown(image),
                names[best],
                f'{p[best]:.6f}',
                '' if truth is None else names[truth],
                *(f'{value:.6f}' for value in p),
            ]
        )
    write_atomically(path, text.getvalue())


def draw(path, photos, predictions, images):
    """The photos above, a row for each class in its colour; below the first images with the classes
    found.

    The bar under an image is as long as its probability. What is known to be wrong has a red frame
    and the true class.

    Args:
      photos: {class name: [n, side, side, channels]}, pixels from 0 to 1.
      images: [images, side, side, channels], those of `predictions`.
    """
    rows, tiles = list(photos.items())[:LISTED], images[:LISTED]
    top = 0.4 + len(rows) + 0.5  # of the images below
    height = top + PITCH * -(-len(tiles) // COLUMNS)
    figure = plt.figure(figsize=(COLUMNS * INCHES, height * INCHES))
    axes = figure.add_axes(
        (0.02, 0.01, 0.96, 0.98)
    )  # One unit is an image with its margin, y downwards.
    _text(axes, 0, 0.2, f'Adapted to{_of(LISTED, len(photos), "classes")}', size=11, va='center')
    for number, (name, shots) in enumerate(rows):
        y, fit = 0.4 + number, COLUMNS - NAME
        label = _wrap(name, 26, 3) + (
            '' if len(shots) <= fit else f'\n{fit} of {len(shots)} photos'
        )
        _text(axes, NAME - 0.1, y + SIDE / 2, label, _colour(number), ha='right', va='center')
        for column, shot in enumerate(shots[:fit]):
            _image(axes, NAME + column, y, shot)
    _text(
        axes, 0, top - 0.25, f'Classified{_of(LISTED, len(images), "images")}', size=11, va='center'
    )
    for i, image in enumerate(tiles):
        x, y = i % COLUMNS, top + PITCH * (i // COLUMNS)
        _image(axes, x, y, image, WRONG if predictions.is_wrong(i) else None)
        _verdict(axes, x, y + SIDE, predictions, i)
    axes.set(xlim=(0, COLUMNS), ylim=(height, 0), aspect='equal')
    axes.axis('off')
    temporary = path.with_name(f'.{path.name}.new')
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph')  # A box stands for what no installed font has.
        figure.savefig(temporary, dpi=110, format='png')
    plt.close(figure)
    os.replace(temporary, path)


def _verdict(axes, x, y, predictions, i):
    """What stands under an image: bar and probability, the class, and the true one where that is
    another."""
    best = predictions.predicted[i]
    share = predictions.probabilities[i, best]
    for length, colour in [(1, '#e4e4e4'), (share, _colour(best))]:
        axes.add_patch(plt.Rectangle((x, y + 0.06), 0.58 * length, 0.06, color=colour, lw=0))
    _text(axes, x + SIDE, y + 0.09, f'{share:.0%}', ha='right', va='center')
    name = _wrap(predictions.classes[best], 17, 2)
    _text(axes, x, y + 0.17, name, _colour(best))
    if predictions.is_wrong(i):
        true = _cut(predictions.classes[predictions.truth[i]].replace('_', ' '), 11)
        _text(axes, x, y + 0.19 + 0.125 * len(name.splitlines()), f'true: {true}', WRONG)


def _of(listed, count, what):
    return f', the first {listed} of {count} {what}' if count > listed else ''


def _colour(number):
    return COLOURS[number % len(COLOURS)]


def _image(axes, x, y, image, frame=None):
    pixels = image if image.shape[-1] == 3 else image[..., 0]
    axes.imshow(pixels, cmap='gray', vmin=0, vmax=1, extent=(x, x + SIDE, y + SIDE, y))
    axes.add_patch(
        plt.Rectangle(
            (x, y), SIDE, SIDE, fill=False, color=frame or '#bbbbbb', lw=2.5 if frame else 0.5
        )
    )


def _text(axes, x, y, text, colour='black', size=8, va='top', **kwargs):
    axes.text(
        x,
        y,
        text,
        color=colour,
        fontsize=size,
        va=va,
        linespacing=1.05,
        family=_fonts(),
        parse_math=False,
        **kwargs,
    )


@functools.cache
def _fonts():
    installed = set(matplotlib.font_manager.get_font_names())
    return ['DejaVu Sans', *(font for font in FONTS if font in installed)]


def _wrap(text, columns, lines):
    """At most so many lines of so many columns."""
    text = shown(text).replace('_', ' ')
    characters = columns * len(text) // max(_width(text), 1)
    pieces = textwrap.wrap(text, characters)
    if len(pieces) > lines:
        pieces[lines - 1 :] = [pieces[lines - 1][: characters - 1] + '…']
    return '\n'.join(pieces)


def _cut(text, columns):
    """At most so many columns, with an ellipsis for the end that is left out."""
    text = shown(text)
    if _width(text) <= columns:
        return text
    while _width(text) >= columns:
        text = text[:-1]
    return text + '…'


def _cut_middle(text, columns):
    """As `_cut`, but the last third stays: the end of a file's name tells it from the others."""
    text = shown(text)
    if _width(text) <= columns:
        return text
    end = text[-(columns // 3) :]
    while _width(end) > columns // 3:
        end = end[1:]
    return _cut(text, columns - _width(end)) + end


def _pad(text, width):
    return text + ' ' * (width - _width(text))


def _width(text):
    """Columns on the screen: East Asian characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in 'FW' else 1
        for c in text
    )
