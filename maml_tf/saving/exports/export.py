"""SavedModel export: signatures that TensorFlow alone can load and call."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from maml_tf.datasets.raw.image_files import Preparation
from maml_tf.learner import Learner, State
from maml_tf.saving.exports import input_checks, model_card, prepare_images
from maml_tf.saving.exports.saved_model import new_saved_model


def export(
    learner: Learner,
    path: pathlib.Path | str,
    input_shape: Sequence[int],
    output_dim: int,
    steps: int,
    description: Mapping[str, Any],
    preparation: Preparation | None = None,
) -> None:
    """Writes a SavedModel for any number of tasks, shots, queries and, unless it is fixed, classes.

    adapt:            support_x [tasks, n, *input_shape], support_y [tasks, n, output_dim]
                      -> the task state
    predict_query:    query_x [tasks, m, *input_shape] and every entry of the state -> predictions
    serving_default:  support_x, support_y, query_x -> predictions
    predict_one:      what predict_query does, of one query of one task; in classification, unless
                      queries are predicted together. All its loops are of known sizes, or gone, as
                      a LiteRT file of an adapted classifier wants it.
    prepare:          image_bytes [n], encoded images -> images [n, *input_shape]; if `preparation`

    Predictions are `outputs` [tasks, m, output_dim] and, in classification, `probabilities`. In
    segmentation labels and predictions are images, [tasks, n or m, height, width, output_dim]. What
    the learner fixes (the way of MAML's last layer) and `description` stand in maml_tf.json beside
    the model, and MODEL_CARD.md tells people.

    The signatures raise tf.errors.InvalidArgumentError where inputs have not the same number of
    tasks or examples, where there is no task, where an input holds NaN or infinity, and in
    classification where a row of support_y is neither one-hot nor all zeros (an example that does
    not count) or a task has only rows of zeros.

    Args:
      path: a directory that does not exist yet; it appears when it is complete.
      output_dim: width of the labels; in classification that of a learner without a fixed way is
        left open.
      steps: inner steps of `adapt`; of a learner that takes none they mean nothing.
      description: {name: JSON value}, what a user should know (mode, flags, iteration ...).
      preparation: how an image file becomes an input; None: inputs are not of image files.
    Raises:
      ArgumentError: `path` exists.
    """
    width = None if learner.objective.classification and not learner.fixed_way else output_dim
    content = {'input_shape': list(input_shape), 'output_dim': width}
    if learner.takes_steps:
        content['inner_steps'] = steps
    content |= prepare_images.described(preparation) | model_card.of_learner(learner)
    with new_saved_model(path, content | dict(description)) as scratch:
        module = tf.Module()
        module.weights = [variable.value for variable in learner.variables]
        signatures = _signatures(learner, input_shape, width, steps)
        signatures |= prepare_images.signatures(preparation, learner.compute_dtype)
        tf.saved_model.save(module, str(scratch), signatures=signatures)


def _signatures(
    learner: Learner, input_shape: Sequence[int], width: int | None, steps: int
) -> dict[str, tf.types.experimental.ConcreteFunction]:
    classification = learner.objective.classification
    examples = lambda name, shape: tf.TensorSpec([None, None, *shape], learner.compute_dtype, name)
    label = learner.objective.label_shape(input_shape, width)
    support_x, support_y = examples('support_x', input_shape), examples('support_y', label)
    query_x = examples('query_x', input_shape)

    @tf.function(autograph=False)
    def adapt(support_x: tf.Tensor, support_y: tf.Tensor) -> State:
        are_labels = input_checks.classes if classification else input_checks.finite
        checks = input_checks.alike(('tasks', 'examples'), support_x=support_x, support_y=support_y)
        checks += input_checks.some_tasks('support_x', support_x)
        checks += input_checks.fixed(support_x=support_x, support_y=support_y)
        # Shapes first: what reads the values would fail on wrong ones in TensorFlow's words.
        with tf.control_dependencies(checks):
            checks = input_checks.finite('support_x', support_x)
            checks += are_labels('support_y', support_y)
        return learner.adapt(*input_checks.after(checks, support_x, support_y), steps)

    @tf.function(autograph=False)
    def predict_query(query_x: tf.Tensor, **state: tf.Tensor) -> dict[str, tf.Tensor]:
        checks = input_checks.alike(['tasks'], query_x=query_x, **state)
        checks += input_checks.fixed(query_x=query_x)
        checks += input_checks.finite('query_x', query_x)
        (queries,) = input_checks.after(checks, query_x)
        outputs = learner.predict_query(state, _at_least_one(queries))
        return learner.objective.predictions(outputs[:, : tf.shape(queries)[1]])

    @tf.function(autograph=False)
    def serve(
        support_x: tf.Tensor, support_y: tf.Tensor, query_x: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        checks = input_checks.alike(['tasks'], query_x=query_x, support_x=support_x)
        support_x, support_y = input_checks.after(checks, support_x, support_y)
        return predict_query(query_x, **adapt(support_x, support_y))

    concrete_adapt = adapt.get_concrete_function(support_x, support_y)
    state_of = lambda tasks: {
        name: tf.TensorSpec([tasks, *spec.shape[1:]], spec.dtype, name)
        for name, spec in concrete_adapt.structured_outputs.items()
    }
    signatures = {
        'adapt': concrete_adapt,
        'predict_query': predict_query.get_concrete_function(query_x, **state_of(None)),
        'serving_default': serve.get_concrete_function(support_x, support_y, query_x),
    }
    if classification and not learner.transductive:
        one = tf.TensorSpec([1, 1, *input_shape], learner.compute_dtype, 'query_x')
        # A function of its own: the other one would give the graph for any sizes again.
        predict_one = tf.function(predict_query.python_function, autograph=False)
        signatures['predict_one'] = predict_one.get_concrete_function(one, **state_of(1))
    return signatures


def _at_least_one(queries: tf.Tensor) -> tf.Tensor:
    """Adds a query of zeros to tasks that have none: most networks cannot compute with none."""
    if queries.shape[1]:
        return queries
    shape = tf.shape(queries)
    missing = tf.maximum(1 - shape[1], 0)
    filling = tf.zeros(tf.concat([shape[:1], [missing], shape[2:]], 0), queries.dtype)
    return tf.ensure_shape(tf.concat([queries, filling], 1), queries.shape)


def define_flags(flags) -> None:
    """Defines the flags of export."""
    flags.DEFINE_string(
        'export_dir', None, 'write a SavedModel of the evaluated learner to this new directory'
    )
    flags.DEFINE_string(
        'export_embedding_dir',
        None,
        "write a SavedModel of a metric learner's encoder, images to "
        'embeddings, to this new directory',
    )
