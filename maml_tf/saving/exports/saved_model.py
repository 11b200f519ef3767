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
from maml_tf.serialisation.files import check_is_file, check_new
from maml_tf.serialisation.tensorflow_errors import cause_of_files, reason

DESCRIPTION = 'maml_tf.json'
CARD = 'MODEL_CARD.md'


@contextlib.contextmanager
def new_saved_model(
    path: pathlib.Path | str, description: Mapping[str, Any]
) -> Iterator[pathlib.Path]:
    """Gives a directory to write a SavedModel to, and renames it to `path` when the block is done.

    Beside the model stand maml_tf.json, which has `description`, the versions that it was written
    by and the SHA-256 of every file, and MODEL_CARD.md, which says the same to people. Where the
    block raises, nothing is left of what it wrote. A model of the same command line that stands
    there already, with the same description and the same weights, stays as it is: a run that was
    killed when it had written it is repeated.

    Args:
      description: {name: JSON value}; what the card shows of it: see model_card.py.
    Raises:
      ArgumentError: `path` exists, and is something else.
      UserError: the files cannot be written.
    """
    path = pathlib.Path(path)
    known = {**description, 'versions': versions()}
    there = 'flags' in known and _described_as(path, known)
    if not there:
        check_new(path)
    scratch = path.with_name(f'.{path.name}.writing')
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        yield scratch
        content = {**known, 'sha256': _checksums(scratch)}
        if there:
            if _weights(content) != _weights(_description(path)):
                check_new(path)
            return
        (scratch / DESCRIPTION).write_text(described(content), encoding='utf-8')
        # A number is a version, whose directory bears the name of the model.
        name = f'{path.absolute().parent.name}/{path.name}' if path.name.isdigit() else path.name
        card = model_card.text(name, content)
        # Names of classes and photos may be no text.
        (scratch / CARD).write_text(card, encoding='utf-8', errors='backslashreplace')
        os.replace(scratch, path)
    except Exception as error:
        if cause := cause_of_files(error):
            raise UserError(
                f'{path}: the SavedModel could not be written ({reason(cause)}); mend that, and '
                'give the same command again'
            ) from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_new_or_of(flags: Mapping[str, Any], name: str) -> None:
    """Raises ArgumentError where an export cannot be written, or is another's.

    That of a run which was repeated, or killed after it was written, may be there.

    Args:
      flags: {name: value} of the command line, which the export describes.
      name: of the flag that says where.
    """
    if not _described_as(pathlib.Path(flags[name]), {'flags': flags, 'versions': versions()}):
        check_new(flags[name], name)


def _described_as(path: pathlib.Path, known: Mapping[str, Any]) -> bool:
    """Says whether the description beside a model says what is known."""
    there = _description(path)
    return all(there.get(name) == value for name, value in _plain(known).items())


def _description(path: pathlib.Path) -> dict[str, Any]:
    """Returns the content of maml_tf.json, {} where there is none."""
    try:
        content = json.loads((path / DESCRIPTION).read_text('utf-8'))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns it as it is when it has been written and read."""
    return json.loads(json.dumps(content))


def _weights(content: Mapping[str, Any]) -> dict[str, str]:
    """Returns {file: SHA-256} of the weights; graphs of the same model differ in their bytes."""
    sums = content.get('sha256', {})
    return {name: value for name, value in sums.items() if '.data-' in name}


def read_description(path: pathlib.Path) -> dict[str, Any]:
    """Returns what maml_tf.json says of the SavedModel in `path`.

    Raises:
      ValueError: a file is not the one that was written, by the checksums there. Earlier versions
        wrote none.
      OSError, TypeError: there is no such description.
    """
    check_is_file(path / DESCRIPTION)
    content = json.loads((path / DESCRIPTION).read_text('utf-8'))
    if not isinstance(content, dict):
        raise TypeError(f'{DESCRIPTION} holds no description')
    if (written := content.get('sha256')) is not None:
        there = _checksums(path)
        for name in written:
            if there.get(name) != written[name]:
                raise ValueError(
                    f"{name} is damaged or missing: its SHA-256 is not {DESCRIPTION}'s"
                )
    return content


def described(content: Mapping[str, Any]) -> str:
    """Returns the text of maml_tf.json."""
    return json.dumps(content, indent=1) + '\n'


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
