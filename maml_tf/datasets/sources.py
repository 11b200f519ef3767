"""The table of data sources: how each is loaded, and what it needs where a flag leaves it open."""

import dataclasses
from collections.abc import Callable
from typing import Any

from maml_tf.datasets import function_families, omniglot, prompt_shifts
from maml_tf.datasets.flags import episode_specs
from maml_tf.datasets.gaussian_process import GaussianProcess
from maml_tf.datasets.raw.image_files import Preparation
from maml_tf.datasets.sinusoid import Sinusoid
from maml_tf.episodes.source import EpisodeSource
from maml_tf.errors import ArgumentError
from maml_tf.networks.conv_net import ConvNet
from maml_tf.networks.flags import product_dtype
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.networks.network import Network
from maml_tf.objectives import Classification, Objective, Regression, Return
from maml_tf.rl import flags as rl_flags
from maml_tf.rl import simulation
from maml_tf.rl.policy import GaussianPolicy


@dataclasses.dataclass(frozen=True)
class Source:
    """Describes a data source to the command line; the defaults are the reference's.

    load: flags -> the source itself.
    input_shape: flags -> the shape of one input, known without any data.
    network: (flags, input_shape, output_dim, **changes) -> the network; changes are of single
      constructor arguments, those that the network does not have are passed over.
    objective: of its labels.
    print_every: iterations between lines on the screen.
    iterations_per_call: small enough for a lively progress bar, large enough to hide Python.
    output_dim: of regression; None: classification, where it is the way.
    validate_every: iterations between validations; None: endless tasks, nothing to overfit.
    train_query: query examples per class in training; None: as many as support examples.
    clip: bound of every entry of the meta-gradient.
    licence: of the data, in words.
    inputs: flags -> what an exported model is to be fed, in words.
    preparation: flags -> how an image file becomes an input; None: inputs are no images of classes.
    background: flags -> the value of pixels where nothing is drawn.
    reads: which flags that mean something to some sources only it heeds.
    save_every: iterations between checkpoints.
    inner_lr, evaluation_steps: of the inner loop; None: the method's.
    algorithms: the methods that can learn its tasks; None: all.
    foreign: flags that mean something to its methods elsewhere, and nothing here.
    """

    load: Callable[[Any], EpisodeSource]
    input_shape: Callable[[Any], tuple[int, ...]]
    network: Callable[..., Network]
    objective: Objective
    print_every: int
    iterations_per_call: int
    output_dim: int | None = None
    validate_every: int | None = None
    train_query: int | None = None
    clip: float | None = None
    licence: str = 'none: they are computed'
    inputs: Callable[[Any], str] = lambda flags: 'images, pixels from 0 to 1'
    preparation: Callable[[Any], Preparation] | None = None
    background: Callable[[Any], float] = lambda flags: 0.0
    reads: tuple[str, ...] = ()
    save_every: int = 1000
    inner_lr: float | None = None
    evaluation_steps: int | None = None
    algorithms: tuple[str, ...] | None = None
    foreign: tuple[str, ...] = ()

    @property
    def classification(self) -> bool:
        """Says whether its labels are classes."""
        return self.objective.classification


def _image_network(head: str) -> Callable[..., Network]:
    def network(flags, input_shape, output_dim, head=head, **changes):
        if not flags.conv:
            return _dense_network((256, 128, 64, 64))(flags, input_shape, output_dim, **changes)
        return ConvNet(
            input_shape,
            output_dim,
            flags.num_filters,
            flags.norm,
            flags.max_pool,
            head,
            product_dtype=product_dtype(flags),
            **changes,
        )

    return network


def _dense_network(hidden: tuple[int, ...]) -> Callable[..., Network]:
    def network(flags, input_shape, output_dim, **changes):
        # It pools nothing, and its last layer always sees all there is.
        of_images = ('head', 'pool_padding', 'film')
        changes = {name: value for name, value in changes.items() if name not in of_images}
        return FullyConnected(
            input_shape,
            output_dim,
            hidden,
            flags.norm,
            product_dtype=product_dtype(flags),
            **changes,
        )

    return network


def _regression(load, input_dim, output_dim=1, hidden=(40, 40), **kwargs) -> Source:
    return Source(
        load=load,
        input_shape=lambda flags: (input_dim(flags),),
        network=_dense_network(hidden),
        objective=Regression(),
        output_dim=output_dim,
        print_every=1000,
        iterations_per_call=200,
        inputs=lambda flags: 'x',
        **kwargs,
    )


_OF_IMAGES = (
    *('data_dir', 'num_classes', 'train_num_classes', 'train_way_from', 'train_on'),
    *('conv', 'num_filters', 'max_pool', 'leave_to_query', 'write_tasks', 'tasks_file'),
)


