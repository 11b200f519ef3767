"""The rows of regression: functions that are computed, and the completion of images."""

from maml_tf.datasets.functions import channel_coding, function_families, prompt_shifts
from maml_tf.datasets.functions.gaussian_process import GaussianProcess
from maml_tf.datasets.functions.sinusoid import Sinusoid
from maml_tf.datasets.rows.networks import dense_network
from maml_tf.datasets.source import Source
from maml_tf.objectives.regression import Regression


def _regression(load, input_dim, output_dim=1, hidden=(40, 40), **kwargs) -> Source:
    return Source(
        load=load,
        input_shape=lambda flags: (input_dim(flags),),
        network=dense_network(hidden),
        objective=Regression(),
        output_dim=output_dim,
        print_every=1000,
        iterations_per_call=200,
        inputs=lambda flags: 'x',
        **kwargs,
    )


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


def _celeba(flags):
    from maml_tf.datasets.celeba import celeba
    from maml_tf.episodes.image_completion import ImageCompletion

    images = celeba(flags.data_dir, flags.image_size or 32)
    return ImageCompletion(images, flags.query_contains_support, flags.test_query_contains_support)


def _decoder(flags, input_shape, output_dim, **changes):
    # The authors' is four convolutions over the 10 places of a word, which start by Xavier's
    # (Glorot's) distribution; ours is dense.
    return dense_network((128, 128))(
        flags, input_shape, output_dim, **{'start': 'glorot', **changes}
    )


_CONTAINS_SUPPORT = ('query_contains_support', 'test_query_contains_support')

ROWS = {
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
    'channel_coding': Source(
        load=channel_coding.from_flags,
        input_shape=lambda flags: channel_coding.ChannelCoding.input_shape,
        network=_decoder,
        objective=channel_coding.ChannelCoding.objective,
        output_dim=channel_coding.LENGTH,
        print_every=500,
        iterations_per_call=100,
        inputs=lambda flags: 'the 20 received symbols of a word, the two of each bit side by side',
        reads=channel_coding.FLAGS,
    ),
    'celeba': _regression(
        _celeba,
        lambda flags: 2,
        output_dim=3,
        licence='non-commercial research; images not to be passed on (the agreement of CelebA)',
        hidden=(128,) * 5,  # Zintgraf et al. 2019, of MAML and CAVIA alike
        reads=('data_dir', 'image_size', *_CONTAINS_SUPPORT),
    ),
}
