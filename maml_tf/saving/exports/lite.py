"""A classifier of single images as one LiteRT file (TensorFlow Lite), for phones and small boards.

Such a file is a FlatBuffer. Behind it stands a zip archive, as TensorFlow Lite's own metadata are
stored: interpreters do not read that far, and any unzip program lists what the file is about.
"""

import hashlib
import pathlib
import re
import statistics
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.errors import ArgumentError, UserError
from maml_tf.saving.exports import model_card
from maml_tf.saving.exports.saved_model import DESCRIPTION, described, versions
from maml_tf.serialisation.files import check_new, replaced
from maml_tf.terminal import quiet

CLASSES = 'classes.txt'
TOLERANCE = 1e-4
TIMED, UNTIMED = 100, 5  # calls


class Lite(NamedTuple):
    """What was written: its size in bytes, the time of one image in seconds (the median), and the
    largest difference from the SavedModel."""

    size: int
    latency: float
    difference: float


def check_new_lite(path: pathlib.Path) -> None:
    """Raises ArgumentError where a file or its card exist or cannot be made."""
    if path.suffix != '.tflite':
        raise ArgumentError('tflite', path, 'a name that ends in .tflite; its card is beside it')
    for file in (path, _card(path)):
        check_new(file, 'tflite', 'file')


def write_lite(
    path: pathlib.Path,
    classify: tf.types.experimental.GenericFunction,
    examples: np.ndarray,
    expected: Mapping[str, np.ndarray],
    classes: Sequence[str],
    description: Mapping[str, Any],
) -> Lite:
    """Writes `path`, and a card of the same name in .md, when what it answers was found right.

    Its one signature, serving_default, takes `images` [1, side, side, channels] float32 and gives
    what `classify` does. Behind the model stand classes.txt, one a line, and maml_tf.json.

    Args:
      classify: images [1, side, side, channels] -> {name: [1, classes]}, without variables.
      examples: [n, side, side, channels] to compare at; n > 0.
      expected: {name: [n, classes]} of the SavedModel.
      description: {name: JSON value}; what the card shows of it: see model_card.py.
    Raises:
      UserError: LiteRT lacks an operation, or answers what differs by more than 1e-4: of a
        probability, and of outputs in units of the largest.
    """
    with quiet.stderr_closed():  # The converter and the interpreter tell much of themselves.
        model = _converted(classify)
        run = _interpreter(model)
        answers = [run(images=image[np.newaxis]) for image in examples]
        latency = _latency(lambda: run(images=examples[:1]))
    found = {name: np.concatenate([answer[name] for answer in answers]) for name in expected}
    difference = max(_difference(found[name], value) for name, value in expected.items())
    if not difference <= TOLERANCE:
        raise UserError(
            f'LiteRT answers otherwise than the SavedModel, by {difference:.1g} where '
            f'{TOLERANCE:g} is allowed; {path} is not written'
        )
    content = {**description, 'versions': versions()}
    names = ''.join(f'{name}\n' for name in classes)
    with replaced(path) as temporary, replaced(_card(path)) as card:
        temporary.write_bytes(model)
        with zipfile.ZipFile(temporary, 'a', zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(CLASSES, names.encode('utf-8', 'backslashreplace'))
            archive.writestr(DESCRIPTION, described(content))
        data = temporary.read_bytes()
        content['sha256'] = {path.name: hashlib.sha256(data).hexdigest()}
        text = model_card.text(path.name, content, model_card.LITE)
        card.write_text(text, encoding='utf-8', errors='backslashreplace')
    return Lite(len(data), latency, difference)


def _card(path):
    return path.with_suffix('.md')


def _converted(classify):
    """Returns the FlatBuffer's bytes of a function."""
    from tensorflow.lite.python.convert import ConverterError  # It has no public name.

    module = tf.Module()
    module.classify = classify
    with tempfile.TemporaryDirectory() as folder:
        # Of a frozen graph the converter itself would write no SavedModel, for it keeps the
        # gradients of the layers; and without one the signature has no names.
        tf.saved_model.save(
            module,
            folder,
            signatures={'serving_default': classify},
            options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
        )
        try:
            return tf.lite.TFLiteConverter.from_saved_model(folder).convert()
        except ConverterError as error:
            message = str(error)
    # As 'tf.Cholesky' op requires ..., or in a list: tf.Cholesky(tensor<...
    operations = sorted(set(re.findall(r'\btf\.([A-Z]\w*)', message)))
    which = ', '.join(operations) or message.strip().split('\n')[0]
    raise UserError(
        f'LiteRT cannot compute what this learner does: it lacks {which}. '
        'Take --export_dir, a SavedModel, instead'
    )


def _interpreter(model):
    """Returns function(images=...) -> {name: array} that runs a FlatBuffer in one thread."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        Interpreter = tf.lite.Interpreter
    return Interpreter(model_content=model, num_threads=1).get_signature_runner()


def _latency(call):
    """Returns the median time of a call, in seconds."""
    times = []
    for _ in range(UNTIMED + TIMED):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[UNTIMED:])


def _difference(found, expected):
    """The largest difference, in units of the largest number where that is above 1."""
    return float(np.abs(found - expected).max() / max(1, np.abs(expected).max()))
