"""What ORBIT reports of a video (Massiceti et al. 2021, section 4.3), as pure functions.

Imports no TensorFlow.
"""

import numpy as np

from maml_tf.objectives.metric import Metric

METRICS = (
    Metric('frame_accuracy', 'Frame accuracy', '%', higher_is_better=True),
    Metric('frames_to_recognition', 'Frames to recognition', '%', higher_is_better=False),
    Metric('video_accuracy', 'Video accuracy', '%', higher_is_better=True),
)


def frame_accuracy(label: int, predicted: np.ndarray) -> float:
    """Returns the share of frames that are recognised.

    Args:
      label: the number of the video's object.
      predicted: int [frames], in the order of time; at least one.
    """
    return float(np.mean(np.asarray(predicted) == label))


def frames_to_recognition(label: int, predicted: np.ndarray) -> float:
    """Returns the share of the video that passes before the first recognised frame; 1: none is."""
    right = np.flatnonzero(np.asarray(predicted) == label)
    return float(right[0]) / len(predicted) if len(right) else 1.0


def video_accuracy(label: int, predicted: np.ndarray) -> float:
    """Returns 1 where the object that most frames are taken for is the video's, else 0.

    Among objects with as many frames it is the one of the lowest number, as in the official code.
    """
    return float(np.bincount(predicted).argmax() == label)


def scores(label: int, predicted: np.ndarray) -> tuple[float, float, float]:
    """Returns all three, in the order of METRICS."""
    return (
        frame_accuracy(label, predicted),
        frames_to_recognition(label, predicted),
        video_accuracy(label, predicted),
    )
