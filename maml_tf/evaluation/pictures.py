"""The pictures of an evaluated run: its learning curve, its scores, and what it does to a task."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from maml_tf.algorithms.metric.metric_learner import MetricLearner
from maml_tf.episodes.image_tasks import ImageTasks
from maml_tf.episodes.sampling import Picks
from maml_tf.episodes.segmentation.tasks import RegionTasks
from maml_tf.episodes.task import Task
from maml_tf.evaluation import embedding_plots, maps, plots
from maml_tf.evaluation.intervals import summarise
from maml_tf.evaluation.report import GRADIENT_STEPS
from maml_tf.learner import Learner
from maml_tf.objectives.metric import Axis, Metric


def of_scores(
    directory: pathlib.Path,
    scores: np.ndarray,
    axis: Axis,
    metric: Metric,
    rows: Sequence[Mapping[str, str]],
    title: str,
) -> None:
    """Draws learning_curve.png and, where there are several entries, the scores along their axis.

    That is adaptation_by_step.png of gradient steps, else by_<axis>.png (by_instance.png).

    Args:
      scores: [tasks, entries].
      axis: what the entries stand for.
      rows: of metrics.csv.
      title: of the picture of the scores.
    """
    if len(axis.values) > 1:
        means, _, ci95 = summarise(scores)
        name = f'by_{axis.name.replace(" ", "_")}'
        if axis.name == GRADIENT_STEPS:
            name = 'adaptation_by_step'
        plots.by_axis(directory / f'{name}.png', axis, means, ci95, metric, title)
    plots.learning_curve(directory / 'learning_curve.png', rows, metric)


def of_curves(
    directory: pathlib.Path, learner: Learner, task: Task, steps: int, title: str
) -> None:
    """Draws fits.png: the true curves of some tasks, and what the learner predicts.

    Where it adapts in steps these are the first, second and last predictions. The last has a band
    of two deviations either way where the learner's objective has a deviation.

    Args:
      task: its query lies on an even grid of x, the first input.
      steps: of adaptation.
    """
    # In a graph: predicting each query by itself is a loop over all points of the curves.
    outputs = tf.function(lambda: learner.query_outputs(task, steps), autograph=False)()
    axis = learner.axis(len(outputs))
    shown = sorted({0, 1, len(outputs) - 1} & set(range(len(outputs))))
    predicted = {
        _label(axis, entry): learner.objective.predictions(outputs[entry]) for entry in shown
    }
    means = {label: said.get('mean', said['outputs']) for label, said in predicted.items()}
    band = predicted[_label(axis, shown[-1])].get('deviation')
    plots.fits(directory / 'fits.png', task, means, title, band)


def of_image_task(
    directory: pathlib.Path, learner: Learner, tasks: ImageTasks | RegionTasks, title: str
) -> None:
    """Draws the first task as a metric learner sees it; of other learners there is no such picture.

    Of label images maps.png shows some tiles as any learner sees them, see maps.py. Else
    embedding.png shows the images in two dimensions; matches.png, of learners that compare images
    one by one, how much each query resembles each support image.
    """
    if isinstance(tasks, RegionTasks):
        maps.of_tasks(directory, learner, tasks, title)
        return
    if not isinstance(learner, MetricLearner):
        return
    picks, images = tasks.fetch(0, 1)
    task = tasks.assemble(picks, images)
    names = _names_of_classes(tasks, picks)
    state = learner.adapt(task.support_x, task.support_y)
    prototypes = learner.prototypes(state)
    embedding_plots.episode_embedding(
        directory / 'embedding.png',
        learner.embedded_support(state, task.support_x)[0],
        task.support_y[0],
        learner.embed(task.query_x)[0],
        task.query_y[0],
        names,
        None if prototypes is None else prototypes[0],
        title,
    )
    resemblance = learner.resemblance(state, task.query_x)
    if resemblance is not None:
        embedding_plots.similarity_matrix(
            directory / 'matches.png',
            resemblance[0],
            np.argmax(task.query_y[0], -1),
            np.argmax(task.support_y[0], -1),
            title,
            names,
        )


def _label(axis: Axis, entry: int) -> str:
    """Returns 'before adaptation', 'after 1 gradient step', 'after 5 gradient steps'."""
    if len(axis.values) == 1:
        return 'prediction'
    value = axis.values[entry]
    if value == 0:
        return 'before adaptation'
    return f'after {value} {axis.name.removesuffix("s") if value == 1 else axis.name}'


def _names_of_classes(tasks: ImageTasks, picks: Picks) -> list[str] | None:
    """Returns the names of the first task's classes, with their quarter turns; None: no names."""
    if tasks.classes.class_names is None:
        return None
    names = [tasks.classes.class_names[number] for number in picks.classes[0].numpy()]
    if picks.turns is None:
        return names
    turns = picks.turns[0].numpy()
    return [f'{name} {90 * turn}°' if turn else name for name, turn in zip(names, turns)]
