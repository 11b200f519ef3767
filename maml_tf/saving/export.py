"""SavedModel export: three signatures that TensorFlow alone can load and call."""

import json
import os
import pathlib
import shutil

import tensorflow as tf

from maml_tf.errors import UserError


def export(learner, path, input_shape, output_dim, steps, description):
    """Writes a SavedModel with signatures for any number of tasks, shots, queries and, unless it is
    fixed, classes.

    adapt:            support_x [tasks, n, *input_shape], support_y [tasks, n, output_dim]
                      -> the task state
    predict_query:    query_x [tasks, m, *input_shape] and every entry of the state -> predictions
    serving_default:  support_x, support_y, query_x -> predictions

    Predictions are `outputs` [tasks, m, output_dim] and, in classification, `probabilities`. What
    the learner fixes (the way of MAML's last layer) and `description` stand in maml_tf.json beside
    the model.

    Args:
      output_dim: width of the labels; in classification that of a learner without a fixed way is
        left open.
      steps: inner steps of `adapt`.
      path: a directory that does not exist yet; it appears when it is complete.
      description: {name: JSON value}, what a user should know (mode, flags, iteration ...).
    Raises:
      UserError: `path` exists.
    """
    path = pathlib.Path(path)
    check_new(path)
    classification = learner.objective.metric_name == 'accuracy'
    output_dim = None if classification and not learner.fixed_way else output_dim
    examples = lambda name, shape: tf.TensorSpec([None, None, *shape], learner.compute_dtype, name)
    support_x, support_y = examples('support_x', input_shape), examples('support_y', (output_dim,))
    query_x = examples('query_x', input_shape)

    def predictions(outputs):
        named = {'outputs': outputs}
        return (
            named | {'probabilities': learner.objective.probabilities(outputs)}
            if classification
            else named
        )

    @tf.function(autograph=False)
    def adapt(support_x, support_y):
        return learner.adapt(support_x, support_y, steps)

    @tf.function(autograph=False)
    def predict_query(query_x, **state):
        return predictions(learner.predict_query(state, query_x))

    @tf.function(autograph=False)
    def serve(support_x, support_y, query_x):
        state = learner.adapt(support_x, support_y, steps)
        return predictions(learner.predict_query(state, query_x))

    adapt = adapt.get_concrete_function(support_x, support_y)
    state = {
        name: tf.TensorSpec([None, *spec.shape[1:]], spec.dtype, name)
        for name, spec in adapt.structured_outputs.items()
    }
    signatures = {
        'adapt': adapt,
        'predict_query': predict_query.get_concrete_function(query_x, **state),
        'serving_default': serve.get_concrete_function(support_x, support_y, query_x),
    }
    module = tf.Module()
    module.weights = [variable.value for variable in learner.variables]
    scratch = path.with_name(f'.{path.name}.writing')
    shutil.rmtree(scratch, ignore_errors=True)
    tf.saved_model.save(module, str(scratch), signatures=signatures)
    content = {
        'input_shape': list(input_shape),
        'output_dim': output_dim,
        'inner_steps': steps,
        **description,
    }
    (scratch / 'maml_tf.json').write_text(json.dumps(content, indent=1) + '\n', 'utf-8')
    os.replace(scratch, path)


def check_new(path, flag='export_dir'):
    """Raises UserError, naming the flag, where `path` exists: an export overwrites nothing."""
    if pathlib.Path(path).exists():
        raise UserError(f'--{flag}={path}: exists already; name a new directory')


def define_flags(flags):
    """Flags of export."""
    flags.DEFINE_string(
        'export_dir', None, 'write a SavedModel of the evaluated learner to this new directory'
    )
    flags.DEFINE_string(
        'export_embedding_dir',
        None,
        "write a SavedModel of a metric learner's encoder, images to "
        'embeddings, to this new directory',
    )
