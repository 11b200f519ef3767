"""Which regions are trained, validated and tested on.

Imports no TensorFlow.
"""

import csv
import hashlib
import pathlib
from collections.abc import Collection, Iterable

from maml_tf.datasets.raw.listing import SPLITS, composed
from maml_tf.errors import ArgumentError
from maml_tf.serialisation.files import check_is_file
from maml_tf.terminal.text import described, shortened, shown

SHARES = {'val': 0.2, 'test': 0.2}  # of the regions, one at least; the rest is trained on


def split_regions(
    names: Collection[str], split_file: str | pathlib.Path | None = None
) -> dict[str, list[str]]:
    """Returns {'train', 'val', 'test': names of regions, sorted}.

    split_file: see read_split_file; None: in the order of the SHA-256 of their names, always alike.
    Raises: ArgumentError where the file is wrong, or a split would have no region.
    """
    of_region = read_split_file(split_file, names) if split_file else split_by_name(names)
    return {split: sorted(n for n in names if of_region[n] == split) for split in SPLITS}


def split_by_name(names: Iterable[str]) -> dict[str, str]:
    """Returns {region: split}, about 60 / 20 / 20 %. Raises: ArgumentError for fewer than three."""
    key = lambda name: hashlib.sha256(name.encode('utf-8', 'surrogatepass')).digest()
    order = sorted(names, key=key)
    if len(order) < len(SPLITS):
        reason = f'{len(order)} regions: to train, validate and test on different ones takes 3'
        raise ArgumentError('data_dir', None, reason)
    splits = []
    for split, share in SHARES.items():
        splits += [split] * max(1, round(share * len(order)))
    return dict(zip(order, splits + ['train'] * (len(order) - len(splits)), strict=True))


def read_split_file(
    path: str | pathlib.Path, names: Collection[str], noun: str = 'region'
) -> dict[str, str]:
    """Reads {region: split} from a csv file in UTF-8 with the columns region and split.

    Each of `names` stands in it once; the splits are train, val and test.

    Raises: ArgumentError, of `split_file`, that names the line.
    """
    wrong = lambda reason: ArgumentError('split_file', shown(path), reason)
    try:
        path = pathlib.Path(path).expanduser()
        check_is_file(path)
        text = path.read_text('utf-8-sig')
        header, *rows = [*csv.reader(text.splitlines())] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise wrong(f'no csv file in UTF-8 ({described(error)})') from error
    if [cell.strip() for cell in header] != [noun, 'split']:
        title = shortened(','.join(header))
        raise wrong(f'the first line is {title!r}; it should be {noun},split')
    found: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        cells = [composed(cell.strip()) for cell in row]
        if not any(cells):
            continue
        if len(cells) != 2:
            raise wrong(f'line {number} has {len(cells)} columns instead of {noun},split')
        name, split = cells
        if name not in names:
            raise wrong(f'line {number}: there is no {noun} {shortened(name)}')
        if name in found:
            raise wrong(f'line {number}: {noun} {shown(name)} is there twice')
        if split not in SPLITS:
            raise wrong(
                f'line {number}: {shortened(repr(split))} is no split, only train, val and test'
            )
        found[name] = split
    if missing := [name for name in names if name not in found]:
        raise wrong(f'{noun} {shown(missing[0])} is missing, {len(missing)} of {len(names)} are')
    return found
