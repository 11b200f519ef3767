"""Which assays are trained and tested on, where no file says it."""

from collections.abc import Sequence

from maml_tf.errors import ArgumentError

SHARE = 3 / 4  # of the assays are trained on, where nothing else is said


def split_by_order(assays: Sequence[str], train: int | None = None) -> dict[str, str]:
    """Returns {assay: split}: the first `train` assays are trained on, the others tested on.

    train: None: three quarters of them, rounded, about the share of the published splits.
    Raises: ArgumentError, of `data_dir`, where one of the two would have none.
    """
    if train is None:
        train = min(max(round(SHARE * len(assays)), 1), len(assays) - 1)
    if not 0 < train < len(assays):
        needed = max(train, 1) + 1
        reason = f'the table has {len(assays)} assays; to train and to test takes {needed} or more'
        raise ArgumentError('data_dir', None, reason)
    return {assay: 'train' if i < train else 'test' for i, assay in enumerate(assays)}
