"""The picture of an evaluation of whole videos."""

import pathlib

import numpy as np
from matplotlib.figure import Figure

from maml_tf.evaluation import figures
from maml_tf.evaluation.intervals import summarise
from maml_tf.evaluation.videos.metrics import METRICS
from maml_tf.evaluation.videos.scores import VideoScore
from maml_tf.terminal.text import cut


def by_user(path: pathlib.Path, scored: list[VideoScore], title: str) -> None:
    """Draws each user's mean of every metric, in percent, with its 95% interval over the videos.

    Users are sorted by frame accuracy: between users it differs more than between methods.
    """
    users = {}
    for one in scored:
        users.setdefault(one.user, []).append(one.scores)
    summaries = {user: summarise(np.array(scores)) for user, scores in users.items()}
    order = sorted(summaries, key=lambda user: summaries[user][0][0])
    figure = Figure(figsize=(max(5, 1.5 + 0.5 * len(order)), 4))
    axes = figure.subplots()
    for i, metric in enumerate(METRICS):
        means, halves = (np.array([summaries[user][j][i] for user in order]) for j in (0, 2))
        places = np.arange(len(order)) + 0.2 * (i - 1)
        axes.errorbar(places, 100 * means, 100 * halves, fmt='o', label=metric.title, capsize=2)
    axes.set_xticks(range(len(order)), [cut(user, 12) for user in order], rotation=60, ha='right')
    axes.set_ylim(0, 100)
    axes.set_xlabel('user')
    axes.set_ylabel('% of frames, of the video, of videos')
    axes.set_title(title, fontsize='medium')
    axes.grid(axis='y', alpha=0.3)
    axes.legend(fontsize='small')
    for text in [axes.title, *axes.get_xticklabels()]:
        text.set_family(figures.fonts())
    figures.fit_and_save(figure, path)
