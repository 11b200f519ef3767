"""Sets that TensorFlow Datasets knows and downloads by itself."""

import functools
import importlib.util
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from maml_tf.errors import ArgumentError, UserError
from maml_tf.serialisation.files import check_is_file
from maml_tf.serialisation.tensorflow_errors import reason
from maml_tf.terminal.text import described

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

Result = TypeVar('Result')


def prepared(
    name: str,
    data_dir: str | pathlib.Path | None,
    title: str,
    needs: tuple[str, str] | None = None,
) -> 'tfds.core.DatasetBuilder':
    """Returns the TFDS builder of the set `name`, prepared.

    Args:
      data_dir: the TensorFlow Datasets directory that holds it; None: TFDS's own, downloaded to
        where it is missing.
      title: what the set is called in messages.
      needs: (module, package) without which TFDS cannot prepare this set, and which it does not
        bring along.
    Raises:
      ArgumentError: `data_dir` holds no prepared set.
      UserError: it cannot be downloaded, what is prepared is damaged, or the package that
        preparing needs is missing.
    """
    import tensorflow_datasets as tfds

    directory = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser() / name
    # A version's description is read here where there is one.
    builder = whole(directory, title, tfds.builder)(name, data_dir=data_dir)
    if builder.is_prepared():
        return builder
    lacking = needs is not None and importlib.util.find_spec(needs[0]) is None
    # With a wrong directory TFDS would retry a download for minutes and leave debris in it.
    if data_dir is not None:
        install = f'pip install {needs[1]} && ' if lacking else ''
        raise ArgumentError(
            'data_dir',
            data_dir,
            f'no prepared {title}, looked for {pathlib.Path(builder.data_path)}. Get it with  '
            f'{install}python -c "import tensorflow_datasets as tfds; tfds.load(\'{name}\')"  on a '
            'machine with network access, and name the directory it reports',
        )
    if lacking:
        raise UserError(
            f'{title} is not prepared in {pathlib.Path(builder.data_path)}, and preparing it needs '
            f'{needs[1]}: pip install {needs[1]}'
        )
    try:
        builder.download_and_prepare()
    except Exception as error:  # TFDS's own kinds of errors, and those of the network
        raise UserError(
            f'{title} could not be downloaded and prepared ({described(error)[:300]}). Try again, '
            'or name a data_dir that holds it prepared'
        ) from error
    return builder


def whole(
    directory: str | pathlib.Path, title: str, read: Callable[..., Result]
) -> Callable[..., Result]:
    """Returns the function `read` of prepared files, which says where they are not whole.

    Whatever it raises, if it is no UserError, becomes a UserError that names the directory.
    """

    @functools.wraps(read)
    def reading(*args, **kwargs):
        try:
            for path in pathlib.Path(directory).rglob('*'):
                if not path.is_dir():
                    check_is_file(path)
            return read(*args, **kwargs)
        except UserError:
            raise
        except Exception as error:  # TensorFlow's, TFDS's and those of a broken description
            why = f'{type(error).__name__}: {reason(error)}'[:200]
            raise UserError(
                f'{directory}: the prepared {title} is damaged ({why}); remove this directory and '
                'prepare it anew'
            ) from error

    return reading


def check_records(builder: 'tfds.core.DatasetBuilder', splits: Sequence[str]) -> None:
    """Raises ValueError where files hold fewer examples than their description says.

    A file that ends between two of them looks whole to TensorFlow.
    """
    import tensorflow as tf

    for split in splits:
        info = builder.info.splits[split]
        records = tf.data.TFRecordDataset([str(path) for path in info.filepaths])
        check_count(int(records.reduce(0, lambda count, _: count + 1)), info.num_examples)


def check_count(found: int, expected: int) -> None:
    """Raises ValueError where prepared files hold fewer examples than their description says."""
    if found != expected:
        raise ValueError(f'{found} of {expected} examples are there')
