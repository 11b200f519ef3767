"""Means over tasks and how sure they are; without TensorFlow, so that commands that only read
results start at once."""

import numpy as np


def summarise(scores):
    """[tasks, steps + 1] -> means, standard deviations and 95% half-widths (1.96 s / sqrt(tasks))
    per step."""
    means, deviations = scores.mean(0), scores.std(0)
    return means, deviations, 1.96 * deviations / np.sqrt(len(scores))


def paired(a, b):
    """Scores [tasks] of two methods on the same tasks -> mean of a - b and its 95% half-width."""
    means, _, ci95 = summarise(np.subtract(a, b)[:, None])
    return float(means[0]), float(ci95[0])
