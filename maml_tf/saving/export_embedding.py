"""A metric learner's encoder alone, as a SavedModel: images in, embeddings out."""

import json
import os
import pathlib
import shutil

import tensorflow as tf

from maml_tf.algorithms.metric.metric_learner import MetricLearner
from maml_tf.errors import UserError
from maml_tf.saving.export import check_new


def export_embedding(learner, path, input_shape, description=None):
    """Writes a SavedModel whose serving_default maps images [n, *input_shape] to `embeddings` [n,
    ...].

    They are the encoder's, with the running averages of batch norm: of full context embeddings
    those before the context, f' and g'. In maml_tf.json beside it stand the shapes and
    `description`.

    Args:
      learner: a MetricLearner.
      path: a directory that does not exist yet; it appears when it is complete.
      description: {name: JSON value}, what a user should know (flags, iteration, inputs ...).
    Raises:
      UserError: the learner has no encoder, or `path` exists.
    """
    check_has_embedding(learner)
    path = pathlib.Path(path)
    check_new(path)
    before, learner.transductive = learner.transductive, False

    @tf.function(autograph=False)
    def serve(images):
        return {'embeddings': learner.embed(images[tf.newaxis])[0]}

    try:
        serve = serve.get_concrete_function(
            tf.TensorSpec([None, *input_shape], learner.compute_dtype, 'images')
        )
    finally:
        learner.transductive = before
    module = tf.Module()
    module.weights = [variable.value for variable in learner.encoder.variables]
    scratch = path.with_name(f'.{path.name}.writing')
    shutil.rmtree(scratch, ignore_errors=True)
    tf.saved_model.save(module, str(scratch), signatures={'serving_default': serve})
    content = {
        'input_shape': list(input_shape),
        'embedding_shape': serve.structured_outputs['embeddings'].shape.as_list()[1:],
        **(description or {}),
    }
    (scratch / 'maml_tf.json').write_text(json.dumps(content, indent=1) + '\n', 'utf-8')
    os.replace(scratch, path)


def check_has_embedding(learner):
    """Raises UserError for a learner without an encoder."""
    if not isinstance(learner, MetricLearner):
        raise UserError(
            f'--export_embedding_dir: {type(learner).__name__.lower()} has no embedding, only '
            'metric '
            'learners have'
        )
