"""A SavedModel as a directory that is whole, with its description and its card beside the model."""

import contextlib
import hashlib
import json
import os
import pathlib
import platform
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from maml_tf.errors import UserError
from maml_tf.saving.exports import model_card
from maml_tf.serialisation.files import check_new
from maml_tf.serialisation.tensorflow_errors import is_of_files, reason

DESCRIPTION = 'maml_tf.json'
CARD = 'MODEL_CARD.md'


@contextlib.contextmanager
def new_saved_model(
    path: pathlib.Path | str, description: Mapping[str, Any]
) -> Iterator[pathlib.Path]:
    """Gives a directory to write a SavedModel to, and renames it to `path` when the block is done.

    Beside the model stand maml_tf.json, which has `description`, the versions that it was written
    by and the SHA-256 of every file, and MODEL_CARD.md, which says the same to people. Where the
    block raises, nothing is left of what it wrote.

    Args:
      description: {name: JSON value}; what the card shows of it: see model_card.py.
    Raises:
      ArgumentError: `path` exists.
      UserError: the files cannot be written.
    """
    path = pathlib.Path(path)
    check_new(path)
    scratch = path.with_name(f'.{path.name}.writing')
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        yield scratch
        content = {**description, 'versions': versions(), 'sha256': _checksums(scratch)}
        text = json.dumps(content, indent=1) + '\n'
        (scratch / DESCRIPTION).write_text(text, encoding='utf-8')
        card = model_card.text(path.name, content)
        # Names of classes and photos may be no text.
        (scratch / CARD).write_text(card, encoding='utf-8', errors='backslashreplace')
        os.replace(scratch, path)
    except Exception as error:
        if is_of_files(error):
            message = f'{path}: the SavedModel could not be written ({reason(error)})'
            raise UserError(message) from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def versions() -> dict[str, str]:
    """Returns {name: version} of what computes here."""
    from maml_tf import __version__  # The package loads its names when they are first used.

    return {
        'maml_tf': __version__,
        'tensorflow': tf.__version__,
        'keras': keras.__version__,
        'numpy': np.__version__,
        'python': platform.python_version(),
    }


def _checksums(directory: pathlib.Path) -> dict[str, str]:
    """Returns {path from the directory on: SHA-256} of every file in it."""
    files = sorted(path for path in directory.rglob('*') if path.is_file())
    sums = {}
    for path in files:
        with open(path, 'rb') as file:
            digest = hashlib.file_digest(file, 'sha256').hexdigest()
        sums[path.relative_to(directory).as_posix()] = digest
    return sums
