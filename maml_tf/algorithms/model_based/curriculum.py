"""Prompts that grow in the course of training (Garg et al. 2022, appendix A.2)."""

import dataclasses

from maml_tf.episodes.points import PromptSpec
from maml_tf.episodes.task import EpisodeSpec

# Coordinates that are not zero in the first stage.
FIRST = 5


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stretch of training: from which iteration on, how many, and the prompts that are drawn."""

    start: int
    iterations: int
    spec: PromptSpec


def stages(dimension: int, spec: EpisodeSpec, every: int, iterations: int) -> list[Stage]:
    """Returns the stages of a training, also those that it is too short for.

    Each has one coordinate more, from 5 to `dimension`, and as many pairs before the last as are
    proportionate: from spec.shot + spec.query - 1 = 40 (100) pairs in 20 dimensions that is the
    paper's 10, 12, ..., 40 (25, 30, ..., 100).

    Args:
      dimension: of x.
      spec: of the whole prompts.
      every: iterations of a stage but the last, which has the rest.
      iterations: of the training.
    """
    context, first = spec.shot + spec.query - 1, min(FIRST, dimension)
    found = []
    for number, coordinates in enumerate(range(first, dimension + 1)):
        start = min(number * every, iterations)
        end = iterations if coordinates == dimension else min(start + every, iterations)
        pairs = max(1, round(context * coordinates / dimension))
        prompt = PromptSpec(way=1, shot=pairs, query=1, coordinates=coordinates)
        found.append(Stage(start, end - start, prompt))
    return found
