"""Sets that TensorFlow Datasets knows and downloads by itself."""

import importlib.util
import pathlib
from typing import TYPE_CHECKING

from maml_tf.errors import ArgumentError, UserError
from maml_tf.terminal.text import described

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


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
      UserError: it cannot be downloaded, or the package that preparing needs is missing.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
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
