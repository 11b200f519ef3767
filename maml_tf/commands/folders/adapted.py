"""A learner adapted to one task of one's own: it classifies, and is saved as a small model."""

import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

# The one way in TensorFlow 2 to drop what a function captures and does not use: here the weights
# before adaptation.
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from maml_tf.commands.folders.trained import Trained
from maml_tf.datasets.raw.image_files import Preparation
from maml_tf.errors import ArgumentError
from maml_tf.saving.exports.lite import Lite, check_new_lite, write_lite
from maml_tf.saving.exports.prepare_images import IMAGE_BYTES, described, prepared, signatures
from maml_tf.saving.exports.saved_model import new_saved_model
from maml_tf.terminal.text import shown

CHUNK = 50  # images in one call


def adapt(learner: Trained, photos: Mapping[str, np.ndarray]) -> 'AdaptedClassifier':
    """Adapts a Trained learner to one task, whose classes may differ in their number of photos.

    A learner of fixed way was trained on equally many photos of each class, and one class with more
    would draw the others' images to itself: the photos of smaller classes are repeated in turn
    until all have as many. Its loss is the sum over the photos divided by photos / way, as in
    training. Outputs beyond the classes at hand get no photo, and are left out of the
    probabilities.

    Args:
      photos: {class name: float32 [n, side, side, channels]}, pixels as in training.
    Raises: ArgumentError where there are more classes than outputs.
    """
    if learner.way is not None:
        if len(photos) > learner.way:
            raise ArgumentError(
                'support',
                None,
                f'{len(photos)} classes, but the learner was trained {learner.way}-way and has as '
                f'many outputs. Leave classes out, train with --num_classes={len(photos)}, or take '
                'a metric learner such as prototypical, which classifies among any number',
            )
        most = max(len(images) for images in photos.values())
        photos = {name: images[np.arange(most) % len(images)] for name, images in photos.items()}
    labels = np.repeat(np.arange(len(photos)), [len(images) for images in photos.values()])
    support_y = np.eye(learner.way or len(photos), dtype=np.float32)[labels]
    support_x = np.concatenate(list(photos.values()))
    state = learner.adapt(tf.constant(support_x[np.newaxis]), tf.constant(support_y[np.newaxis]))
    return AdaptedClassifier(learner, list(photos), state)


def check_lite(learner: Trained, path: pathlib.Path) -> None:
    """Raises ArgumentError where a learner cannot be written to `path` as a LiteRT file."""
    check_new_lite(path)
    if learner.transductive:
        raise ArgumentError(
            'tflite',
            path,
            'classifies one image at a time, and this SavedModel is transductive: export the '
            'learner with --transductive=False, or name the run directory in --init_from',
        )


class AdaptedClassifier:
    """Tells the probabilities of `classes`, by the state that adaptation left behind."""

    def __init__(self, learner: Trained, classes: list[str], state: dict[str, tf.Tensor]):
        self.learner, self.classes, self.state = learner, classes, state

    def predict(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns {'outputs', 'probabilities': [n, classes]} of [n, side, side, channels]."""
        predictions = self.learner.predict_query(self.state, images[tf.newaxis])
        outputs, shares = (
            predictions[name][0, :, : len(self.classes)] for name in ('outputs', 'probabilities')
        )
        shares = tf.maximum(shares, np.finfo(np.float32).tiny)
        return {
            'outputs': outputs,
            'probabilities': shares / tf.reduce_sum(shares, axis=-1, keepdims=True),
        }

    def probabilities(
        self, images: np.ndarray, progress: Callable[[list], Iterable] = iter
    ) -> np.ndarray:
        """Returns [n, classes] of float32 images [n, side, side, channels].

        They are classified all at once where the learner is transductive.

        progress: wraps the iteration over the chunks of images, as tqdm does.
        """
        predict = tf.function(self.predict, jit_compile=self.learner.xla, autograph=False)
        chunk = len(images) if self.learner.transductive else CHUNK
        chunks = [images[start : start + chunk] for start in range(0, len(images), chunk)]
        return np.concatenate(
            [predict(tf.constant(chunk))['probabilities'] for chunk in progress(chunks)]
        )

    def export(
        self, path: pathlib.Path | str, preparation: Preparation, description: Mapping[str, Any]
    ) -> None:
        """Writes a SavedModel of this classifier alone, which TensorFlow loads by itself.

        Its signature serving_default takes images [n, side, side, channels] float32 and gives
        `outputs` and `probabilities` [n, classes]; weights and state are constants in it.
        classify_bytes gives the same of image_bytes, encoded images [n], and prepare makes images
        of them. Names of the classes, in this order, stand in assets/classes.txt, one a line, and
        in maml_tf.json with `description`, {name: JSON value}.

        Args:
          preparation: how an image file becomes an input.
        Raises:
          ArgumentError: `path` exists.
        """
        module = tf.Module()
        module.classify = self._frozen()
        module.classify_bytes = tf.function(
            lambda image_bytes: module.classify(prepared(image_bytes, preparation)),
            input_signature=[tf.TensorSpec([None], tf.string, IMAGE_BYTES)],
            autograph=False,
        )
        content = self._described(preparation, description)
        with new_saved_model(path, content) as scratch, tempfile.TemporaryDirectory() as folder:
            names = pathlib.Path(folder) / 'classes.txt'
            names.write_text(''.join(f'{shown(name)}\n' for name in self.classes), 'utf-8')
            module.class_names = tf.saved_model.Asset(str(names))
            # A frozen graph cannot take the layers' own gradients along, and nothing is left in it
            # to differentiate by.
            tf.saved_model.save(
                module,
                str(scratch),
                signatures={
                    'serving_default': module.classify,
                    'classify_bytes': module.classify_bytes,
                    **signatures(preparation),
                },
                options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
            )

    def export_lite(
        self,
        path: pathlib.Path,
        preparation: Preparation,
        description: Mapping[str, Any],
        examples: np.ndarray,
    ) -> Lite:
        """Writes this classifier of one prepared image as a LiteRT file, see `write_lite`.

        Args:
          preparation: how an image file becomes an input.
          examples: images [n, side, side, channels] at which it is compared with the SavedModel.
        Raises:
          ArgumentError: the learner is transductive, or `path` is no new file.
          UserError: LiteRT lacks an operation, or answers otherwise.
        """
        check_lite(self.learner, path)
        examples = examples[:CHUNK]
        expected = self._frozen()(tf.constant(examples))
        return write_lite(
            path,
            self._frozen(1),
            examples,
            {name: value.numpy() for name, value in expected.items()},
            [shown(name) for name in self.classes],
            self._described(preparation, description),
        )

    def _frozen(self, count=None):
        """Returns `predict` of this many images (None: of any number), all else constants in it."""
        images = tf.TensorSpec([count, *self.learner.input_shape], tf.float32, 'images')
        classify = tf.function(
            self.predict, input_signature=[images], autograph=False
        ).get_concrete_function()
        frozen = convert_variables_to_constants_v2(classify, lower_control_flow=False)
        named = lambda images: tf.nest.pack_sequence_as(classify.structured_outputs, frozen(images))
        return tf.function(named, input_signature=[images], autograph=False)

    def _described(self, preparation, description):
        """Returns the content of maml_tf.json."""
        return {
            **self.learner.about,
            'classes': self.classes,
            'input_shape': list(self.learner.input_shape),
            'inputs': self.learner.inputs,
            **({} if self.learner.steps is None else {'inner_steps': self.learner.steps}),
            'transductive': self.learner.transductive,
            **described(preparation),
            **description,
        }
