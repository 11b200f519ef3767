"""The table of data sources: how each is loaded, and what it needs where a flag leaves it open."""

import dataclasses
from collections.abc import Callable
from typing import Any

from maml_tf.datasets import function_families, omniglot
from maml_tf.datasets.gaussian_process import GaussianProcess
from maml_tf.datasets.sinusoid import Sinusoid
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import UserError
from maml_tf.networks.reference import ConvNet, FullyConnected, product_dtype
from maml_tf.saving.run_directory import train_update_batch_size


@dataclasses.dataclass(frozen=True)
class Source:
    """One row of the table; the defaults are the reference's."""

    load: Callable[
        [Any], Any
    ]  # flags -> an object with `tasks(split, spec, seed)`, `objective`, `input_shape`
    input_shape: Callable[[Any], tuple]  # flags -> the shape of one input, known without any data
    network: Callable[[Any, tuple, int], Any]  # (flags, input_shape, output_dim) -> network
    classification: bool
    print_every: int  # iterations between lines on the screen
    iterations_per_call: int  # small enough for a lively progress bar, large enough to hide Python
    output_dim: int = 1  # of regression; in classification it is the way
    validate_every: int | None = None  # None: endless tasks, nothing to overfit
    eval_steps: int = 10
    train_query: int | None = (
        None  # query examples per class in training; None: as many as support examples
    )
    clip: float | None = None  # bound of every entry of the meta-gradient
    # flags -> what an exported model is to be fed, in words
    inputs: Callable[[Any], str] = lambda flags: 'images, pixels from 0 to 1'
    reads: tuple = ()  # which of OF_SOME_SOURCES it heeds


# Flags that mean something to some sources only; to set one for another is an error, not a silence.
OF_SOME_SOURCES = (
    'manual_dir',
    'image_size',
    'class_split',
    'split_file',
    'rotations',
    'test_rotations',
    'ink',
    'resize',
    'dimension',
    'query_contains_support',
    'within_groups',
    'train_on',
    'train_way_from',
)


def _image_network(head):
    def network(flags, input_shape, output_dim):
        if flags.conv:
            return ConvNet(
                input_shape,
                output_dim,
                flags.num_filters,
                flags.norm,
                flags.max_pool,
                head,
                product_dtype(flags),
            )
        return FullyConnected(
            input_shape, output_dim, (256, 128, 64, 64), flags.norm, product_dtype(flags)
        )

    return network


def _small_network(flags, input_shape, output_dim):
    return FullyConnected(input_shape, output_dim, (40, 40), flags.norm, product_dtype(flags))


def _regression(load, input_dim, **kwargs):
    return Source(
        load=load,
        input_shape=lambda flags: (input_dim(flags),),
        network=_small_network,
        classification=False,
        print_every=1000,
        iterations_per_call=200,
        inputs=lambda flags: 'x',
        **kwargs,
    )


def _images(load, side, channels=3, head='flatten', reads=(), **kwargs):
    """A row of images that are `side` pixels large unless --image_size says otherwise."""

    def input_shape(flags):
        size = flags.image_size or side
        return size, size, channels

    return Source(
        load=load,
        input_shape=input_shape,
        network=_image_network(head),
        classification=True,
        print_every=100,
        validate_every=500,
        reads=('train_on', 'train_way_from', *reads),
        **kwargs,
    )


def _of_size(side, name):
    """Checks --image_size of a set whose images have one size."""

    def check(flags):
        if flags.image_size not in (None, side):
            raise UserError(f'--image_size={flags.image_size}: {name} has {side}x{side} images')

    return check


# The loaders import what they need when they are called: TFDS takes seconds and defines flags.


def _miniimagenet(flags):
    from maml_tf.datasets.miniimagenet import miniimagenet

    _of_size(84, 'miniImageNet')(flags)
    return miniimagenet(flags.data_dir, flags.manual_dir)


def _tieredimagenet(flags):
    from maml_tf.datasets.tieredimagenet import tieredimagenet

    _of_size(84, 'tieredImageNet')(flags)
    return tieredimagenet(flags.data_dir, flags.manual_dir)


