"""Baseline++ (Chen, Liu, Kira, Wang, Huang, ICLR 2019, arXiv 1904.04232)."""

from maml_tf.algorithms.baselines.baseline import Baseline
from maml_tf.algorithms.baselines.heads import CosineHead
from maml_tf.algorithms.baselines.pretrained import define_batch_flag
from maml_tf.algorithms.problem import Problem


class BaselinePP(Baseline):
    """Baseline++: Baseline with cosines between features and the classes' weights, scaled.

    They are the outputs in pretraining and in each task alike, see CosineHead.

    Args: Baseline's.
    """

    head = CosineHead()

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'BaselinePP':
        """Returns the learner that the command line describes. Raises UserError in regression."""
        return cls(**cls.arguments_of(flags, problem))


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    define_batch_flag(flags, 'baseline_pp', 16)
