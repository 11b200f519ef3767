"""Means over tasks, and how sure they are.

Imports no TensorFlow, so that commands that only read results start at once.
"""

import numpy as np


def summarise(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Averages scores [tasks, entries] over the tasks.

    Returns means, standard deviations and half-widths of the 95% intervals, 1.96 s / sqrt(tasks),
    each [entries]. They are NaN or infinite where a score is.
    """
    # In float32 a sum over a thousand tasks is off by some 1e-6.
    scores = np.asarray(scores, np.float64)
    with np.errstate(invalid='ignore'):  # inf - inf, which is NaN as it should be
        means, deviations = scores.mean(0), scores.std(0)
    return means, deviations, 1.96 * deviations / np.sqrt(len(scores))


def paired(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Compares the scores [tasks] of two methods on the same tasks.

    Returns the mean of a - b and the half-width of its 95% interval.
    """
    means, _, ci95 = summarise(np.subtract(a, b)[:, np.newaxis])
    return float(means[0]), float(ci95[0])
