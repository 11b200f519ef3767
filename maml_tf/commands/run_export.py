"""Exports what a command line trained and evaluated."""

from collections.abc import Mapping
from typing import Any

from maml_tf.commands import command_line
from maml_tf.commands.experiment import Experiment
from maml_tf.saving.exports import model_card
from maml_tf.saving.exports.export import export
from maml_tf.saving.exports.export_embedding import export_embedding


def known_of(
    experiment: Experiment, iteration: int | None, results: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns {name: JSON value} of what every export of this run says of it."""
    return {
        'inputs': experiment.row.inputs(experiment.flags),
        'iteration': iteration,
        **model_card.of_run(experiment.flags, results),
        'flags': command_line.as_dict(experiment.flags),
    }


def run_export(experiment: Experiment, iteration: int | None, results: Mapping[str, Any]) -> None:
    """Writes the evaluated learner, and its encoder, as SavedModels where flags ask for them.

    Args:
      iteration: of its weights; None: they came without.
      results: the content of results.json.
    """
    flags, learner, problem = experiment.flags, experiment.learner, experiment.problem
    known = known_of(experiment, iteration, results)
    prepares = experiment.row.preparation
    preparation = prepares(flags) if prepares else None
    if flags.export_dir:
        fixed = {}
        if experiment.row.classification and learner.fixed_way:
            fixed = {'way': problem.evaluation.way}
        description = {**fixed, 'transductive': learner.transductive, **known}
        export(
            learner,
            flags.export_dir,
            problem.input_shape,
            problem.output_dim,
            learner.evaluation_steps,
            description,
            preparation,
        )
        print(f'SavedModel: {flags.export_dir}')
    if flags.export_embedding_dir:
        export_embedding(
            learner, flags.export_embedding_dir, problem.input_shape, known, preparation
        )
        print(f'SavedModel of the embedding: {flags.export_embedding_dir}')
