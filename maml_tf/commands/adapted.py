"""A trained learner adapted to one task of one's own: loaded, adapted once, classifying, saved as a
small model."""

import json
import pathlib
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import absl.flags
import numpy as np
import tensorflow as tf

# The one way in TensorFlow 2 to drop what a function captures and does not use: here the weights
# before adaptation.
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from maml_tf import algorithms
from maml_tf.commands import command_line
from maml_tf.datasets.raw.image_files import shown
from maml_tf.datasets.sources import SOURCES
from maml_tf.errors import UserError
from maml_tf.objectives import Classification
from maml_tf.saving.files import new_saved_model
from maml_tf.saving.init_from import load_weights

CHUNK = 50  # images in one call


class Trained(NamedTuple):
    """A trained learner of image tasks, whatever it was loaded from.

    adapt:         (support_x [1, n, side, side, channels], support_y [1, n, way]) -> the task state
    predict_query: (state, query_x [1, m, side, side, channels]) -> {'outputs', 'probabilities': [1,
      m, way]}
    way:           the number of outputs, where the learner fixes it; None: any number of classes
    steps:         inner steps of `adapt`
    transductive:  whether a prediction depends on the other images of the call
    xla:           whether `predict_query` is faster compiled
    ink:           'bright' or 'dark', where it was trained on drawings (Omniglot), else None
    inputs:        in words, what the pixels are
    """

    adapt: Callable
    predict_query: Callable
    input_shape: tuple
    way: int | None
    steps: int
    transductive: bool
    xla: bool
    ink: str | None
    inputs: str


def load(path, steps=None):
    """Returns the Trained learner in `path`: a SavedModel that --export_dir wrote, or a run
    directory.

    A run directory is enough by itself: no data is looked for. Its learner is not transductive,
      whatever it was
    evaluated as: each image is classified beside the support set alone.

    Args:
      steps: inner steps; None: as many as the evaluation takes. In a SavedModel they are fixed.
    Raises:
      UserError: it is neither, or not a learner of image classes.
    """
    path = pathlib.Path(path)
    if (path / 'saved_model.pb').is_file():
        return _from_saved_model(path, steps)
    for directory in (
        path,
        *path.parents[:2],
    ):  # also a checkpoint's prefix, and best/ in a run directory
        if (directory / 'flags.txt').is_file():
            return _from_run(path, directory / 'flags.txt', steps)
    raise UserError(
        f'--init_from={path}: neither a SavedModel of --export_dir (no saved_model.pb in it) nor '
        'a run '
        'directory (no flags.txt)'
    )


def _from_saved_model(path, steps):
    try:
        description = json.loads((path / 'maml_tf.json').read_text('utf-8'))
        input_shape, its_steps = tuple(description['input_shape']), description['inner_steps']
        model = tf.saved_model.load(str(path))
        adapt, predict = (model.signatures[name] for name in ('adapt', 'predict_query'))
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        raise UserError(
            f'--init_from={path}: no learner that --export_dir of run_maml.py wrote, with '
            'maml_tf.json and '
            f'signatures adapt and predict_query ({type(error).__name__}: {shown(error)})'
        ) from error
    if 'probabilities' not in predict.structured_outputs:
        raise UserError(
            f'--init_from={path}: a regression learner; images are classified by one trained on '
            'images'
        )
    if steps not in (None, its_steps):
        raise UserError(
            f'--steps={steps}: the SavedModel in --init_from={path} takes {its_steps}; name the '
            'run '
            'directory for another number'
        )
    return _checked(
        Trained(
            adapt=lambda support_x, support_y: adapt(support_x=support_x, support_y=support_y),
            # The default value keeps the model alive, and so its variables: signatures do not.
            predict_query=lambda state, query_x, model=model: predict(query_x=query_x, **state),
            input_shape=input_shape,
            way=adapt.structured_input_signature[1]['support_y'].shape[-1],
            steps=its_steps,
            transductive=description.get('transductive', True),
            xla=False,
            ink=_ink(**description.get('flags', {})),
            inputs=description.get('inputs', 'pixels from 0 to 1'),
        ),
        path,
    )


def _from_run(path, flagfile, steps):
    flags = _flags(flagfile)
    source = SOURCES[flags.datasource]
    if not source.classification:
        raise UserError(
            f'--init_from={path}: a regression learner ({flags.datasource}); images are '
            'classified by one '
            'trained on images'
        )
    flags.transductive = False
    input_shape, way = source.input_shape(flags), flags.num_classes
    learner = algorithms.registry()[flags.algorithm].from_flags(
        flags, source.network(flags, input_shape, way), Classification()
    )
    load_weights(learner, path)
    steps = source.eval_steps if steps is None else steps

    def predict_query(state, query_x):
        outputs = learner.predict_query(state, query_x)
        return {'outputs': outputs, 'probabilities': learner.objective.probabilities(outputs)}

    adapt = tf.function(
        lambda support_x, support_y: learner.adapt(support_x, support_y, steps), autograph=False
    )
    return _checked(
        Trained(
            adapt,
            predict_query,
            input_shape,
            way if learner.fixed_way else None,
            steps,
            transductive=False,
            xla=learner.xla,
            ink=_ink(flags.datasource, flags.ink),
            inputs=source.inputs(flags),
        ),
        path,
    )


