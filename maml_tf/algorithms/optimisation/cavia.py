"""CAVIA, fast context adaptation (Zintgraf et al., ICML 2019, arXiv 1810.03642)."""

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.networks.conv_net import ConvNet
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.networks.network import CONTEXT, Network
from maml_tf.networks.reference import check_has_context, check_keeps_context
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.objective import Objective

CLIP = 10.0  # The authors'.


class CAVIA(MAML):
    """CAVIA: MAML whose inner loop adapts a context vector alone, from zero (eqs. 3 and 4):
    phi_i' = phi - alpha grad_phi L_support(phi, theta) from phi = 0, and
    theta <- Adam(grad_theta mean_i L_query(phi_i', theta)).

    The context enters a fully connected network beside its inputs, a convolutional one by FiLM
    (networks/conv_net.py). On the sinusoid the authors clip the gradient of each task; here it is
    that of the meta-batch (`clip`), as they do on images.

    Args: MAML's, and
      network: has a weight `context`.
    Raises: ArgumentError where it has none.
    """

    steps_in_evaluation = None

    def __init__(
        self,
        network: Network,
        objective: Objective,
        inner_lr: float = 1.0,
        inner_steps: int = 1,
        clip: float | None = CLIP,
        **kwargs,
    ):
        check_has_context(network)
        super().__init__(network, objective, inner_lr, inner_steps, clip=clip, **kwargs)

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'CAVIA':
        """Returns the learner that the command line describes, with the authors' networks."""
        classification = problem.objective.classification
        steps = 2 if classification else 1
        rates = cls.rates_of(flags, problem.inner_lr or 1.0)
        arguments = cls.arguments_of(flags, problem, steps) | rates
        size = flags.cavia_context
        network = problem.network()
        if isinstance(network, ConvNet):
            changes = {'film': size or 100, 'start': 'he', 'head': 'flatten'}
            if flags.norm == 'batch_norm':
                changes |= {'scale': True, 'epsilon': 1e-5}
        else:
            check_keeps_context(network.norm)
            changes = {'joined': size or 5, 'start': 'torch'}
        objective = problem.objective.averaged() if classification else problem.objective
        if flags.clip is None:
            del arguments['clip']  # The authors' own.
        return cls(problem.network(**changes), objective, **arguments)

    @classmethod
    def tiny(cls) -> tuple['CAVIA', EpisodeSpec]:
        spec = EpisodeSpec(way=3, shot=2, query=2)
        network = FullyConnected((8, 8, 1), spec.way, (32,), 'layer_norm', joined=8, start='torch')
        return cls(network, MeanClassification(), inner_steps=2), spec

    def adapts(self, name: str) -> bool:
        """Says whether this is the context."""
        return name == CONTEXT

    def learns(self, name: str) -> bool:
        """Says that all but the context is learnt: every task starts from zero."""
        return name != CONTEXT


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_integer(
        'cavia_context',
        None,
        'cavia: length of the context vector (default: 100 in a convolutional network, else 5)',
        lower_bound=1,
    )
