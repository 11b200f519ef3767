"""Bias transformation (Finn, Yu et al., CoRL 2017, arXiv 1709.04905, section 4)."""

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.networks.network import Network
from maml_tf.networks.reference import check_has_context, check_keeps_context
from maml_tf.objectives.classification import Classification
from maml_tf.objectives.objective import Objective


class BiasTransformation(MAML):
    """MAML with a learnt vector z that is joined to a layer's input and adapted with the weights:
    the layer computes W1 h + W2 z + b.

    One step changes the bias W2 z + b by -alpha [(1 + |z|^2) g + W2 W2' g] + O(alpha^2), where g is
    the gradient of an ordinary bias: how much is learnt, not fixed by alpha. As in the authors'
    code z starts from zero and enters the first fully connected layer.

    Args: MAML's, and
      network: has a weight `context`, the vector z.
    Raises: ArgumentError where it has none.
    """

    def __init__(self, network: Network, objective: Objective, *args, **kwargs):
        check_has_context(network)
        super().__init__(network, objective, *args, **kwargs)

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'BiasTransformation':
        """Returns the learner that the command line describes."""
        rates = cls.rates_of(flags, problem.inner_lr or 1e-3)
        arguments = cls.arguments_of(flags, problem) | rates
        network = problem.network(joined=flags.bias_transformation_size)
        if isinstance(network, FullyConnected):
            check_keeps_context(network.norm)
        return cls(network, problem.objective, **arguments)

    @classmethod
    def tiny(cls) -> tuple['BiasTransformation', EpisodeSpec]:
        spec = EpisodeSpec(way=3, shot=2, query=2)
        network = FullyConnected((8, 8, 1), spec.way, (32, 32), 'layer_norm', joined=4)
        return cls(network, Classification(), inner_lr=0.1, inner_steps=1), spec


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_integer(
        'bias_transformation_size',
        10,
        'bias_transformation: length of the joined vector',
        lower_bound=1,
    )
