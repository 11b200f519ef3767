"""The table of data sources: how each is loaded, and what it needs where a flag leaves it open."""
import dataclasses
from typing import Any, Callable

from maml_tf.episodes.omniglot import omniglot
from maml_tf.episodes.sinusoid import Sinusoid
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.networks import ConvNet, FullyConnected


@dataclasses.dataclass(frozen=True)
class Source:
    """One row of the table; the defaults are the reference's."""
    load: Callable[[Any], Any]  # flags -> an object with `tasks(split, spec, seed)`, `objective`, `input_shape`
    network: Callable[[Any, Any, int], Any]  # (flags, loaded source, output_dim) -> network
    classification: bool
    print_every: int  # iterations between lines on the screen
    iterations_per_call: int  # small enough for a lively progress bar, large enough to hide Python
    validate_every: int | None = None  # None: endless tasks, nothing to overfit
    eval_steps: int = 10
    train_query: int | None = None  # query examples per class in training; None: as many as support examples
    clip: float | None = None  # bound of every entry of the meta-gradient
    inputs: str = 'images, pixels from 0 to 1'  # what an exported model is to be fed


def _image_network(head):
    def network(flags, source, output_dim):
        if flags.conv:
            return ConvNet(source.input_shape, output_dim, flags.num_filters, flags.norm, flags.max_pool, head)
        return FullyConnected(source.input_shape, output_dim, (256, 128, 64, 64), flags.norm)
    return network


def _miniimagenet(flags):
    from maml_tf.episodes.miniimagenet import miniimagenet  # Imports TFDS, which takes seconds and defines a flag.
    return miniimagenet(flags.data_dir, flags.manual_dir)


SOURCES = {
    'sinusoid': Source(
        load=lambda flags: Sinusoid(oracle=flags.baseline == 'oracle'),
        network=lambda flags, source, output_dim: FullyConnected(source.input_shape, output_dim, (40, 40), flags.norm),
        classification=False, print_every=1000, iterations_per_call=200, inputs='x'),
    'miniimagenet': Source(
        load=_miniimagenet, network=_image_network('flatten'), classification=True, print_every=100,
        iterations_per_call=1, validate_every=500, train_query=15, clip=10.),
    'omniglot': Source(
        load=lambda flags: omniglot(flags.data_dir), network=_image_network('mean'),
        classification=True, print_every=100, iterations_per_call=5, validate_every=500,
        inputs='28x28 images, ink 1 on background 0'),
}


def episode_spec(flags, training=False):
    """Way, shot and query that the command line asks for.

    The reference queries as many examples as it adapts to, also where training uses more (15 on miniImageNet).
    """
    source = SOURCES[flags.datasource]
    query = training and source.train_query or flags.update_batch_size
    return EpisodeSpec(way=flags.num_classes if source.classification else 1, shot=flags.update_batch_size, query=query)


def define_flags(flags):
    """Flags of the data."""
    flags.DEFINE_enum('datasource', 'sinusoid', list(SOURCES), 'where the tasks come from')
    flags.DEFINE_string('data_dir', None, 'TensorFlow Datasets directory with the prepared data (default: '
                        "TFDS's own); Omniglot is downloaded to it where it is missing, miniImageNet needs "
                        '--manual_dir')
    flags.DEFINE_string('manual_dir', None, 'folder with the raw files of a set that cannot be downloaded, prepared '
                        'once into --data_dir (default: downloads/manual in it)')
    flags.DEFINE_integer('num_classes', 5, 'number of classes in classification (5 for 5-way)', lower_bound=2)
    flags.DEFINE_integer('update_batch_size', 5, 'number of examples per class in the inner gradient update (K for '
                         'K-shot learning); as many are held back as queries', lower_bound=1)
    flags.DEFINE_enum('baseline', None, ['oracle'], 'oracle: the sinusoid\'s amplitude and phase are given as input, '
                      'and all iterations are pretraining')
