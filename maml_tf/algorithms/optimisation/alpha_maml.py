"""Alpha MAML (Behl, Baydin, Torr, AutoML at ICML 2019, arXiv 1905.07435)."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import UserError
from maml_tf.networks.network import Network
from maml_tf.objectives.objective import Objective
from maml_tf.training import outer_optimizers
from maml_tf.training.outer_optimizers import adam
from maml_tf.training.phases import OuterLoop, Phase, Update
from maml_tf.update_rules import LearntRate


class AlphaMAML(MAML):
    """Alpha MAML: MAML that moves its two rates against their gradients (hypergradient descent):
    alpha <- alpha - kappa_alpha dL_query/dalpha, and beta <- beta + kappa_beta <G_t, u_{t-1}>.

    Iteration t computes the meta-gradient G_t at theta_{t-1} and alpha_{t-1}; moves beta, and then
    steps by it: theta_t = theta_{t-1} - beta_t u_t; alpha_t serves the next iteration.

    With plain gradient descent u is G, as in the paper; with Adam it is Adam's step divided by its
    rate. For one inner step the first is
    alpha + kappa_alpha mean_i <grad L_query(theta_i'), grad L_support(theta)>; for more it is the
    whole derivative. Neither rate is bounded, nor are their gradients
    clipped. `fit` steps by beta where `compile` was called without an optimizer.

    Args: MAML's without evaluation_lr, and
      inner_lr: alpha as it starts.
      meta_lr: beta as it starts.
      inner_rate_step, outer_rate_step: kappa_alpha, kappa_beta.
    """

    heeds = tuple(
        name for name in MAML.heeds if name not in ('train_update_lr', *outer_optimizers.FLAGS)
    )

    def __init__(
        self,
        network: Network,
        objective: Objective,
        inner_lr: float = 1e-3,
        inner_steps: int = 1,
        meta_lr: float = 1e-3,
        inner_rate_step: float = 1e-5,
        outer_rate_step: float = 2e-8,
        **kwargs,
    ):
        super().__init__(network, objective, inner_lr, inner_steps, evaluation_lr=None, **kwargs)
        self.inner_rate_step, self.outer_rate_step = inner_rate_step, outer_rate_step
        self.inner_rate = self.add_state('inner_rate', np.array(inner_lr))
        self.outer_rate = self.add_state('outer_rate', np.array(meta_lr))
        self.last_weights = {  # before the last step
            name: self.add_state(f'last_{name}', tf.zeros(weight.shape))
            for name, weight in self.meta_weights.items()
        }
        self.update_rule = self.evaluation_rule = LearntRate(self.inner_rate)

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'AlphaMAML':
        rates = cls.rates_of(flags)
        return cls(
            problem.network(),
            problem.objective,
            inner_lr=rates['inner_lr'],
            meta_lr=outer_optimizers.from_flags(flags, cls.outer).meta_lr,
            inner_rate_step=flags.alpha_maml_inner_rate_step,
            outer_rate_step=flags.alpha_maml_outer_rate_step,
            **cls.arguments_of(flags, problem),
        )

    @classmethod
    def tiny(cls) -> tuple['AlphaMAML', EpisodeSpec]:
        learner, spec = MAML.tiny()
        rates = {'inner_lr': 0.1, 'meta_lr': 3e-3, 'inner_rate_step': 1e-3, 'outer_rate_step': 1e-6}
        return cls(learner.network, learner.objective, inner_steps=2, **rates), spec

    @classmethod
    def check_flags(cls, flags) -> None:
        """Raises UserError for an outer rate that could never leave zero."""
        super().check_flags(flags)
        if flags.meta_lr == 0:
            raise UserError('--meta_lr=0: the outer rate starts from it and could never move')

    def meta_gradients(self, task: Task, step: tf.Tensor) -> Update:
        """Returns the meta-gradients; the new rates, and the weights before the step, as the state.

        Both rates are linear in this meta-batch's gradients: means over its parts are right.
        """
        update = self.gradients_of(self.meta_loss, task, step, also=[self.inner_rate])
        *gradients, to_inner_rate = update.gradients
        weights = self.meta_weights.values()
        products = [
            tf.reduce_sum(g * (last - w))
            for g, last, w in zip(gradients, self.last_weights.values(), weights, strict=True)
        ]
        along = tf.math.divide_no_nan(tf.add_n(products), self.outer_rate)
        along = tf.where(step > 0, along, tf.zeros_like(along))  # There is no last step yet.
        state = {f'last_{name}': tf.convert_to_tensor(w) for name, w in self.meta_weights.items()}
        state['inner_rate'] = self.inner_rate - self.inner_rate_step * to_inner_rate
        state['outer_rate'] = self.outer_rate + self.outer_rate_step * along
        rates = {name: state[name] for name in ('inner_rate', 'outer_rate')}
        return Update(gradients, update.log | rates, state)

    def phases(self, outer: OuterLoop) -> list[Phase]:
        *earlier, last = super().phases(outer)
        return [*earlier, dataclasses.replace(last, optimizer=self.outer_optimizer())]

    def outer_optimizer(self) -> keras.optimizers.Optimizer:
        """Returns Adam at the rate beta."""
        return adam(lambda: self.outer_rate.value)


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_float(
        'alpha_maml_inner_rate_step',
        1e-5,
        'alpha_maml: step size of the inner rate',
        lower_bound=0,
    )
    flags.DEFINE_float(
        'alpha_maml_outer_rate_step',
        2e-8,
        'alpha_maml: step size of the outer rate',
        lower_bound=0,
    )
