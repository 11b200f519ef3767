"""Sets that TensorFlow Datasets knows and downloads by itself."""

import importlib.util
import pathlib

from maml_tf.errors import UserError


def prepared(name, data_dir, title, needs=None):
    """The TFDS builder of the set `name`, prepared.

    Args:
      data_dir: the TensorFlow Datasets directory that holds it; None: TFDS's own, downloaded to
        where it is missing.
      title: what the set is called in messages.
      needs: (module, package) without which TFDS cannot prepare this set, and which it does not
        bring along.
    Raises:
      UserError: `data_dir` holds no prepared set, or the package that preparing needs is missing.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    if builder.is_prepared():
        return builder
    lacking = needs and importlib.util.find_spec(needs[0]) is None
    install = f'pip install {needs[1]} && ' if lacking else ''
    # With a wrong directory TFDS would retry a download for minutes and leave debris in it.
    if data_dir is not None:
        raise UserError(
            f'--data_dir={data_dir}: no prepared {title}, looked for '
            f'{pathlib.Path(builder.data_path)}. '
            f'Get it with  {install}python -c "import tensorflow_datasets as tfds; '
            f"tfds.load('{name}')\"  on a "
            'machine with network access, and name the directory it reports'
        )
    if lacking:
        raise UserError(
            f'{title} is not prepared in {pathlib.Path(builder.data_path)}, and preparing it needs '
            f'{needs[1]}: pip install {needs[1]}'
        )
    try:
        builder.download_and_prepare()
    except Exception as error:  # TFDS's own kinds of errors, and those of the network
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())
        raise UserError(
            f'{title} could not be downloaded and prepared ({reason[:300]}). Try again, or name a '
            'directory that holds it prepared: --data_dir'
        ) from error
    return builder
