"""Evaluates what a command line describes: scores, tables, pictures, exports."""

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from maml_tf.commands import command_line
from maml_tf.commands.experiment import Experiment
from maml_tf.commands.run_export import run_export
from maml_tf.commands.run_videos import run_videos
from maml_tf.commands.views import completed
from maml_tf.episodes import manifest
from maml_tf.episodes.image_completion import ImageCompletion
from maml_tf.episodes.segmentation.tasks import RegionTasks
from maml_tf.episodes.task import Draw, EpisodeSpec, SequenceSpec
from maml_tf.errors import ArgumentError, UserError
from maml_tf.evaluation import evaluate, pictures, report
from maml_tf.evaluation.ensemble import ensemble_scores
from maml_tf.learner import Learner
from maml_tf.objectives.metric import Axis, Metric
from maml_tf.saving.starting_weights import load_to_evaluate

CURVES, POINTS = 3, 200  # tasks in the picture of fits, and points of each curve


def run_evaluation(experiment: Experiment) -> None:
    """Scores the loaded checkpoint on --test_tasks tasks, and writes all that follows from it.

    Raises: UserError where there is nothing to evaluate, or not so many tasks.
    """
    flags, directory, learner = experiment.flags, experiment.directory, experiment.learner
    iteration, origin = load_evaluated(experiment)
    tasks = evaluation_tasks(experiment)
    protocol = _protocol(experiment, tasks)
    if flags.write_tasks:
        write = functools.partial(manifest.write, flags.write_tasks)
        experiment.workers.from_chief(lambda: write(tasks, task_count(flags), protocol))
    members = _members(experiment)
    if members:
        origin = f'the mean of iterations {", ".join(map(str, members))}'
    every = _scores(experiment, tasks, members)
    scores, further = (
        every[..., 0],
        dict(zip(learner.objective.further, np.moveaxis(every[..., 1:], -1, 0), strict=True)),
    )

    def tell():
        axis = learner.axis(scores.shape[1])
        size = _size(experiment)
        # Predictions of an ensemble are averaged in its scores alone.
        of_videos = {} if members else run_videos(experiment, origin)
        results = report_scores(
            experiment,
            scores,
            axis,
            size,
            protocol,
            iteration,
            origin,
            members,
            further,
            of_videos,
        )
        _draw(experiment, scores, tasks, size)
        print(f'Pictures and results.json: {directory.path}')
        run_export(experiment, iteration, results)

    experiment.workers.from_chief(tell)  # The others wait: who leaves first is taken for lost.


