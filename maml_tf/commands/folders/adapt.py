"""Adapts a trained learner to a folder of a few photos per class, and classifies images by it.

    python -m maml_tf.adapt --init_from=RUN_DIRECTORY --support=photos --classify=unsorted
    python -m maml_tf.adapt --init_from=SAVED_MODEL --support=photos --export_dir=my_classifier
    python -m maml_tf.adapt --init_from=SAVED_MODEL --support=photos --tflite=mine.tflite

`--support` holds a folder for each class, with any number of photos in it, not the same everywhere;
all classes count alike. They are too few to train a network from nothing: the learner was
meta-trained by run_maml.py on other classes, and adapts to these at once (MAML by a few gradient
steps). What is classified stands in a table on the screen, in predictions.csv and in a picture
beside it, which shows all images as the learner sees them.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from maml_tf.commands.folders import predictions
from maml_tf.commands.folders.photos import Reader, images_to_classify, photos_by_class
from maml_tf.datasets.raw.image_files import INVERT
from maml_tf.datasets.raw.listing import name_in
from maml_tf.errors import ArgumentError, UserError
from maml_tf.terminal import progress, quiet
from maml_tf.terminal.exit import errors_as_one_line
from maml_tf.terminal.text import shown

INK = {'bright': 'bright ink on black', 'dark': 'dark ink on white'}
# The flag of an argument, where it has another name.
FLAGS = {'path': 'export_dir'}


def parser() -> argparse.ArgumentParser:
    """Returns the options of this command."""
    path = lambda text: pathlib.Path(text).expanduser()
    options = argparse.ArgumentParser(
        'python -m maml_tf.adapt',
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument(
        '--init_from',
        metavar='LEARNER',
        required=True,
        type=path,
        help='the trained learner: a run directory (flags.txt and checkpoints), or a SavedModel '
        'written by --export_dir of run_maml.py',
    )
    options.add_argument(
        '--support',
        metavar='FOLDER',
        required=True,
        type=path,
        help='the photos to adapt to: one folder per class, named after it',
    )
    options.add_argument(
        '--classify',
        metavar='FOLDER',
        type=path,
        help='the images to classify, in folders or not; where folders bear names of classes, the '
        'accuracy is said as well',
    )
    options.add_argument(
        '--output',
        metavar='FILE.csv',
        type=path,
        default=pathlib.Path('predictions.csv'),
        help='the predictions; the picture has the same name with .png (default: %(default)s)',
    )
    options.add_argument(
        '--export_dir',
        metavar='DIRECTORY',
        type=path,
        help='write the adapted classifier to this new directory, as a SavedModel that takes '
        'images and needs TensorFlow alone',
    )
    options.add_argument(
        '--tflite',
        metavar='FILE.tflite',
        type=path,
        help='write the adapted classifier to this new file for LiteRT (TensorFlow Lite): one '
        'prepared image in, scores out; it is compared with the SavedModel, and timed',
    )
    options.add_argument(
        '--steps',
        metavar='N',
        type=int,
        help='inner steps (default: as many as in evaluation, 10); a SavedModel has its own',
    )
    options.add_argument(
        '--invert',
        choices=INVERT,
        default='auto',
        help='exchange black and white. auto: where the learner was trained on Omniglot, that is '
        'on bright ink on black, the images that are brighter than mid-grey on average, such as '
        'drawings on white paper (default: %(default)s)',
    )
    return options


def check(arguments: argparse.Namespace) -> None:
    """Raises UserError for options that cannot be carried out, before TensorFlow is started."""
    if not (arguments.classify or arguments.export_dir or arguments.tflite):
        raise UserError(
            'nothing to do with the adapted learner: name --classify, --export_dir or --tflite'
        )
    if arguments.steps is not None and arguments.steps < 0:
        raise ArgumentError('steps', arguments.steps, 'a number of gradient steps, 0 or more')
    output = arguments.output
    if output.suffix != '.csv':
        raise ArgumentError('output', output, 'a name that ends in .csv; the picture is beside it')
    if not output.parent.is_dir():
        raise ArgumentError('output', output, f'there is no directory {output.parent}')


def run(arguments: argparse.Namespace) -> None:
    """Does what the command line says. Raises UserError."""
    check(arguments)
    support = photos_by_class(arguments.support)
    paths = images_to_classify(arguments.classify) if arguments.classify else []
    quiet.import_tensorflow()  # Takes seconds: whatever is wrong with the folders was said before.
    from maml_tf.commands.folders import adapted, trained
    from maml_tf.serialisation.files import check_new

    if arguments.export_dir:
        check_new(arguments.export_dir, 'export_dir')
    learner = trained.load(arguments.init_from, arguments.steps)
    if arguments.tflite:
        adapted.check_lite(learner, arguments.tflite)
    preparation = dataclasses.replace(learner.preparation, invert=arguments.invert)
    read = Reader(preparation)
    photos = read.support(arguments.support, support)
    classifier = adapted.adapt(learner, photos)
    sizes = ', '.join(f'{shown(name)} {len(images)}' for name, images in photos.items())
    print(f'Adapted to {read.read} photos of {len(photos)} classes ({sizes})')
    if learner.transductive:
        print(
            'This SavedModel is transductive: a prediction depends on the other images classified '
            'with it. Export with --transductive=False, or name the run directory, for '
            'predictions image by image'
        )
    if paths:
        paths, images = read.queries(arguments.classify, paths)
    ink = preparation.ink
    if read.inverted or ink:
        trained_on = f': the learner was trained on {INK[ink]}' if ink else ''
        print(
            f'Inverted {read.inverted} of {read.read} images '
            f'(--invert={arguments.invert}){trained_on}'
        )
    if paths:
        _classify(arguments, classifier, photos, paths, images)
    known = {
        'photos': {name: len(images) for name, images in photos.items()},
        'init_from': str(arguments.init_from),
    }
    if arguments.export_dir:
        classifier.export(arguments.export_dir, preparation, known)
        print(f'SavedModel: {arguments.export_dir}')
    if arguments.tflite:
        examples = np.concatenate(list(photos.values()))
        lite = classifier.export_lite(arguments.tflite, preparation, known, examples)
        print(
            f'LiteRT: {arguments.tflite}, {lite.size / 1000:.1f} kB, {lite.latency * 1000:.2f} ms '
            f'an image here (median, one thread), within {lite.difference:.0e} of the SavedModel'
        )


def _classify(arguments, classifier, photos, paths, images):
    """Prints, writes and draws what the classifier says of the images."""
    from maml_tf.commands.folders import picture  # Starting matplotlib takes a second.

    names = [name_in(path, arguments.classify) for path in paths]
    numbers = {name: number for number, name in enumerate(classifier.classes)}
    truth = [numbers.get(name.split('/')[0]) if '/' in name else None for name in names]
    bar = lambda chunks: progress.bar(chunks, 'classifying', delay=3, leave=False)
    found = predictions.Predictions(
        names, classifier.classes, classifier.probabilities(images, bar), truth
    )
    print(predictions.table(found))
    if known := predictions.accuracy(found):
        print(known)
    beside = arguments.output.with_suffix('.png')
    predictions.write_csv(arguments.output, found)
    picture.draw(beside, photos, found, images)
    print(f'Predictions: {arguments.output}, picture: {beside}')


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; arguments: None: those of the program."""
    options = parser().parse_args(arguments)
    sys.stdout.reconfigure(errors='backslashreplace')  # Names of files can be in any script.
    with errors_as_one_line(FLAGS, file='--output'):
        run(options)


if __name__ == '__main__':
    main()