def _cifar_fs(flags):
    from maml_tf.datasets.cifar import cifar_fs

    _of_size(32, 'CIFAR-FS')(flags)
    return cifar_fs(flags.data_dir)


def _fc100(flags):
    from maml_tf.datasets.cifar import fc100

    _of_size(32, 'FC100')(flags)
    return fc100(flags.data_dir)


def _cub(flags):
    from maml_tf.datasets.cub import cub

    names = ('cub', 'cub_meta_dataset')
    split = flags.class_split or names[0]
    if split not in names:
        raise UserError(f'--class_split={split}: CUB has {" and ".join(names)}')
    return cub(flags.data_dir, flags.image_size or 84, split)


def _directory(flags):
    from maml_tf.datasets.directory import directory

    training, evaluation = episode_spec(flags, training=True), episode_spec(flags)
    val = max if flags.train_on == 'trainval' else lambda trained, evaluated: evaluated
    by_split = lambda size: {
        'train': size(training),
        'val': val(size(training), size(evaluation)),
        'test': size(evaluation),
    }
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

    return ImageCompletion(
        celeba(flags.data_dir, flags.image_size or 32), flags.query_contains_support
    )


def _family(name):
    return _regression(
        lambda flags: getattr(function_families, name)(flags.dimension),
        lambda flags: flags.dimension,
        reads=('dimension',),
    )


def _sinusoid(frequency):
    parameters = 2 if frequency is None else 3
    return _regression(
        lambda flags: Sinusoid(flags.baseline == 'oracle', frequency),
        lambda flags: 1 + parameters * (flags.baseline == 'oracle'),
    )


SOURCES = {
    'sinusoid': _sinusoid(None),
    'sinusoid_frequency': _sinusoid((0.8, 1.2)),
    'gaussian_process': _regression(
        lambda flags: GaussianProcess(flags.query_contains_support),
        lambda flags: 1,
        reads=('query_contains_support',),
    ),
    'linear': _family('Linear'),
    'sparse_linear': _family('SparseLinear'),
    'decision_tree': _family('DecisionTree'),
    'two_layer_network': _family('TwoLayerNetwork'),
    'celeba': _regression(
        _celeba, lambda flags: 2, output_dim=3, reads=('image_size', 'query_contains_support')
    ),
    'directory': _images(_directory, 84, iterations_per_call=1, reads=('image_size', 'split_file')),
    'miniimagenet': _images(
        _miniimagenet,
        84,
        iterations_per_call=1,
        train_query=15,
        clip=10.0,
        reads=('manual_dir', 'image_size'),
    ),
    'tieredimagenet': _images(
        _tieredimagenet,
        84,
        iterations_per_call=1,
        train_query=15,
        reads=('manual_dir', 'image_size', 'within_groups'),
    ),
    'cifar_fs': _images(
        _cifar_fs, 32, iterations_per_call=5, train_query=15, reads=('image_size', 'within_groups')
    ),
    'fc100': _images(
        _fc100, 32, iterations_per_call=5, train_query=15, reads=('image_size', 'within_groups')
    ),
    'cub': _images(
        _cub, 84, iterations_per_call=1, train_query=15, reads=('image_size', 'class_split')
    ),
    'omniglot': _images(
        lambda flags: omniglot.omniglot(flags.data_dir, omniglot.from_flags(flags)),
        28,
        channels=1,
        head='mean',
        iterations_per_call=5,
        inputs=omniglot.inputs,
        reads=(
            'image_size',
            'class_split',
            'rotations',
            'test_rotations',
            'ink',
            'resize',
            'within_groups',
        ),
    ),
}


def check_flags(flags):
    """Raises UserError for a flag that is set and means nothing to the data source."""
    for name in OF_SOME_SOURCES:
        if flags[name].value != flags[name].default and name not in SOURCES[flags.datasource].reads:
            those = [source for source, row in SOURCES.items() if name in row.reads]
            raise UserError(
                f'--{name}={flags[name].value}: means nothing to --datasource={flags.datasource}, '
                'only to '
                f'{", ".join(those)}'
            )
    if flags.leave_to_query and flags.train_shot_from is None:
        raise UserError(
            '--leave_to_query: only with --train_shot_from, where tasks differ in their shots'
        )


