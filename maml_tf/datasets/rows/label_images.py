"""The rows of tiles with label images."""

from collections.abc import Callable
from typing import Any

from maml_tf.datasets.landcover.bands import BANDS
from maml_tf.datasets.source import Source
from maml_tf.episodes.source import EpisodeSource
from maml_tf.errors import ArgumentError
from maml_tf.networks.flags import product_dtype
from maml_tf.networks.network import Network
from maml_tf.networks.unet import DEPTH, UNet
from maml_tf.objectives.pixels import Segmentation

# What can adapt a network whose outputs are images; the others compare or read whole embeddings.
ALGORITHMS = ('anil', 'fine_tuning', 'from_scratch', 'maml', 'meta_sgd', 'reptile')
SIDE = 64


def unet(flags, input_shape: tuple[int, int, int], output_dim: int, **changes: Any) -> Network:
    """Makes the U-Net that the flags describe."""
    of_vectors = ('head', 'pool_padding', 'film')
    changes = {name: value for name, value in changes.items() if name not in of_vectors}
    dtype = product_dtype(flags)
    return UNet(
        input_shape,
        output_dim,
        flags.num_filters,
        norm=flags.norm,
        product_dtype=dtype,
        **changes,
    )


def label_images(
    load: Callable[[Any], EpisodeSource],
    bands: Callable[[Any], int],
    inputs: Callable[[Any], str],
    reads: tuple[str, ...] = (),
    **kwargs: Any,
) -> Source:
    """Returns a row of tiles; bands: flags -> how many there are. reads: besides those of all.

    Its input_shape raises ArgumentError for a side that the network cannot halve so often.
    """

    def input_shape(flags):
        side = flags.image_size or SIDE
        if side % 2**DEPTH:
            reason = f'the network halves tiles {DEPTH} times; a multiple of {2**DEPTH}'
            raise ArgumentError('image_size', side, reason)
        return side, side, bands(flags)

    return Source(
        load=load,
        input_shape=input_shape,
        network=unet,
        objective=Segmentation(),
        print_every=100,
        iterations_per_call=1,
        validate_every=500,
        inputs=inputs,
        reads=(
            *('data_dir', 'split_file', 'image_size', 'num_classes', 'num_filters', 'train_on'),
            *('write_tasks', *reads),
        ),
        algorithms=ALGORITHMS,
        foreign=('encoder', 'dropout', 'augment'),
        **kwargs,
    )


def _sen12ms(flags):
    from maml_tf.datasets.landcover.sen12ms import sen12ms

    return sen12ms(flags.data_dir, flags.image_size or SIDE, flags.bands, flags.split_file)


def _deepglobe(flags):
    from maml_tf.datasets.landcover.deepglobe import deepglobe

    return deepglobe(flags.data_dir, flags.image_size or SIDE, flags.split_file)


def _label_images(flags):
    from maml_tf.datasets.landcover.folder import label_images as of_folder

    return of_folder(flags.data_dir, flags.image_size or SIDE, flags.bands, flags.split_file)


_OF_SENTINEL = (
    'tiles, Sentinel-2 reflectance from 0 to 1 (1 is 10,000 in the files){radar}; bands: {bands}'
)


def _inputs_of_bands(flags):
    radar = ', Sentinel-1 from -25 dB (0) to 0 dB (1)' if flags.bands == 's1s2' else ''
    names = {'rgb': 'B4, B3, B2', 's2': 'all 13', 's1s2': 'all 13, then VV and VH'}
    return _OF_SENTINEL.format(radar=radar, bands=names[flags.bands])


ROWS = {
    'deepglobe': label_images(
        _deepglobe,
        lambda flags: 3,
        lambda flags: 'tiles of 100 m, red, green and blue, pixels from 0 to 1',
        licence="the challenge's terms; cite Demir et al. 2018",
    ),
    'label_images': label_images(
        _label_images,
        lambda flags: BANDS[flags.bands],
        lambda flags: 'tiles, pixels from 0 to 1 as maml_tf/datasets/landcover/bands.py says',
        reads=('bands',),
        licence="your own folder's",
    ),
    'sen12ms': label_images(
        _sen12ms,
        lambda flags: BANDS[flags.bands],
        _inputs_of_bands,
        reads=('bands',),
        licence='as its page at mediaTUM (Munich) says; cite Schmitt et al. 2019',
    ),
}
