"""The pictures of an evaluated run: the learning curve, what adaptation does, and one task as the
learner sees it."""

from maml_tf.algorithms.metric.metric_learner import MetricLearner
from maml_tf.evaluation import embedding_plots, plots
from maml_tf.evaluation.intervals import summarise


def of_scores(directory, scores, metric, rows, title):
    """Draws learning_curve.png from the rows of metrics.csv; of methods with inner steps,
    adaptation_by_step.png."""
    means, _, ci95 = summarise(scores)
    if len(means) > 1:
        plots.metric_by_step(directory / 'adaptation_by_step.png', means, ci95, metric, title)
    plots.learning_curve(directory / 'learning_curve.png', rows, metric)


def of_curves(directory, learner, task, steps, title):
    """Draws fits.png: the true curves of some tasks, and the predictions before and after some
    numbers of steps."""
    outputs = learner.query_outputs(task, steps)
    shown = sorted({0, 1, steps} & set(range(len(outputs))))
    plots.fits(directory / 'fits.png', task, {step: outputs[step] for step in shown}, title)


def of_image_task(directory, learner, tasks, title):
    """Draws the first task of an ImageTasks as a metric learner sees it; other learners have no
    such picture.

    embedding.png: its images in two dimensions. matches.png: how much each query resembles each
    support image, of learners that have an `attention` or a `similarity`.
    """
    if not isinstance(learner, MetricLearner):
        return
    picks, images = tasks.fetch(0, 1)
    task = tasks.assemble(picks, images)
    names = tasks.classes.class_names
    names = [names[c] for c in picks.classes[0].numpy()] if names else None
    if names and picks.turns is not None:
        names = [
            f'{name} {90 * turn}°' if turn else name
            for name, turn in zip(names, picks.turns[0].numpy())
        ]
    state = learner.adapt(task.support_x, task.support_y)
    query = learner.embed(task.query_x)
    # A learner may keep embeddings that know the whole support set.
    support = state.get('support', learner.embed(task.support_x))
    prototypes = state['prototypes'][0] if 'prototypes' in state else None
    embedding_plots.episode_embedding(
        directory / 'embedding.png',
        support[0],
        task.support_y[0],
        query[0],
        task.query_y[0],
        names,
        prototypes,
        title,
    )
    matrix = (
        learner.attention(state, task.query_x)
        if hasattr(learner, 'attention')
        else learner.similarity(state, query)
        if hasattr(learner, 'similarity')
        else None
    )
    if matrix is not None:
        embedding_plots.similarity_matrix(
            directory / 'matches.png',
            matrix[0],
            task.query_y[0].numpy().argmax(-1),
            task.support_y[0].numpy().argmax(-1),
            title,
            names,
        )