def _ink(datasource='omniglot', ink='bright', **other_flags):
    """The ink of a learner's drawings. Other data are seen as they are, and may be scans of
    paper."""
    del other_flags
    return ink if datasource == 'omniglot' else None


def _flags(flagfile):
    """The flag values of a run's flags.txt."""
    try:
        return command_line.parsed(f'--flagfile={flagfile}')
    except absl.flags.Error as error:
        raise UserError(
            f'{flagfile}: {shown(error)}; it was written by another version of this package'
        ) from error


def _checked(learner, path):
    shape = learner.input_shape
    if len(shape) != 3 or shape[0] != shape[1] or shape[2] not in (1, 3):
        raise UserError(
            f'--init_from={path}: takes inputs of shape {list(shape)}; square images of 1 or 3 '
            'channels '
            'can be classified'
        )
    return learner


def adapt(learner, photos):
    """Adapts a Trained learner to one task, whose classes may differ in their number of photos.

    A learner of fixed way was trained on equally many photos of each class, and one class with more
    would draw the others' images to itself: the photos of smaller classes are repeated in turn
    until all have as many. Its loss is the sum over the photos divided by photos / way, as in
    training. Outputs beyond the classes at hand get no photo, and are left out of the
    probabilities.

    Args:
      photos: {class name: float32 [n, side, side, channels]}, pixels as in training.
    Returns: an AdaptedClassifier.
    Raises:
      UserError: there are more classes than outputs.
    """
    if learner.way is not None:
        if len(photos) > learner.way:
            raise UserError(
                f'--support: {len(photos)} classes, but the learner was trained {learner.way}-way '
                'and has as many '
                f'outputs. Leave classes out, train with --num_classes={len(photos)}, or take a '
                'metric learner such as '
                'prototypical, which classifies among any number'
            )
        most = max(len(images) for images in photos.values())
        photos = {name: images[np.arange(most) % len(images)] for name, images in photos.items()}
    labels = np.repeat(np.arange(len(photos)), [len(images) for images in photos.values()])
    support_y = np.eye(learner.way or len(photos), dtype=np.float32)[labels]
    support_x = np.concatenate(list(photos.values()))
    state = learner.adapt(tf.constant(support_x[np.newaxis]), tf.constant(support_y[np.newaxis]))
    return AdaptedClassifier(learner, list(photos), state)


class AdaptedClassifier:
    """images -> probabilities of `classes`, from a Trained learner and the state that `adapt` left
    behind."""

    def __init__(self, learner, classes, state):
        self.learner, self.classes, self.state = learner, classes, state

    def predict(self, images):
        """[n, side, side, channels] -> {'outputs', 'probabilities': [n, classes]}."""
        predictions = self.learner.predict_query(self.state, images[tf.newaxis])
        outputs, shares = (
            predictions[name][0, :, : len(self.classes)] for name in ('outputs', 'probabilities')
        )
        shares = tf.maximum(shares, np.finfo(np.float32).tiny)
        return {
            'outputs': outputs,
            'probabilities': shares / tf.reduce_sum(shares, axis=-1, keepdims=True),
        }

    def probabilities(self, images, progress=iter):
        """float32 [n, side, side, channels] -> array [n, classes], all at once where the learner is
        transductive.

        progress: wraps the iteration over the chunks of images, as tqdm.
        """
        predict = tf.function(self.predict, jit_compile=self.learner.xla, autograph=False)
        chunk = len(images) if self.learner.transductive else CHUNK
        chunks = [images[start : start + chunk] for start in range(0, len(images), chunk)]
        return np.concatenate(
            [predict(tf.constant(chunk))['probabilities'] for chunk in progress(chunks)]
        )

    def export(self, path, description):
        """Writes a SavedModel of this classifier alone, which TensorFlow loads by itself.

        Its signature serving_default takes images [n, side, side, channels] float32 and gives
        `outputs` and `probabilities` [n, classes]; weights and state are constants in it. Names of
        the classes, in this order, stand in assets/classes.txt, one a line, and in maml_tf.json
        with `description`, {name: JSON value}.

        Raises:
          ArgumentError: `path` exists.
        """
        images = tf.TensorSpec([None, *self.learner.input_shape], tf.float32, 'images')
        classify = tf.function(
            self.predict, input_signature=[images], autograph=False
        ).get_concrete_function()
        frozen = convert_variables_to_constants_v2(classify, lower_control_flow=False)
        named = lambda images: tf.nest.pack_sequence_as(classify.structured_outputs, frozen(images))
        module = tf.Module()
        module.classify = tf.function(named, input_signature=[images], autograph=False)
        content = {
            'classes': self.classes,
            'input_shape': list(self.learner.input_shape),
            'inputs': self.learner.inputs,
            'inner_steps': self.learner.steps,
            'transductive': self.learner.transductive,
            **description,
        }
        with new_saved_model(path, content) as scratch, tempfile.TemporaryDirectory() as folder:
            names = pathlib.Path(folder) / 'classes.txt'
            names.write_text(''.join(f'{shown(name)}\n' for name in self.classes), 'utf-8')
            module.class_names = tf.saved_model.Asset(str(names))
            # A frozen graph cannot take the layers' own gradients along, and nothing is left in it
            # to differentiate by.
            tf.saved_model.save(
                module,
                str(scratch),
                signatures={'serving_default': module.classify},
                options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
            )
