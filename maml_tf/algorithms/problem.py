"""The problem that a learner is made for: what its data are like."""

import dataclasses
from collections.abc import Callable

from maml_tf.episodes.task import EpisodeSpec
from maml_tf.networks.network import Network
from maml_tf.objectives.objective import Objective


@dataclasses.dataclass(frozen=True)
class Problem:
    """Describes the tasks of a data source to the methods that are to learn them.

    input_shape: of one example. output_dim: the width of a label; in classification the way.
    training, evaluation: how tasks are drawn.
    training_classes: how many a plain batch tells apart; None: not known, or no classes.
    objective: what the data source proposes.
    clip: bound of every entry of the meta-gradient, where the reference has one for these data.
    background: the value of pixels where nothing is drawn.
    network: makes the network that the command line asks for, with (input_shape, output_dim) of
      this problem; keyword arguments change single ones of its constructor arguments.
    inner_lr, evaluation_steps: of the inner loop, where the data source has its own; None: the
      method's.
    external_classes: how many labels there are beside the tasks, see EpisodeSource; None: nothing
      is beside them, or it is not known.
    """

    input_shape: tuple[int, ...]
    output_dim: int
    training: EpisodeSpec
    evaluation: EpisodeSpec
    training_classes: int | None
    objective: Objective
    clip: float | None
    background: float
    network: Callable[..., Network]
    inner_lr: float | None = None
    evaluation_steps: int | None = None
    external_classes: int | None = None
