"""Scores of whole videos: a learner adapts to a user's objects, and is shown frame after frame."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.evaluation.intervals import summarise
from maml_tf.evaluation.report import table
from maml_tf.evaluation.videos import metrics
from maml_tf.learner import Learner
from maml_tf.objectives.metric import Axis
from maml_tf.terminal import progress


class VideoScore(NamedTuple):
    """Holds what became of one video in one task: its scores, in the order of metrics.METRICS.

    objects: how many the task has; frames: how many were shown.
    """

    user: str
    repeat: int
    video: str
    objects: int
    frames: int
    scores: tuple[float, float, float]


def score(learner: Learner, tasks: Iterable[Any], steps: int | None = None) -> list[VideoScore]:
    """Scores every video of every task.

    The frames of a video are the queries of one call, and no frame of another video is among them:
    so a `transductive` learner, unlike the benchmark's rules, sees later frames of the video.

    Args:
      tasks: of a source's `videos`.
      steps: of adaptation; None: the learner's `evaluation_steps`.
    """
    steps = learner.evaluation_steps if steps is None else steps
    adapt, predict = _programs(learner, steps)
    scored = []
    with progress.bar(None, 'videos', unit='video', delay=5, leave=False) as bar:
        for task in tasks:
            state = adapt(task.support_x, task.support_y, task.key)
            for video in task.videos:
                outputs = predict(state, video.frames())[0, :, : len(task.objects)]
                predicted = tf.argmax(outputs, -1).numpy()
                scored.append(
                    VideoScore(
                        task.user,
                        task.repeat,
                        video.name,
                        len(task.objects),
                        len(predicted),
                        metrics.scores(video.label, predicted),
                    )
                )
                bar.update(1)
    return scored


def _programs(learner, steps):
    """Returns adapt(support_x, support_y, key) -> state, and predict(state, frames) -> outputs.

    Users differ in their objects and videos in their frames: each is traced anew for another size
    once or twice, and then for any. For the same reason XLA does not compile them.
    """

    @tf.function(autograph=False, reduce_retracing=True)
    def adapt(support_x, support_y, key):
        return learner.adapt(support_x, support_y, steps, key=key)

    @tf.function(autograph=False, reduce_retracing=True)
    def predict(state, frames):
        return learner.predict_query(state, frames)

    return adapt, predict


def results(scored: list[VideoScore]) -> dict[str, Any]:
    """Returns what results.json says of them: each metric's mean and 95% interval, over all videos
    of all tasks, as the benchmark's; and the means of each user."""
    means, _, halves = summarise(np.array([one.scores for one in scored]))
    names = [metric.name for metric in metrics.METRICS]
    users = {}
    for user in dict.fromkeys(one.user for one in scored):
        own = np.array([one.scores for one in scored if one.user == user])
        users[user] = dict(zip(names, own.mean(0).tolist())) | {'videos': len(own)}
    return {
        'videos': len(scored),
        'frames': sum(one.frames for one in scored),
        **{
            name: {'mean': float(mean), 'ci95': float(half)}
            for name, mean, half in zip(names, means, halves)
        },
        'users': users,
    }


def text(scored: list[VideoScore], heading: str) -> str:
    """Returns the screen's table: a heading, and the mean of each metric with its interval."""
    lines = [heading]
    for i, metric in enumerate(metrics.METRICS):
        values = np.array([[one.scores[i]] for one in scored])
        row = table(values, metric, Axis('', (0,)), '').splitlines()[-1]
        lines.append(f'  {metric.title:<22}{row}')
    return '\n'.join(lines)


def rows(scored: list[VideoScore]) -> list[list[Any]]:
    """Returns the content of videos.csv, a header and a row for each video of each task."""
    header = ['user', 'task', 'video', 'objects', 'frames', *(m.name for m in metrics.METRICS)]
    return [header, *([*one[:-1], *one.scores] for one in scored)]