def _images(
    load, side, channels=3, head='flatten', reads=(), square='centre', prepares=None, **kwargs
) -> Source:
    """A row of images that are `side` pixels large unless --image_size says otherwise.

    square: see Preparation. prepares: flags -> the Preparation; None: resized with Lanczos.
    """

    def input_shape(flags):
        size = flags.image_size or side
        return size, size, channels

    return Source(
        load=load,
        input_shape=input_shape,
        network=_image_network(head),
        preparation=prepares
        or (lambda flags: Preparation(input_shape(flags)[0], channels, square)),
        objective=Classification(),
        print_every=100,
        validate_every=500,
        reads=(*_OF_IMAGES, *reads),
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

    training, evaluation = episode_specs(flags, SOURCES['directory'])

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


def _celeba(flags):
    from maml_tf.datasets.celeba import celeba
    from maml_tf.episodes.image_completion import ImageCompletion

    images = celeba(flags.data_dir, flags.image_size or 32)
    return ImageCompletion(images, flags.query_contains_support, flags.test_query_contains_support)


def _family(family: type[function_families.Family]) -> Source:
    return _regression(
        lambda flags: family(flags.dimension, prompt_shifts.from_flags(flags)),
        lambda flags: flags.dimension,
        reads=('dimension', *prompt_shifts.FLAGS),
    )


def _sinusoid(frequency: tuple[float, float] | None) -> Source:
    parameters = 2 if frequency is None else 3
    return _regression(
        lambda flags: Sinusoid(flags.baseline == 'oracle', frequency),
        lambda flags: 1 + parameters * (flags.baseline == 'oracle'),
        reads=('baseline',),
    )


def _policy(flags, input_shape, output_dim, **changes):
    # Of what methods change in a network, these belong to every kind.
    of_all = ('joined', 'start')
    changes = {name: value for name, value in changes.items() if name in of_all}
    return GaussianPolicy(input_shape, output_dim, **changes)


def _simulation(name, observations, actions, task) -> Source:
    """A row of an environment; the numbers are the sizes that it says of itself."""
    return Source(
        load=lambda flags: simulation.load(name, flags),
        input_shape=lambda flags: (observations + task * (flags.baseline == 'oracle'),),
        network=_policy,
        objective=Return(),
        output_dim=actions,
        print_every=1,
        iterations_per_call=1,
        validate_every=10,
        save_every=10,
        inner_lr=0.1,
        evaluation_steps=3,
        algorithms=(
            *('maml', 'anil', 'meta_sgd', 'cavia', 'bias_transformation'),
            *('multi_task', 'from_scratch'),
        ),
        foreign=rl_flags.FOREIGN,
        inputs=lambda flags: 'observations',
        reads=('baseline', *rl_flags.OF_TRAINING, *rl_flags.OF_TASKS),
    )


# As data/README.md says.
_OF_IMAGENET = "ImageNet's terms: non-commercial research and teaching, images not to be passed on"
_OF_CIFAR = 'none known; cite Krizhevsky 2009'
_OF_CUB = (
    'none known: photographs from Flickr, of which the photographers hold the rights; cite Wah et '
    'al. 2011'
)
_CONTAINS_SUPPORT = ('query_contains_support', 'test_query_contains_support')

SOURCES = {
    'sinusoid': _sinusoid(None),
    'sinusoid_frequency': _sinusoid((0.8, 1.2)),
    'gaussian_process': _regression(
        lambda flags: GaussianProcess(
            flags.query_contains_support, flags.test_query_contains_support
        ),
        lambda flags: 1,
        reads=_CONTAINS_SUPPORT,
    ),
    'linear': _family(function_families.Linear),
    'sparse_linear': _family(function_families.SparseLinear),
    'decision_tree': _family(function_families.DecisionTree),
    'two_layer_network': _family(function_families.TwoLayerNetwork),
    'celeba': _regression(
        _celeba,
        lambda flags: 2,
        output_dim=3,
        licence='non-commercial research; images not to be passed on (the agreement of CelebA)',
        hidden=(128,) * 5,  # Zintgraf et al. 2019, of MAML and CAVIA alike
        reads=('data_dir', 'image_size', *_CONTAINS_SUPPORT),
    ),
    'directory': _images(
        _directory,
        84,
        iterations_per_call=1,
        licence="your own folder's",
        reads=('image_size', 'split_file'),
    ),
    'miniimagenet': _images(
        _miniimagenet,
        84,
        licence=_OF_IMAGENET,
        square='whole',
        iterations_per_call=1,
        train_query=15,
        clip=10.0,
        reads=('manual_dir', 'image_size'),
    ),
    'tieredimagenet': _images(
        _tieredimagenet,
        84,
        licence=_OF_IMAGENET,
        square='whole',
        iterations_per_call=1,
        train_query=15,
        reads=('manual_dir', 'image_size', 'within_groups'),
    ),
    'cifar_fs': _images(
        _cifar_fs,
        32,
        licence=_OF_CIFAR,
        iterations_per_call=5,
        train_query=15,
        reads=('image_size', 'within_groups'),
    ),
    'fc100': _images(
        _fc100,
        32,
        licence=_OF_CIFAR,
        iterations_per_call=5,
        train_query=15,
        reads=('image_size', 'within_groups'),
    ),
    'cub': _images(
        _cub,
        84,
        square='whole',
        licence=_OF_CUB,
        iterations_per_call=1,
        train_query=15,
        reads=('image_size', 'class_split'),
    ),
    'omniglot': _images(
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
    'navigation2d': _simulation('navigation2d', 2, 2, 2),
    'half_cheetah_dir': _simulation('half_cheetah_dir', 20, 6, 1),
    'half_cheetah_vel': _simulation('half_cheetah_vel', 20, 6, 1),
    'ant_dir': _simulation('ant_dir', 125, 8, 1),
    'ant_vel': _simulation('ant_vel', 125, 8, 1),
}
