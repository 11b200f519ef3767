"""Export of a metric learner's encoder alone, as a SavedModel: images in, embeddings out."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from maml_tf.algorithms.metric.metric_learner import MetricLearner
from maml_tf.datasets.raw.image_files import Preparation
from maml_tf.errors import ArgumentError
from maml_tf.learner import Learner
from maml_tf.saving.exports import input_checks, model_card, prepare_images
from maml_tf.saving.exports.saved_model import new_saved_model


def export_embedding(
    learner: Learner,
    path: pathlib.Path | str,
    input_shape: Sequence[int],
    description: Mapping[str, Any] | None = None,
    preparation: Preparation | None = None,
) -> None:
    """Writes a SavedModel that maps images [n, *input_shape] to `embeddings` [n, ...].

    They are the encoder's, with the running averages of batch norm: of full context embeddings
    those before the context, f' and g'. In maml_tf.json beside it stand the shapes and
    `description`. Images with NaN or infinity raise tf.errors.InvalidArgumentError. With
    `preparation` a signature `prepare` makes images of encoded ones, image_bytes [n].

    Args:
      learner: a MetricLearner.
      path: a directory that does not exist yet; it appears when it is complete.
      description: {name: JSON value}, what a user should know (flags, iteration, inputs ...).
      preparation: how an image file becomes an input; None: inputs are not of image files.
    Raises:
      ArgumentError: the learner has no encoder, or `path` exists.
    """
    check_has_embedding(learner)

    @tf.function(autograph=False)
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        (images,) = input_checks.after(input_checks.finite('images', images), images)
        return {'embeddings': learner.encoder(images, training=False)}

    images = tf.TensorSpec([None, *input_shape], learner.compute_dtype, 'images')
    serve = serve.get_concrete_function(images)
    shape = serve.structured_outputs['embeddings'].shape.as_list()[1:]
    content = {
        'input_shape': list(input_shape),
        'embedding_shape': shape,
        **prepare_images.described(preparation),
        **model_card.of_learner(learner),
        **(description or {}),
    }
    with new_saved_model(path, content) as scratch:
        module = tf.Module()
        module.weights = [variable.value for variable in learner.encoder.variables]
        signatures = {'serving_default': serve}
        signatures |= prepare_images.signatures(preparation, learner.compute_dtype)
        tf.saved_model.save(module, str(scratch), signatures=signatures)


def check_has_embedding(learner: Learner) -> None:
    """Raises ArgumentError for a learner without an encoder."""
    if not isinstance(learner, MetricLearner):
        raise ArgumentError(
            'export_embedding_dir',
            None,
            f'{type(learner).__name__.lower()} has no embedding, only metric learners have',
        )
