"""Evaluates whole videos, of data that have them: the table, videos.csv, users.png."""

import csv
import io
from typing import Any

from maml_tf.commands.experiment import Experiment
from maml_tf.evaluation import evaluate
from maml_tf.evaluation.videos import plots, scores
from maml_tf.serialisation.files import write_atomically


def run_videos(experiment: Experiment, origin: str) -> dict[str, Any]:
    """Scores the loaded checkpoint on the videos of the source, where it has some.

    A task has all objects of its user; of a method with one output per class it has --num_classes
    of them, and users with fewer have none.

    origin: of the weights, in words.
    Returns: what results.json says of it; {} where the source has no videos, or --video_tasks=0.
    """
    flags, learner, path = experiment.flags, experiment.learner, experiment.directory.path
    videos = getattr(experiment.source, 'videos', None)
    if videos is None or not flags.video_tasks:
        return {}
    spec = experiment.problem.evaluation
    way = spec.way if learner.fixed_way else None
    tasks = videos(
        experiment.split, spec.shot, evaluate.TASK_SEED, flags.video_tasks, flags.video_frames, way
    )
    scored = scores.score(learner, tasks)
    content = {'tasks_per_user': flags.video_tasks, 'way': way, **scores.results(scored)}
    kind = f'{flags.algorithm}, {flags.datasource} {experiment.split}, {spec.shot}-shot'
    users = len(content['users'])
    heading = f'{len(scored)} videos in clutter of {users} users, {spec.shot}-shot, {origin}'
    print(scores.text(scored, heading))
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(scores.rows(scored))
    write_atomically(path / 'videos.csv', text.getvalue())
    plots.by_user(path / 'users.png', scored, f'{kind}: {len(scored)} videos')
    return {'videos': content}
