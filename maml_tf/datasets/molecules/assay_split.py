"""Which assays are trained, validated and tested on."""

import csv
import pathlib
from collections.abc import Sequence

from maml_tf.errors import ArgumentError
from maml_tf.serialisation.files import check_is_file
from maml_tf.terminal.text import shortened, shown

SPLITS = ('train', 'val', 'test')
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


def read_assay_split(path: str | pathlib.Path, assays: Sequence[str]) -> dict[str, str]:
    """Reads {assay: split} from a csv file in UTF-8 that names each of the assays once.

    For example

        assay,split
        NR-AR,train
        SR-p53,test

    The splits are train, val and test.

    Raises: ArgumentError, of `split_file`, that names the line.
    """
    wrong = lambda reason: ArgumentError('split_file', shown(path), reason)
    try:
        file = pathlib.Path(path).expanduser()
        check_is_file(file)
        lines = file.read_text('utf-8-sig').splitlines() or ['']
        delimiter = ';' if ';' in lines[0] else ','
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except OSError as error:
        raise wrong(error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise wrong('not in UTF-8; a spreadsheet offers it as "CSV UTF-8"') from error
    except csv.Error as error:
        raise wrong(f'no csv file ({error})') from None
    if not rows or rows[0][1] != ['assay', 'split']:
        raise wrong(f'the first line is {shortened(repr(lines[0]))}; it should be assay,split')
    of_assay = {}
    for number, cells in rows[1:]:
        if not any(cells):
            continue
        if len(cells) != 2:
            raise wrong(f'line {number} has {len(cells)} columns instead of assay,split')
        assay, split = cells
        if assay not in assays:
            raise wrong(f'line {number}: there is no assay {shortened(assay)}')
        if assay in of_assay:
            raise wrong(f'line {number}: assay {shortened(assay)} is there twice')
        if split not in SPLITS:
            raise wrong(
                f'line {number}: {shortened(repr(split))} is no split, only train, val and test'
            )
        of_assay[assay] = split
    if missing := [assay for assay in assays if assay not in of_assay]:
        reason = f'assay {shortened(missing[0])} is missing, {len(missing)} of {len(assays)} are'
        raise wrong(reason)
    return of_assay
