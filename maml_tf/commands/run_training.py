"""Trains what a command line describes."""

import contextlib
import functools

import tensorflow as tf

from maml_tf.commands import command_line
from maml_tf.commands.experiment import Experiment
from maml_tf.commands.policies.evaluation import policy_validator, simulates
from maml_tf.commands.run_evaluation import evaluation_tasks, evaluator, load_init_from
from maml_tf.episodes.task import BatchSpec, Draw, Spec
from maml_tf.errors import ArgumentError, UserError
from maml_tf.evaluation import evaluate
from maml_tf.saving.starting_weights import start_from
from maml_tf.training.course import Schedule
from maml_tf.training.distribution import distribute
from maml_tf.training.iterate import Run, iterate, one_by_one
from maml_tf.training.operations import WholeOp
from maml_tf.training.phases import Phase
from maml_tf.training.train import train

VALIDATION_TASKS = 100


def run_training(experiment: Experiment) -> None:
    """Trains from the latest checkpoint, or from the start, to the last iteration.

    Raises: UserError for what the data cannot give, or a run that cannot be resumed.
    """
    flags, directory, row = experiment.flags, experiment.directory, experiment.row
    # Whatever the data cannot give is said now, not when a phase or the evaluation comes.
    draws = {
        phase.name: _training_draw(experiment, phase)
        for phase in experiment.phases
        if phase.iterations
    }
    if not draws and not directory.checkpoints():
        raise UserError(
            '--metatrain_iterations=0: nothing to train; --train=False with --init_from evaluates '
            'weights'
        )
    validate = _validator(experiment)
    evaluation_tasks(experiment)
    if flags.ensemble > 1:
        _check_ensemble(experiment, validate is not None)
    start = _start(experiment)
    directory.tidy()
    if start >= experiment.iterations:
        print(f'Finished: {directory.path} has iteration {start} of {experiment.iterations}.')
        return
    directory.forget_metrics_after(start)  # Rows of a run killed before its next checkpoint.
    directory.write_flags(command_line.as_flagfile(flags))
    schedule = Schedule(
        iterations_per_call=flags.iterations_per_call or row.iterations_per_call,
        print_every=row.print_every,
        validate_every=row.validate_every,
        save_every=row.save_every,
    )
    writer = _summary_writer(experiment) if flags.log else None
    print(f'Training {flags.algorithm} on {flags.datasource}, results in {directory.path}')
    with contextlib.closing(writer) if writer else contextlib.nullcontext():
        train(
            experiment.phases,
            functools.partial(_run_of, experiment, draws),
            schedule,
            start,
            directory,
            experiment.learner.metric,
            validate,
            writer,
            flags.ensemble,
            experiment.learner.axis,
            experiment.workers,
        )


def _summary_writer(experiment: Experiment) -> tf.summary.SummaryWriter:
    if not experiment.workers.chief:
        return tf.summary.create_noop_writer()
    return tf.summary.create_file_writer(str(experiment.directory.path))


def _check_ensemble(experiment: Experiment, validates: bool) -> None:
    """Raises UserError where there will be too few validations to choose checkpoints by."""
    flags, every = experiment.flags, experiment.row.validate_every
    if not validates:
        raise UserError(
            f'--ensemble={flags.ensemble}: the best checkpoints are chosen by validation, and '
            f'--datasource={flags.datasource} with --train_on={flags.train_on} has none'
        )
    validations = experiment.iterations // every
    if validations < flags.ensemble:
        raise UserError(
            f'--ensemble={flags.ensemble}: {experiment.iterations} iterations have {validations} '
            f'validations, one every {every}, to choose from'
        )


def _start(experiment: Experiment) -> int:
    """Loads what there is to start from, and returns its iteration."""
    flags, directory = experiment.flags, experiment.directory
    if flags.test_iter != -1:
        raise UserError(
            f'--test_iter={flags.test_iter}: picks a checkpoint to evaluate, with --train=False; '
            'training goes on from the latest (to start another run from one: --init_from)'
        )
    if experiment.workers.from_chief(lambda: flags.resume) and directory.checkpoints():
        recorded = directory.flags()
        command_line.check_same_model(flags, recorded)
        if flags.init_from and recorded.get('init_from') != flags.init_from:
            raise UserError(
                f'--init_from={flags.init_from}: the run in {directory.path} is under way already '
                f'and started from {recorded.get("init_from", "new weights")}. Name another '
                '--logdir, or --resume=False'
            )
        directory.check()
        start = directory.restore_to_go_on()
        if start < experiment.iterations:
            print(f'Resuming from iteration {start} of {experiment.iterations} in {directory.path}')
        return start
    if flags.init_from:
        print(f'Starting from {load_init_from(experiment, start_from)}')
    if old := directory.set_aside():
        print(f'The earlier run is now {old}')
    return 0


def _unit(flags, phase: Phase) -> tuple[Spec, int]:
    """Returns by what spec a phase draws, and how many of these make an iteration.

    A batch is drawn by its examples, so that each replica can have a part of it.
    """
    if isinstance(phase.draws, BatchSpec):
        return BatchSpec(1), phase.draws.size
    return phase.draws, flags.meta_batch_size


def _training_draw(experiment: Experiment, phase: Phase) -> Draw:
    """Returns the draw of a phase. Raises UserError, naming training's own flags."""
    flags = experiment.flags
    if phase.split and phase.split not in experiment.source.splits:
        raise UserError(
            f'--algorithm={flags.algorithm}: its phase {phase.name} draws from the {phase.split} '
            f'classes, and --datasource={flags.datasource} has none'
        )
    own = {
        'way': 'num_classes' if flags.train_num_classes is None else 'train_num_classes',
        'shot': 'update_batch_size',
        'query': 'train_query',
    }
    if flags.train_update_batch_size != -1:
        own['shot'] = 'train_update_batch_size'
    try:
        split = phase.split or flags.train_on
        return experiment.source.tasks(split, _unit(flags, phase)[0], flags.seed)
    except ArgumentError as error:
        raise UserError(error.of_flag(command_line.FLAG_OF | own)) from error


def _run_of(experiment: Experiment, draws, phase: Phase, phase_start: int) -> Run:
    """Compiles a phase."""
    learner, strategy = experiment.learner, experiment.strategy
    op, draw = experiment.ops[phase.name], draws[phase.name]
    spec, count = _unit(experiment.flags, phase)
    if not phase.compiled:
        return one_by_one(op, draw, count, phase_start)
    whole = isinstance(op, WholeOp) or isinstance(spec, BatchSpec)

    def share(tasks):
        return tasks if whole else learner.share(tasks, experiment.problem.training)

    if strategy.num_replicas_in_sync > 1 and not isinstance(op, WholeOp):
        return distribute.iterate(strategy, op, draw, count, share, phase_start)
    return iterate(op, draw, count, share(count), phase_start)


def _validator(experiment: Experiment):
    """(() -> whether to leave off) -> mean validation scores [entries]; None where there is nothing
    to validate on."""
    never = experiment.row.validate_every is None
    if never or experiment.flags.train_on == 'trainval' or 'val' not in experiment.source.splits:
        return None
    if simulates(experiment):
        return policy_validator(experiment)
    tasks = experiment.source.tasks('val', experiment.evaluation, evaluate.TASK_SEED)
    score = evaluator(experiment, tasks, experiment.learner.validation_steps)
    return lambda leave_off: score(VALIDATION_TASKS, leave_off).mean(0)
