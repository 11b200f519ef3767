"""Maps a region: adapts a trained learner to a few labelled tiles, and labels every other pixel.

    python -m maml_tf.map_region --init_from=RUN_DIRECTORY --support=few --classify=tiles --out=maps
    python -m maml_tf.map_region --init_from=SAVED_MODEL --support=few --classify=tiles --out=maps

`--support` holds few tiles of the region and their label images, `few/images/a.tif` and
`few/labels/a.tif` (or .png): the value of each pixel's class, 0 where there is no label. Names of
the classes may stand in `few/classes.csv` (value,name). `--classify` holds images of the same
kind. Images may be larger than the learner's tiles, and are cut into such; their pixels should be
as large on the ground as in training.

Of each image there is a picture with a legend, `maps/<name>.png`, and a map of the same values,
`maps/<name>_labels.tif`, with the georeference of the image; where it has none,
`maps/<name>_labels.png`. Pixels without data (a GeoTIFF's nodata value) have no class: they are 0
in the map, and count in no share.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from maml_tf.commands.maps import outputs
from maml_tf.datasets.landcover import folder, rasters
from maml_tf.episodes.segmentation.values import UNLABELLED
from maml_tf.errors import ArgumentError, UserError
from maml_tf.terminal import progress, quiet
from maml_tf.terminal.exit import errors_as_one_line
from maml_tf.terminal.text import counted, listed, shown

LARGEST_PICTURE = 1000  # pixels along a side


def parser() -> argparse.ArgumentParser:
    """Returns the options of this command."""
    path = lambda text: pathlib.Path(text).expanduser()
    options = argparse.ArgumentParser(
        'python -m maml_tf.map_region',
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, metavar, what in (
        (
            '--init_from',
            'LEARNER',
            'the trained learner: a run directory (flags.txt and checkpoints), or a SavedModel '
            'written by --export_dir of run_maml.py',
        ),
        ('--support', 'FOLDER', 'labelled tiles to adapt to: the folders images and labels'),
        ('--classify', 'FOLDER', 'the images to map'),
        ('--out', 'FOLDER', 'the maps; it is made where it is missing'),
    ):
        options.add_argument(name, metavar=metavar, required=True, type=path, help=what)
    options.add_argument(
        '--steps',
        metavar='N',
        type=int,
        help='inner steps (default: as many as in evaluation); a SavedModel has its own',
    )
    return options


def to_map(classify: pathlib.Path) -> list[pathlib.Path]:
    """Lists the images to map.

    Raises: ArgumentError where there is none, or two have the same name but for their ending.
    """
    paths = folder.rasters(classify)
    if not paths:
        reason = f'no image in it, looked for {" ".join(rasters.ENDINGS)}'
        raise ArgumentError('classify', shown(classify), reason)
    names = [path.stem for path in paths]
    if twice := [name for name in names if names.count(name) > 1]:
        reason = f'two images are called {shown(twice[0])}, and so would be their maps'
        raise ArgumentError('classify', shown(classify), reason)
    return paths


def run(arguments: argparse.Namespace) -> None:
    """Does what the command line says. Raises UserError."""
    if arguments.steps is not None and arguments.steps < 0:
        raise ArgumentError('steps', arguments.steps, 'a number of gradient steps, 0 or more')
    labelled, paths = folder.pairs(arguments.support), to_map(arguments.classify)
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ArgumentError('out', shown(arguments.out), 'not a folder')
    outputs.check(paths, [*labelled, *labelled.values(), *paths], arguments.out)
    names = folder.read_classes(arguments.support, labelled)
    quiet.import_tensorflow()  # Takes seconds: whatever is wrong with the folders was said before.
    from maml_tf.commands.folders import trained
    from maml_tf.commands.maps.mapper import adapt

    learner = trained.load(arguments.init_from, arguments.steps, pixels=True)
    mapper = adapt(learner, labelled, names)
    shares = ', '.join(f'{shown(name)} {share:.0%}' for name, share in mapper.shares.items())
    print(f'Adapted to {counted(mapper.tiles, "tile")} of {len(labelled)} images ({shares})')
    if learner.transductive:
        print(
            'This SavedModel is transductive: a map depends on the tiles that are labelled '
            'together. Export with --transductive=False, or name the run directory, for tile by '
            'tile'
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = np.zeros(len(names))
    for path in progress.bar(paths, 'mapping', unit=' images', delay=3, leave=False):
        found += _map(path, mapper, arguments.out)
    shares = ', '.join(
        f'{shown(name)} {count / max(found.sum(), 1):.0%}'
        for name, count in zip(names.values(), found)
    )
    print(f'Mapped {counted(len(paths), "image")} ({shares}): {arguments.out}')


def _map(path, mapper, out):
    """Maps one image; returns how many pixels with data each class has in it."""
    from maml_tf.evaluation import maps  # Starting matplotlib takes a second.

    raster = rasters.read_with_georeference(path)
    bands = folder.bands_of(raster.values, path, mapper.bands)
    if min(bands.shape[:2]) < mapper.side:
        height, width = bands.shape[:2]
        raise UserError(
            f'{shown(path)}: {height}x{width}, and the learner labels tiles of {mapper.side} '
            'pixels and more'
        )
    numbers = np.where(raster.known, mapper.map(bands), UNLABELLED)
    found = np.bincount(numbers[raster.known], minlength=len(mapper.values))
    # Of a whole scene a picture would show every so many pixels anyway.
    few = slice(None, None, max(1, max(numbers.shape) // LARGEST_PICTURE))
    maps.draw(
        outputs.picture_of(path, out),
        [(mapper.scaled(bands[few, few]), {'map': numbers[few, few]})],
        mapper.class_names,
        f'{path.name}: {listed([name for name, count in zip(mapper.class_names, found) if count])}',
        [''],
    )
    value_of = np.zeros(UNLABELLED + 1, np.uint8)
    value_of[: len(mapper.values)] = mapper.values
    labels = value_of[numbers]
    if raster.georeference:
        rasters.write_labels(outputs.labels_of(path, out, '.tif'), labels, raster.georeference)
    else:
        rasters.write_picture(outputs.labels_of(path, out, '.png'), labels)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; arguments: None: those of the program."""
    options = parser().parse_args(arguments)
    sys.stdout.reconfigure(errors='backslashreplace')  # Names of files can be in any script.
    with errors_as_one_line({}, file='--out'):
        run(options)


if __name__ == '__main__':
    main()
