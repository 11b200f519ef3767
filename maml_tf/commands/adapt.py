"""Adapts a trained learner to a folder of a few photos per class, and classifies other images by
it.

    python -m maml_tf.adapt --init_from=RUN_DIRECTORY --support=photos --classify=unsorted
    python -m maml_tf.adapt --init_from=SAVED_MODEL --support=photos --export_dir=my_classifier

`--support` holds a folder for each class, with any number of photos in it, not the same everywhere;
all classes count alike. They are too few to train a network from nothing: the learner was
meta-trained by run_maml.py on other classes, and adapts to these at once (MAML by a few gradient
steps). What is classified stands in a table on the screen, in predictions.csv and in a picture
beside it, which shows all images as the learner sees them.
"""

import argparse
import pathlib
import sys

import numpy as np
from tqdm import tqdm

from maml_tf.datasets.raw import image_files
from maml_tf.datasets.raw.image_files import shown
from maml_tf.errors import UserError
from maml_tf.terminal import quiet

MIDDLE = 127.5  # grey, between dark and bright
INK = {'bright': 'bright ink on black', 'dark': 'dark ink on white'}


def parser():
    """The options of this command."""
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
        'images '
        'and needs TensorFlow alone',
    )
    options.add_argument(
        '--steps',
        metavar='N',
        type=int,
        help='inner steps (default: as many as in evaluation, 10); a SavedModel has its own',
    )
    options.add_argument(
        '--invert',
        choices=['auto', 'true', 'false'],
        default='auto',
        help='exchange black and white. auto: where the learner was trained on Omniglot, that is '
        'on '
        'bright ink on black, the images that are brighter than mid-grey on average, such as '
        'drawings '
        'on white paper (default: %(default)s)',
    )
    return options


class Reader:
    """Reads image files as the pixels that a learner was trained on, and counts those that it
    inverts."""

    def __init__(self, learner, invert):
        self._side, _, self._channels = learner.input_shape
        self._invert, self._ink = invert, learner.ink
        self.read, self.inverted = 0, 0

    def __call__(self, paths):
        """Paths -> float32 [n, side, side, channels]."""
        images = np.empty([len(paths), self._side, self._side, self._channels], np.float32)
        for i, path in enumerate(tqdm(paths, 'reading', unit='image', delay=3, leave=False)):
            image = image_files.read_image(path, self._side, self._channels)
            turn = self._is_inverted(image)
            self.read, self.inverted = self.read + 1, self.inverted + turn
            images[i] = (255 - image if turn else image) / np.float32(255)
        return images

    def _is_inverted(self, image):
        if self._invert != 'auto':
            return self._invert == 'true'
        if self._channels == 3 or self._ink is None:
            return False
        # Most of a drawing is paper.
        return bool(image.mean() > MIDDLE) == (self._ink == 'bright')


def photos_by_class(folder):
    """{class name: [paths]} of the folder to adapt to. Raises UserError where a class is empty or
    there is only one."""
    listing = image_files.list_folder(folder)
    for name, paths in listing.classes.items():
        if not paths:
            raise UserError(
                f'--support={shown(folder)}: no image in {shown(name)}, looked for '
                f'{" ".join(image_files.ENDINGS)}; add photos of it or remove the folder'
            )
    if len(listing.classes) == 1:
        raise UserError(
            f'--support={shown(folder)}: one class only, {shown(*listing.classes)}; a classifier '
            'needs two'
        )
    left_out = [path for path in listing.loose + listing.skipped if not path.name.startswith('.')]
    if left_out:
        print(
            f'Left out: {len(left_out)} files that are in no class or no image, such as '
            f'{shown(left_out[0])}'
        )
    return listing.classes


def images_below(folder):
    """[paths] of all images in a folder, however deep. Raises UserError where there is none."""
    paths = image_files.images_below(folder)[0] if folder.is_dir() else []
    if not paths:
        reason = (
            f'no image in it, looked for {" ".join(image_files.ENDINGS)}'
            if folder.is_dir()
            else 'not a folder'
        )
        raise UserError(f'--classify={shown(folder)}: {reason}')
    return paths


def check(arguments):
    """Raises UserError for options that cannot be carried out, before TensorFlow is started."""
    if not (arguments.classify or arguments.export_dir):
        raise UserError('nothing to do with the adapted learner: name --classify or --export_dir')
    if arguments.steps is not None and arguments.steps < 0:
        raise UserError(f'--steps={arguments.steps}: a number of gradient steps, 0 or more')
    if arguments.output.suffix != '.csv':
        raise UserError(
            f'--output={arguments.output}: a name that ends in .csv; the picture is beside it'
        )
    if not arguments.output.parent.is_dir():
        raise UserError(
            f'--output={arguments.output}: there is no directory {arguments.output.parent}'
        )


def run(arguments):
    """Does what the command line says. Raises UserError."""
    check(arguments)
    support = photos_by_class(arguments.support)
    paths = images_below(arguments.classify) if arguments.classify else []
    quiet.import_tensorflow()  # Takes seconds: whatever is wrong with the folders was said before.
    from maml_tf.commands import adapted
    from maml_tf.saving import export

    if arguments.export_dir:
        export.check_new(arguments.export_dir)
    learner = adapted.load(arguments.init_from, arguments.steps)
    read = Reader(learner, arguments.invert)
    photos = {name: read(files) for name, files in support.items()}
    classifier = adapted.adapt(learner, photos)
    print(
        f'Adapted to {read.read} photos of {len(photos)} classes '
        f'({", ".join(f"{shown(name)} {len(images)}" for name, images in photos.items())})'
    )
    if learner.transductive:
        print(
            'This SavedModel is transductive: a prediction depends on the other images classified '
            'with it. Export '
            'with --transductive=False, or name the run directory, for predictions image by image'
        )
    images = read(paths)
    if read.inverted or learner.ink:
        trained_on = f': the learner was trained on {INK[learner.ink]}' if learner.ink else ''
        print(
            f'Inverted {read.inverted} of {read.read} images '
            f'(--invert={arguments.invert}){trained_on}'
        )
    if paths:
        _classify(arguments, classifier, photos, paths, images)
    if arguments.export_dir:
        classifier.export(
            arguments.export_dir,
            {
                'photos': {name: len(images) for name, images in photos.items()},
                'init_from': str(arguments.init_from),
            },
        )
        print(f'SavedModel: {arguments.export_dir}')


def _classify(arguments, classifier, photos, paths, images):
    from maml_tf.commands import predictions

    folder, classes = arguments.classify, classifier.classes
    names = [image_files.name_in(path, folder) for path in paths]
    numbers = {name: number for number, name in enumerate(classes)}
    truth = [numbers.get(name.split('/')[0]) if '/' in name else None for name in names]
    progress = lambda chunks: tqdm(chunks, 'classifying', delay=3, leave=False)
    found = predictions.Predictions(
        names, classes, classifier.probabilities(images, progress), truth
    )
    print(predictions.table(found))
    if known := predictions.accuracy(found):
        print(known)
    picture = arguments.output.with_suffix('.png')
    predictions.write_csv(arguments.output, found)
    predictions.draw(picture, photos, found, images)
    print(f'Predictions: {arguments.output}, picture: {picture}')


def main(argv=None):
    arguments = parser().parse_args(argv)
    try:
        run(arguments)
    except UserError as error:
        sys.exit(f'error: {error}')
    except OSError as error:  # a full disk, a directory that may not be written
        sys.exit(f'error: {error.filename or "--output"}: {error.strerror or error}')
    except KeyboardInterrupt:
        sys.exit('interrupted')


if __name__ == '__main__':
    main()
