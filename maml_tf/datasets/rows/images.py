"""The rows of classes of images."""

from collections.abc import Callable, Iterable
from typing import Any

from maml_tf.datasets import omniglot
from maml_tf.datasets.flags import episode_specs
from maml_tf.datasets.raw.image_files import Preparation
from maml_tf.datasets.rows.networks import image_network
from maml_tf.datasets.source import Source
from maml_tf.episodes.source import EpisodeSource
from maml_tf.errors import ArgumentError
from maml_tf.objectives.classification import Classification

OF_IMAGES = (
    *('data_dir', 'num_classes', 'train_num_classes', 'train_way_from', 'train_on'),
    *('network', 'cell', 'cells'),
    *('conv', 'num_filters', 'max_pool', 'leave_to_query', 'write_tasks', 'tasks_file'),
    *('external', 'external_dir', 'external_labels'),
)


def images(
    load: Callable[[Any], EpisodeSource],
    side: int,
    channels: int = 3,
    head: str = 'flatten',
    reads: Iterable[str] = (),
    square: str = 'centre',
    prepares: Callable[[Any], Preparation] | None = None,
    **kwargs: Any,
) -> Source:
    """Returns a row of images that are `side` pixels large unless --image_size says otherwise.

    square: see Preparation. prepares: flags -> the Preparation; None: resized with Lanczos.
    """

    def input_shape(flags):
        size = flags.image_size or side
        return size, size, channels

    return Source(
        load=load,
        input_shape=input_shape,
        network=image_network(head),
        preparation=prepares
        or (lambda flags: Preparation(input_shape(flags)[0], channels, square)),
        objective=Classification(),
        print_every=100,
        validate_every=500,
        reads=(*OF_IMAGES, *reads),
        **kwargs,
    )


def _check_size(flags, side: int, name: str) -> None:
    """Raises ArgumentError where --image_size asks for what a set of one size does not have."""
    if flags.image_size not in (None, side):
        raise ArgumentError('image_size', flags.image_size, f'{name} has {side}x{side} images')


# The loaders import what they need when they are called: TFDS takes seconds and defines flags.


def _miniimagenet(flags):
    from maml_tf.datasets.miniimagenet import miniimagenet

    _check_size(flags, 84, 'miniImageNet')
    return miniimagenet(flags.data_dir, flags.manual_dir)


def _tieredimagenet(flags):
    from maml_tf.datasets.tieredimagenet import tieredimagenet

    _check_size(flags, 84, 'tieredImageNet')
    return tieredimagenet(flags.data_dir, flags.manual_dir)


def _cifar_fs(flags):
    from maml_tf.datasets.cifar import cifar_fs

    _check_size(flags, 32, 'CIFAR-FS')
    return cifar_fs(flags.data_dir)


def _fc100(flags):
    from maml_tf.datasets.cifar import fc100

    _check_size(flags, 32, 'FC100')
    return fc100(flags.data_dir)


def _cub(flags):
    from maml_tf.datasets.cub import cub

    return cub(flags.data_dir, flags.image_size or 84, flags.class_split or 'cub')


def _directory(flags):
    from maml_tf.datasets.directory import directory

    training, evaluation = episode_specs(flags, ROWS['directory'])

    def by_split(size):
        trained, evaluated = size(training), size(evaluation)
        val = max(trained, evaluated) if flags.train_on == 'trainval' else evaluated
        return {'train': trained, 'val': val, 'test': evaluated}

    return directory(
        flags.data_dir,
        flags.image_size or 84,
        flags.split_file,
        way=by_split(lambda spec: spec.way),
        least=by_split(lambda spec: spec.shot + spec.query),
    )


# As data/README.md says.
_OF_IMAGENET = "ImageNet's terms: non-commercial research and teaching, images not to be passed on"
_OF_CIFAR = 'none known; cite Krizhevsky 2009'
_OF_CUB = (
    'none known: photographs from Flickr, of which the photographers hold the rights; cite Wah et '
    'al. 2011'
)

ROWS = {
    'directory': images(
        _directory,
        84,
        iterations_per_call=1,
        licence="your own folder's",
        reads=('image_size', 'split_file'),
    ),
    'miniimagenet': images(
        _miniimagenet,
        84,
        licence=_OF_IMAGENET,
        square='whole',
        iterations_per_call=1,
        train_query=15,
        clip=10.0,
        reads=('manual_dir', 'image_size'),
    ),
    'tieredimagenet': images(
        _tieredimagenet,
        84,
        licence=_OF_IMAGENET,
        square='whole',
        iterations_per_call=1,
        train_query=15,
        reads=('manual_dir', 'image_size', 'within_groups'),
    ),
    'cifar_fs': images(
        _cifar_fs,
        32,
        licence=_OF_CIFAR,
        iterations_per_call=5,
        train_query=15,
        reads=('image_size', 'within_groups'),
    ),
    'fc100': images(
        _fc100,
        32,
        licence=_OF_CIFAR,
        iterations_per_call=5,
        train_query=15,
        reads=('image_size', 'within_groups'),
    ),
    'cub': images(
        _cub,
        84,
        square='whole',
        licence=_OF_CUB,
        iterations_per_call=1,
        train_query=15,
        reads=('image_size', 'class_split'),
    ),
    'omniglot': images(
        lambda flags: omniglot.omniglot(flags.data_dir, omniglot.from_flags(flags)),
        28,
        channels=1,
        head='mean',
        iterations_per_call=5,
        inputs=omniglot.inputs,
        prepares=omniglot.preparation,
        licence='MIT',
        background=lambda flags: 1.0 if flags.ink == 'dark' else 0.0,
        reads=(
            *('image_size', 'class_split', 'rotations', 'test_rotations', 'ink', 'resize'),
            'within_groups',
        ),
    ),
}