def episode_spec(flags, training=False):
    """Way, shot and query that the command line asks for.

    The reference queries as many examples as it adapts to, also where training uses more (15 on
    miniImageNet).
    """
    source = SOURCES[flags.datasource]
    way, shot, query = flags.num_classes, flags.update_batch_size, flags.test_query
    ranges = {}
    if training:
        way = flags.train_num_classes or way
        shot = train_update_batch_size(flags)
        query = flags.train_query or source.train_query
        ranges = {
            'least_way': flags.train_way_from,
            'least_shot': flags.train_shot_from,
            'leave_to_query': flags.leave_to_query,
        }
    return EpisodeSpec(
        way=way if source.classification else 1,
        shot=shot,
        query=query or shot,
        within_groups=flags.within_groups,
        **ranges,
    )


def define_flags(flags):
    """Flags of the data."""
    flags.DEFINE_enum('datasource', 'sinusoid', list(SOURCES), 'where the tasks come from')
    flags.DEFINE_string(
        'data_dir',
        None,
        'TensorFlow Datasets directory with the prepared data (default: '
        "TFDS's own, where what can be downloaded is); --datasource=directory: your folder of "
        'class '
        'folders',
    )
    flags.DEFINE_string(
        'split_file',
        None,
        'directory: csv file with the columns class and split (train, val, test) '
        '(default: by the names of the classes, always alike)',
    )
    flags.DEFINE_string(
        'manual_dir',
        None,
        'folder with the raw files of a set that cannot be downloaded, prepared '
        'once into --data_dir (default: downloads/manual in it)',
    )
    flags.DEFINE_integer(
        'image_size', None, 'side of the images in pixels (default: by data source)', lower_bound=1
    )
    flags.DEFINE_string(
        'class_split',
        None,
        'which published split into classes: omniglot cbfinn, vinyals or lake '
        '(default cbfinn); cub cub or cub_meta_dataset (default cub)',
    )
    flags.DEFINE_integer(
        'num_classes', 5, 'number of classes in classification (5 for 5-way)', lower_bound=2
    )
    flags.DEFINE_integer(
        'update_batch_size',
        5,
        'number of examples per class in the inner gradient update (K for K-shot learning)',
        lower_bound=1,
    )
    flags.DEFINE_integer(
        'test_query',
        None,
        'queries per class in validation and test (default: as many as '
        '--update_batch_size, as the reference)',
        lower_bound=1,
    )
    flags.DEFINE_integer(
        'train_num_classes',
        None,
        'number of classes in training, where evaluation differs',
        lower_bound=2,
    )
    flags.DEFINE_integer(
        'train_query',
        None,
        'queries per class in training (default: by data source; sinusoid and '
        'omniglot: as many as the shots)',
        lower_bound=1,
    )
    flags.DEFINE_enum(
        'train_on',
        'train',
        ['train', 'trainval'],
        'trainval: the validation classes too, for a '
        'last run whose settings are chosen (Snell et al. 2017)',
    )
    flags.DEFINE_integer(
        'train_way_from',
        None,
        'draw the way of each training task, from this to the way',
        lower_bound=2,
    )
    flags.DEFINE_integer(
        'train_shot_from',
        None,
        'draw the shots of each training task, from this to the shots',
        lower_bound=1,
    )
    flags.DEFINE_bool(
        'leave_to_query', False, 'a training task that drew fewer shots queries the others'
    )
    flags.DEFINE_bool(
        'within_groups',
        False,
        'all classes of a task from one group: an alphabet, a super-category',
    )
    flags.DEFINE_integer(
        'dimension',
        20,
        'dimension of x in the function families (linear ... two_layer_network)',
        lower_bound=1,
    )
    flags.DEFINE_bool(
        'query_contains_support',
        False,
        'gaussian_process, celeba: the support points are queried too',
    )
    flags.DEFINE_enum(
        'baseline',
        None,
        ['oracle'],
        "oracle: the sinusoid's amplitude and phase are given as input, "
        'and all iterations are pretraining',
    )
    omniglot.define_flags(flags)
