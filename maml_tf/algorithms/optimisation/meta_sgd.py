"""Meta-SGD (Li, Zhou, Chen, Li 2017, arXiv 1707.09835)."""

import numpy as np

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import ArgumentError
from maml_tf.networks.network import Network
from maml_tf.objectives.objective import Objective
from maml_tf.update_rules import LearntRates


class MetaSGD(MAML):
    """Meta-SGD: MAML whose inner rate is learnt, one for every entry of every weight (eq. 1):
    theta' = theta - alpha * grad L_support(theta), and
    (theta, alpha) <- Adam(grad mean_i L_query(theta_i')).

    Rates may become negative, as in the paper.

    Args: MAML's without inner_lr and evaluation_lr, and
      rates: (low, high); every rate starts uniformly between them.
    Raises: ArgumentError where low is above high or either is no finite number.
    """

    steps_in_evaluation = None  # The rates are learnt for so many.
    heeds = tuple(name for name in MAML.heeds if name not in ('update_lr', 'train_update_lr'))

    def __init__(
        self,
        network: Network,
        objective: Objective,
        rates: tuple[float, float] = (0.005, 0.1),
        **kwargs,
    ):
        # Given here, so that a caller who gives them is refused.
        super().__init__(network, objective, inner_lr=0.0, evaluation_lr=None, **kwargs)
        low, high = rates
        if not -np.inf < low <= high < np.inf:
            reason = f'rates start between {low} and {high}: two finite numbers, the lower first'
            raise ArgumentError('rates', None, reason)
        adapted, _ = self.weights_of_the_network()
        random = np.random.default_rng([kwargs.get('seed', 0), 1])
        self.rates = {
            name: self.add_weight(
                name=f'rate_{name}',
                shape=weight.shape,
                initializer=self.starting_from(random.uniform(low, high, weight.shape)),
            )
            for name, weight in adapted.items()
        }
        self.update_rule = self.evaluation_rule = LearntRates(self.rates)

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'MetaSGD':
        rates = flags.meta_sgd_rate_from, flags.meta_sgd_rate_to
        arguments = cls.arguments_of(flags, problem)
        return cls(problem.network(), problem.objective, rates=rates, **arguments)

    @classmethod
    def tiny(cls) -> tuple['MetaSGD', EpisodeSpec]:
        learner, spec = MAML.tiny()
        return cls(learner.network, learner.objective, rates=(0.05, 0.15)), spec


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_float('meta_sgd_rate_from', 0.005, 'meta_sgd: the least initial inner rate')
    flags.DEFINE_float('meta_sgd_rate_to', 0.1, 'meta_sgd: the largest initial inner rate')
