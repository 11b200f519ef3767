"""One command line, built: the data, the learner, its phases and the run directory."""

import dataclasses
import functools
import pathlib
from typing import Any

import keras
import tensorflow as tf

from maml_tf import algorithms
from maml_tf.algorithms.problem import Problem
from maml_tf.commands import command_line
from maml_tf.commands.outputs import check_apart, check_outputs
from maml_tf.datasets.external import beside_external
from maml_tf.datasets.flags import episode_specs
from maml_tf.datasets.source import Source
from maml_tf.datasets.sources import SOURCES
from maml_tf.episodes.source import EpisodeSource
from maml_tf.episodes.task import EpisodeSpec, SequenceSpec
from maml_tf.errors import UserError
from maml_tf.learner import Learner
from maml_tf.saving.checkpoints import LEARNER
from maml_tf.saving.exports.export_embedding import check_has_embedding
from maml_tf.saving.run_directory import RunDirectory
from maml_tf.saving.run_name import experiment_string
from maml_tf.saving.shared_run_directory import SharedRunDirectory
from maml_tf.serialisation.variables import optimizer_names
from maml_tf.training import outer_optimizers
from maml_tf.training.distribution import cluster, distribute
from maml_tf.training.distribution.workers import Workers
from maml_tf.training.operations import TrainingOp, WholeOp, op_of
from maml_tf.training.phases import OuterLoop, Phase


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a command line describes, ready to be trained and evaluated.

    row: the data source's, in the table. ops: {name of the phase: its training op}. workers: the
    processes that train together; all build the same.
    """

    flags: Any
    row: Source
    source: EpisodeSource
    problem: Problem
    strategy: tf.distribute.Strategy
    workers: Workers
    learner: Learner
    phases: list[Phase]
    ops: dict[str, TrainingOp | WholeOp]
    directory: RunDirectory | SharedRunDirectory

    @property
    def iterations(self) -> int:
        """Returns the iterations of all phases."""
        return sum(phase.iterations for phase in self.phases)

    @property
    def evaluation(self) -> EpisodeSpec | SequenceSpec:
        """Returns by what validation and test draw."""
        return self.learner.evaluation_draws(self.problem.evaluation)

    @property
    def split(self) -> str:
        """Returns the split that is evaluated on. Raises UserError where it was trained on."""
        if self.flags.test_set:
            return 'test'
        if self.flags.train_on == 'trainval':
            raise UserError(
                '--train_on=trainval: the validation classes are trained on; '
                'evaluate with --test_set=True'
            )
        return 'val'


def build(flags) -> Experiment:
    """Builds what the command line describes.

    Raises: UserError where it describes nothing that can be run.
    """
    command_line.check(flags)
    check_outputs(flags)
    if flags.strategy != 'multi_worker':
        cluster.check_alone(flags.strategy)
    # Before anything is computed: workers cannot be joined later.
    strategy = distribute.make_strategy(flags.strategy, flags.meta_batch_size)
    workers = distribute.workers_of(strategy)
    workers.check_alike(command_line.of_all_workers(flags))
    row = SOURCES[flags.datasource]
    source = beside_external(flags, row.load(flags))
    problem = problem_of(flags, source)
    keras.utils.set_random_seed(flags.seed)  # for the initial weights of Keras layers
    with strategy.scope():
        learner = algorithms.registry()[flags.algorithm].from_flags(flags, problem)
        phases = source.phases(learner, _outer_loop(flags, problem, learner))
        ops = {phase.name: op_of(learner, phase) for phase in phases}
    _check_sizes(flags, problem, learner)
    if flags.export_embedding_dir:
        check_has_embedding(learner)
    directory = _run_directory(flags, source, learner, phases, workers)
    check_apart(flags, directory.path)
    return Experiment(
        flags, row, source, problem, strategy, workers, learner, phases, ops, directory
    )


def problem_of(flags, source: EpisodeSource | None = None) -> Problem:
    """Returns the problem that a command line describes.

    source: the data; None: what is known without them.
    """
    row = SOURCES[flags.datasource]
    training, evaluation = episode_specs(flags, row)
    shape = row.input_shape(flags) if source is None else source.input_shape
    output_dim = evaluation.way if row.classification else row.output_dim
    classes = None
    if source is not None and row.classification:
        classes = source.count_classes(flags.train_on)
    return Problem(
        shape,
        output_dim,
        training,
        evaluation,
        classes,
        row.objective if source is None else source.objective,
        row.clip,
        row.background(flags),
        functools.partial(row.network, flags, shape, output_dim),
        row.inner_lr,
        row.evaluation_steps,
        None if source is None else source.external_classes,
    )


def _outer_loop(flags, problem: Problem, learner: Learner) -> OuterLoop:
    pretraining, training = flags.pretrain_iterations, flags.metatrain_iterations
    if flags.baseline == 'oracle':  # There is nothing to adapt to: all iterations are pretraining.
        pretraining, training = pretraining + training, 0
    asked = outer_optimizers.from_flags(flags, learner.outer)
    return OuterLoop(
        pretraining, training, asked.meta_lr, problem.training, asked.decay_every, asked
    )


def _check_sizes(flags, problem: Problem, learner: Learner) -> None:
    """Raises UserError for training tasks that the learner does not take."""
    training = problem.training
    if training.way != problem.evaluation.way and learner.fixed_way:
        if flags.tasks_file:
            raise UserError(
                f'--tasks_file={flags.tasks_file}: its tasks are {problem.evaluation.way}-way, and '
                f'{flags.algorithm} has one output per class, here {training.way}; name a learner '
                f'with --num_classes={problem.evaluation.way}'
            )
        raise UserError(
            f'--train_num_classes={training.way}: {flags.algorithm} has one output per class, so '
            f'training and evaluation share --num_classes, {problem.evaluation.way}'
        )
    if training.varies and not learner.takes_masks:
        raise UserError(
            f'--train_way_from, --train_shot_from, --train_query_from: {flags.algorithm} with '
            f'--norm={flags.norm} takes tasks of one size only'
        )
    if problem.evaluation.varies and not learner.takes_masks:
        raise UserError(
            f'--all_objects: {flags.algorithm} with --norm={flags.norm} takes tasks of one size '
            'only'
        )


def _run_directory(
    flags, source, learner: Learner, phases: list[Phase], workers: Workers
) -> RunDirectory | SharedRunDirectory:
    variables = {LEARNER: learner.named_variables()}
    known = set()
    for phase in phases:
        if phase.name in variables:
            raise ValueError(f'two phases, or the learner and a phase, are called {phase.name}')
        # Several phases may share an optimizer, which is then known by the first.
        variables[phase.name] = {}
        if phase.optimizer is not None and id(phase.optimizer) not in known:
            known.add(id(phase.optimizer))
            variables[phase.name] = optimizer_names(phase.optimizer, learner)
    foreign = SOURCES[flags.datasource].foreign
    name = experiment_string(flags, learner, command_line.of_the_run(flags), foreign)
    if source.identity:
        name += f'.{source.identity}'
    directory = RunDirectory(pathlib.Path(flags.logdir) / name, variables)
    return directory if workers.count == 1 else SharedRunDirectory(directory, workers)
