"""ANIL, almost no inner loop (Raghu, Raghu, Bengio, Vinyals, ICLR 2020, arXiv 1909.09157)."""

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.episodes.task import EpisodeSpec


class ANIL(MAML):
    """ANIL: MAML whose inner loop adapts the last linear layer alone, in training as in evaluation;
    the body is learnt by the outer loop.

    Args: MAML's.
    """

    @classmethod
    def tiny(cls) -> tuple['ANIL', EpisodeSpec]:
        learner, spec = MAML.tiny()
        return cls(learner.network, learner.objective, inner_lr=0.1, inner_steps=2), spec

    def adapts(self, name: str) -> bool:
        """Says whether this weight belongs to the last layer."""
        return self.network.is_head(name)