def report_scores(
    experiment: Experiment,
    scores: np.ndarray,
    axis: Axis,
    size: str,
    protocol: Mapping[str, Any],
    iteration: int | None,
    origin: str,
    members: Sequence[int] = (),
    further: Mapping[Metric, np.ndarray] | None = None,
    also: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Prints the table and writes results.json and its relatives; returns its content.

    Args:
      scores: [tasks, entries].
      axis: what the entries stand for.
      size: of the tasks, in words.
      protocol: see evaluation/report.py.
      iteration, origin: of the weights.
      members: iterations of an ensemble.
      further: scores [tasks, entries] by the objective's further metrics.
      also: what else results.json says.
    """
    flags, directory, learner = experiment.flags, experiment.directory, experiment.learner
    split = 'test' if flags.test_set else 'validation'
    heading = f'on {len(scores)} {flags.datasource} {split} tasks, {size}, {origin}'
    print(report.table(scores, learner.metric, axis, heading))
    for metric, values in (further or {}).items():
        print(report.table(values, metric, axis, heading))
    results = report.results(
        scores,
        learner.metric,
        axis,
        protocol,
        flags.seed,
        iteration,
        command_line.as_dict(flags),
        command_line.flagfile_of(sys.argv[1:]),
    )
    if members:
        results['ensemble'] = list(members)
    if further:
        results['further'] = [
            report.further_results(values, metric) for metric, values in further.items()
        ]
    results |= {'transductive': learner.transductive, **(also or {})}
    shot = getattr(experiment.evaluation, 'shot', flags.update_batch_size)
    report.write(directory.path, scores, results, shot, learner.evaluation_lr, further)
    return results


def evaluation_tasks(experiment: Experiment) -> Draw:
    """Returns the draw of the evaluation tasks. Raises ArgumentError where there are too few."""
    flags, spec = experiment.flags, experiment.evaluation
    if not flags.tasks_file:
        return experiment.source.tasks(experiment.split, spec, evaluate.TASK_SEED)
    if isinstance(spec, SequenceSpec):
        reason = f'lists tasks, and --algorithm={flags.algorithm} is evaluated on sequences'
        raise ArgumentError('tasks_file', flags.tasks_file, reason)
    tasks, count = manifest.read(flags.tasks_file, experiment.source, experiment.split, spec)
    if count < task_count(flags):
        reason = f'has {count} tasks; say so by --test_tasks={count}'
        raise ArgumentError('tasks_file', flags.tasks_file, reason)
    return tasks


def task_count(flags) -> int:
    """Returns how many tasks are evaluated on: --test_tasks, or by default all of --tasks_file."""
    if flags.tasks_file and flags.test_tasks == flags['test_tasks'].default:
        return manifest.sizes(flags.tasks_file).count
    return flags.test_tasks


def _members(experiment: Experiment) -> list[int]:
    """Returns the iterations of the checkpoints that --ensemble asks for; [] where it asks for
    none. Raises UserError where too few were kept."""
    flags, directory = experiment.flags, experiment.directory
    if flags.ensemble == 1:
        return []
    scores = directory.among_best()
    if len(scores) < flags.ensemble:
        raise UserError(
            f'--ensemble={flags.ensemble}: {directory.path} has kept {len(scores)} checkpoints '
            'for it; train with this flag, and at least as many validations'
        )
    sign = -1 if experiment.learner.metric.higher_is_better else 1
    best = sorted(scores, key=lambda iteration: (sign * scores[iteration], iteration))
    return sorted(best[: flags.ensemble])


def _scores(experiment: Experiment, tasks: Draw, members: list[int]) -> np.ndarray:
    """Returns the scores [tasks, entries, metrics] of the loaded checkpoint, or of an ensemble:
    by the learner's metric, and by the objective's further ones."""
    flags, learner, spec = experiment.flags, experiment.learner, experiment.evaluation
    if not members:
        return evaluator(experiment, tasks, further=True)(task_count(flags))
    restore = experiment.directory.restore_among_best
    loads = [functools.partial(restore, iteration) for iteration in members]
    chunk = evaluate.chunk(spec)
    at_once = learner.evaluation_share(chunk, experiment.problem.evaluation)
    scores = ensemble_scores(
        *(learner, loads, tasks, task_count(flags), chunk, at_once, experiment.workers),
        further=True,
    )
    load_evaluated(experiment)  # Pictures of single tasks are of the last checkpoint.
    return scores


def evaluator(
    experiment: Experiment, tasks: Draw, steps: int | None = None, further: bool = False
) -> Callable[[int], np.ndarray]:
    """Returns evaluate(count) -> scores, see evaluation/evaluate.py."""
    learner = experiment.learner
    chunk = evaluate.chunk(experiment.evaluation)
    at_once = learner.evaluation_share(chunk, experiment.problem.evaluation)
    return evaluate.evaluator(learner, tasks, steps, chunk, at_once, experiment.workers, further)


def _size(experiment: Experiment) -> str:
    """Returns '5-way 1-shot', of regression '10-shot', of sequences '5-way sequences of 50'."""
    spec = experiment.evaluation
    way = f'{spec.way}-way ' if experiment.row.classification else ''
    if isinstance(spec, SequenceSpec):
        return f'{way}sequences of {spec.length}'
    return f'{way}{spec.shot}-shot'


def load_evaluated(experiment: Experiment) -> tuple[int | None, str]:
    """Loads the weights to evaluate; returns (their iteration, where they come from)."""
    flags, directory = experiment.flags, experiment.directory
    if flags.init_from and not flags.train:
        origin = load_init_from(experiment, load_to_evaluate)
        experiment.learner.check_ready()
        directory.make()
        return None, origin
    directory.check()
    command_line.check_same_model(flags, directory.flags())
    iteration = directory.restore(-1 if flags.train else flags.test_iter)
    experiment.learner.check_ready()
    return iteration, f'iteration {iteration} of {max(iteration, experiment.iterations)}'


def load_init_from(experiment: Experiment, load: Callable[[Any, Learner], str]) -> str:
    """Loads the weights that --init_from names at the chief, and gives them to all workers.

    load: as of saving.starting_weights. Returns where the weights are from.
    """
    flags, learner, workers = experiment.flags, experiment.learner, experiment.workers
    origin = workers.from_chief(lambda: load(flags, learner))
    workers.share(learner.named_variables().values())
    return origin


def _protocol(experiment: Experiment, tasks) -> dict[str, Any]:
    """Which tasks are evaluated: runs that share it were scored on the same tasks."""
    flags, row, spec = experiment.flags, experiment.row, experiment.evaluation
    if row.classification:
        identity = {'tasks_sha256': manifest.fingerprint(tasks, task_count(flags))}
    else:
        # Where the data lie is not what they are.
        reads = [name for name in row.reads if name not in command_line.PATHS]
        identity = {name: flags[name].value for name in reads}
        for name in [name for name in reads if f'test_{name}' in reads]:
            # Runs that were trained otherwise may be scored on the same tasks.
            of_test = identity.pop(f'test_{name}')
            identity[name] = identity[name] if of_test is None else of_test
    return {
        'datasource': flags.datasource,
        'split': experiment.split,
        **_sizes(spec),
        'task_seed': evaluate.TASK_SEED,
        **identity,
    }


def _sizes(spec: EpisodeSpec | SequenceSpec) -> dict[str, int]:
    if isinstance(spec, SequenceSpec):
        return {'way': spec.way, 'length': spec.length}
    return {'way': spec.way, 'shot': spec.shot, 'query': spec.query}


def _draw(experiment: Experiment, scores: np.ndarray, tasks, size: str) -> None:
    """Draws the pictures beside results.json."""
    flags, learner, path = experiment.flags, experiment.learner, experiment.directory.path
    kind = f'{flags.algorithm}, {flags.datasource} {size}'
    pictures.of_scores(
        path,
        scores,
        learner.axis(scores.shape[1]),
        learner.metric,
        experiment.directory.of_chief.metrics(),
        f'{kind}, {len(scores)} tasks',
    )
    if experiment.row.classification:
        few = 'tasks' if isinstance(tasks, RegionTasks) else 'task'
        title = f'{kind}: the first {experiment.split} {few}'
        pictures.of_image_task(path, learner, tasks, title)
        return
    spec, source = experiment.problem.evaluation, experiment.source
    if isinstance(source, ImageCompletion):
        images = completed.tasks_of(source, experiment.split, evaluate.TASK_SEED)
        completions = {flags.algorithm: completed.complete(learner, images)}
        completed.draw(path / 'completions.png', images, completions)
    curves = source.curves(experiment.split, spec, evaluate.TASK_SEED, CURVES, POINTS)
    if curves is not None:
        title = (
            f'{flags.algorithm}: {flags.datasource}, {spec.shot} support points, '
            f'the first {CURVES} {experiment.split} tasks'
        )
        pictures.of_curves(path, learner, curves, learner.evaluation_steps, title)
