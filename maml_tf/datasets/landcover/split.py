"""Which regions are trained, validated and tested on.

Imports no TensorFlow.
"""

import pathlib
from collections.abc import Collection

from maml_tf.datasets.raw.folder_split import read_split_file, split_by_name
from maml_tf.datasets.raw.listing import SPLITS
from maml_tf.errors import ArgumentError
from maml_tf.terminal.text import counted

SHARES = {'val': 0.2, 'test': 0.2}  # of the regions, one at least; the rest is trained on


def split_regions(
    names: Collection[str], split_file: str | pathlib.Path | None = None
) -> dict[str, list[str]]:
    """Returns {'train', 'val', 'test': names of regions, sorted}.

    split_file: csv with the columns region and split, see folder_split.read_split_file; None: by
      the names, always alike, see folder_split.split_by_name.
    Raises: ArgumentError where the file is wrong, or there are fewer than three regions.
    """
    if split_file:
        of_region = read_split_file(split_file, names, 'region')
    elif len(names) < len(SPLITS):
        reason = (
            f'{counted(len(names), "region")}; to train, validate and test on different ones takes '
            f'{len(SPLITS)}'
        )
        raise ArgumentError('data_dir', None, reason)
    else:
        of_region = split_by_name(names, SHARES, least=1)
    return {split: sorted(n for n in names if of_region[n] == split) for split in SPLITS}
