"""Bands of satellite images: which are taken, and what becomes of their values.

Every value becomes a number from 0 to 1, kept as a whole number from 0 to TOP:

- Sentinel-2 (13 bands, reflectance times 10,000): divided by 10,000, cut off at 1.
- Sentinel-1 (VV and VH, decibels): -25 dB becomes 0 and 0 dB becomes 1, what is outside is cut off.
  A pixel without a value is 0.
- Pictures of 8 bits are divided by 255.

The scales of Sentinel-1 and -2 are this package's choice.

Imports no TensorFlow.
"""

import numpy as np

from maml_tf.episodes.segmentation.values import TOP_OF_WORD as TOP
from maml_tf.errors import UserError

HIGHEST = 2  # of reflectances from 0 to 1
DECIBELS = (-25.0, 0.0)
OF_S2, OF_S1 = 13, 2
# How many bands a choice of --bands has.
BANDS = {'rgb': 3, 's2': OF_S2, 's1s2': OF_S2 + OF_S1}
RED_GREEN_BLUE = (3, 2, 1)  # B4, B3, B2 of Sentinel-2's 13 bands


def of_s2(values: np.ndarray, bands: str = 's2') -> np.ndarray:
    """Returns uint16 from 0 to TOP of reflectances times 10,000 [height, width, 13]."""
    if bands == 'rgb':
        values = values[..., RED_GREEN_BLUE]
    return np.clip(np.nan_to_num(values), 0, TOP).astype(np.uint16)


def of_s1(values: np.ndarray) -> np.ndarray:
    """Returns uint16 from 0 to TOP of decibels [height, width, 2]."""
    low, high = DECIBELS
    shares = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / (high - low)
    return np.round(np.clip(shares, 0, 1) * TOP).astype(np.uint16)


def of_file(values: np.ndarray, bands: str) -> np.ndarray:
    """Returns uint16 from 0 to TOP of an image [height, width, channels] of any kind.

    Images of 8 bits are pictures; of 13 bands Sentinel-2's; of 15 bands these, and then decibels of
    Sentinel-1. Three bands of more bits are reflectances times 10,000.

    bands: which to take, one of BANDS.
    Raises: UserError for a number of bands that `bands` cannot be taken from, and values that are
      no reflectances times 10,000.
    """
    channels = values.shape[-1]
    _check_scale(values)
    if values.dtype == np.uint8 and bands == 'rgb' and channels == 3:
        return (values.astype(np.uint32) * TOP // 255).astype(np.uint16)
    if channels == BANDS['s1s2'] and bands == 's1s2':
        return np.concatenate([of_s2(values[..., :OF_S2]), of_s1(values[..., OF_S2:])], -1)
    if channels in (OF_S2, BANDS['s1s2']) and bands != 's1s2':
        return of_s2(values[..., :OF_S2], bands)
    if channels == BANDS['rgb'] == BANDS[bands]:
        return of_s2(values)
    raise UserError(f'{channels} bands, and {bands} takes {BANDS[bands]}')


def _check_scale(values):
    """Raises UserError where an image would silently become black, or nearly so."""
    optical = values[..., :OF_S2]
    if values.shape[-1] in (OF_S2, BANDS['s1s2']) and values.dtype.itemsize == 1:
        raise UserError('8 bits; bands of Sentinel-2 are reflectances times 10,000, of 16 bits')
    # A few reflectances are above 1. What is 0 all over shows nothing.
    if values.dtype.kind == 'f' and 0 < (most := np.nan_to_num(optical).max()) <= HIGHEST:
        raise UserError(f'values up to {most:.3g}; reflectances from 0 to 1? multiply by 10,000')


def reduced(values: np.ndarray, side: int) -> np.ndarray:
    """Returns [side, side, bands] of uint16 [height, width, bands]: the means of blocks, rounded.

    side: divides height and width, which are alike.
    """
    height, width, bands = values.shape
    if height == side:
        return values
    blocks = values.reshape(side, height // side, side, width // side, bands)
    return np.round(blocks.mean((1, 3))).astype(values.dtype)


def reduced_labels(labels: np.ndarray, side: int) -> np.ndarray:
    """Returns [side, side] of labels [height, width]: that of each block's central pixel."""
    step = labels.shape[0] // side
    return labels[step // 2 :: step, step // 2 :: step]


def define_flags(flags) -> None:
    """Defines the flag of the bands."""
    flags.DEFINE_enum(
        'bands',
        'rgb',
        list(BANDS),
        'sen12ms, label_images: bands of a tile, red, green and blue, all 13 of Sentinel-2 (s2), '
        'or these and the 2 of Sentinel-1 (s1s2)',
    )
