"""What real input costs: a training step on fresh tasks against the same step on one fixed
meta-batch.

    python tests/benchmarks/input_time.py [--sources=omniglot,cifar_fs] [--repeats=7]

Images are random and of the true sizes and numbers, so that no data is needed; a set that streams
is a file of pixels in a temporary directory. Both steps take turns on the same learner. Prints
medians in ms, what input adds, and the memory that the training classes hold. Run it on an idle
machine.
"""

import argparse
import pathlib
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from maml_tf.terminal import quiet  # noqa: E402

quiet.import_tensorflow()

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from maml_tf.algorithms.metric.prototypical import Prototypical  # noqa: E402
from maml_tf.algorithms.optimisation.maml import MAML  # noqa: E402
from maml_tf.datasets.functions.function_families import Linear  # noqa: E402
from maml_tf.datasets.functions.gaussian_process import GaussianProcess  # noqa: E402
from maml_tf.datasets.functions.sinusoid import Sinusoid  # noqa: E402
from maml_tf.episodes.images import ClassImages, ImageClasses  # noqa: E402
from maml_tf.episodes.task import EpisodeSpec  # noqa: E402
from maml_tf.networks.conv_net import ConvNet  # noqa: E402
from maml_tf.networks.encoders import conv4  # noqa: E402
from maml_tf.networks.fully_connected import FullyConnected  # noqa: E402
from maml_tf.objectives.classification import MeanClassification  # noqa: E402
from maml_tf.training.iterate import iterate  # noqa: E402
from maml_tf.training.operations import metatrain_op  # noqa: E402
from maml_tf.training.outer_optimizers import adam  # noqa: E402


def images(classes, each, shape, rotations='none', folder=None):
    """A source of random images; with a folder it streams from a file there."""
    total = classes * each
    if folder:
        pixels = np.lib.format.open_memmap(folder / 'pixels.npy', 'w+', np.uint8, (total, *shape))
    else:
        pixels = np.empty((total, *shape), np.uint8)
    rng = np.random.default_rng(0)
    for start in range(0, total, 5000):
        part = pixels[start : start + 5000]
        part[:] = rng.integers(0, 256, part.shape, np.uint8)
    return ImageClasses(
        lambda split: ClassImages(pixels, np.full(classes, each)), shape, ('train',), rotations
    )


def maml(source, way, steps, **kwargs):
    return MAML(
        ConvNet(source.input_shape, way, **kwargs),
        source.objective,
        inner_lr=0.01,
        inner_steps=steps,
    )


def regression(source):
    return MAML(FullyConnected(source.input_shape, 1), source.objective)


def prototypical(source):
    return Prototypical(conv4(source.input_shape), MeanClassification())


# name: (folder -> source, source -> learner, spec, tasks in a meta-batch, iterations in a call)
SETTINGS = {
    'sinusoid': (lambda _: Sinusoid(), regression, EpisodeSpec(1, 10, 10), 25, 500),
    'gaussian_process': (lambda _: GaussianProcess(), regression, EpisodeSpec(1, 10, 10), 25, 200),
    'linear': (lambda _: Linear(), regression, EpisodeSpec(1, 20, 20), 25, 200),
    'omniglot, maml': (
        lambda _: images(1100, 20, (28, 28, 1), 'per_class'),
        lambda s: maml(s, 5, 1),
        EpisodeSpec(5, 1, 1),
        32,
        5,
    ),
    'omniglot, prototypical': (
        lambda _: images(1028, 20, (28, 28, 1), 'classes'),
        prototypical,
        EpisodeSpec(60, 1, 5),
        1,
        3,
    ),
    'omniglot 105x105, prototypical': (
        lambda _: images(964, 20, (105, 105, 1)),
        prototypical,
        EpisodeSpec(20, 1, 1),
        1,
        2,
    ),
    'cifar_fs, maml': (
        lambda _: images(64, 600, (32, 32, 3)),
        lambda s: maml(s, 5, 5, filters=32, max_pool=True, head='flatten'),
        EpisodeSpec(5, 1, 15),
        4,
        3,
    ),
    'cifar_fs, prototypical': (
        lambda _: images(64, 600, (32, 32, 3)),
        prototypical,
        EpisodeSpec(20, 1, 15),
        1,
        2,
    ),
    'miniimagenet, maml': (
        lambda _: images(64, 600, (84, 84, 3)),
        lambda s: maml(s, 5, 1, filters=32, max_pool=True, head='flatten'),
        EpisodeSpec(5, 1, 15),
        4,
        1,
    ),
    'cub, prototypical': (
        lambda _: images(100, 59, (84, 84, 3)),
        prototypical,
        EpisodeSpec(5, 1, 15),
        1,
        2,
    ),
    'tieredimagenet, prototypical, streamed': (
        lambda folder: images(351, 400, (84, 84, 3), folder=folder),
        prototypical,
        EpisodeSpec(20, 1, 15),
        1,
        2,
    ),
    'cub 224x224, prototypical, streamed': (
        lambda folder: images(100, 59, (224, 224, 3), folder=folder),
        prototypical,
        EpisodeSpec(5, 1, 5),
        1,
        1,
    ),
}


def measure(setting, repeats, folder):
    """(ms on fresh tasks, ms on one meta-batch, bytes of the images), medians."""
    make_source, make_learner, spec, tasks, iterations = setting
    source = make_source(folder)
    learner = make_learner(source)
    draw = source.tasks('train', spec, 0)
    batch = draw(0, tasks)
    op = metatrain_op(learner, adam(1e-3))
    runs = [iterate(op, draw, tasks), iterate(op, lambda start, count: batch, tasks)]
    times = [[], []]
    for run in runs:
        run(0, 1)
    for repeat in range(repeats):
        for run, seconds in zip(runs, times):
            start = time.perf_counter()
            run(repeat * iterations, iterations)
            seconds.append((time.perf_counter() - start) / iterations)
    held = source.split('train').images if isinstance(source, ImageClasses) else np.empty(0)
    size = held.nbytes if isinstance(held, np.ndarray) else int(tf.size(held))
    return *(1e3 * statistics.median(seconds) for seconds in times), size


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--sources', default='', help='only settings whose names begin so, separated by commas'
    )
    parser.add_argument('--repeats', type=int, default=7)
    arguments = parser.parse_args()
    print(f'{"setting":<42}{"fresh ms":>10}{"fixed ms":>10}{"input adds":>12}{"memory":>12}')
    for name, setting in SETTINGS.items():
        if not name.startswith(tuple(arguments.sources.split(','))):
            continue
        with tempfile.TemporaryDirectory() as folder:
            fresh, fixed, size = measure(setting, arguments.repeats, pathlib.Path(folder))
        print(
            f'{name:<42}{fresh:>10.2f}{fixed:>10.2f}{fresh / fixed - 1:>12.1%}{size / 1e6:>9,.0f} '
            'MB',
            flush=True,
        )


if __name__ == '__main__':
    main()
