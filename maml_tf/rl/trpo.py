"""Trust region policy optimisation (Schulman et al. 2015), of policies that adapt first."""

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from maml_tf.errors import ArgumentError
from maml_tf.ops.conjugate_gradients import conjugate_gradients
from maml_tf.rl.advantages import Samples
from maml_tf.rl.policy import Gaussian

Values = list[tf.Tensor]
# meta-weights -> the policies of all tasks after adaptation, in the states of the samples
Adapted = Callable[[Values], Gaussian]


@dataclasses.dataclass(frozen=True)
class TrustRegion:
    """Settings of a step; the defaults are the authors'.

    max_kl: delta, the mean divergence from the old policies that a step may reach.
    iterations, damping: of conjugate gradients; damping times the identity is added to the Fisher
      matrix.
    shrink, tries: the line search tries `tries` lengths, each `shrink` times the one before.
    """

    max_kl: float = 0.01
    iterations: int = 10
    damping: float = 1e-5
    shrink: float = 0.8
    tries: int = 15

    def __post_init__(self):
        if not self.max_kl > 0:
            raise ArgumentError('max_kl', self.max_kl, 'above 0')
        if not 0 < self.shrink < 1:
            raise ArgumentError('shrink', self.shrink, 'above 0 and below 1')


def surrogate(policy: Gaussian, samples: Samples, old: Gaussian) -> tf.Tensor:
    """Returns the mean over tasks and steps of pi(a|s) / pi_old(a|s) A, a scalar."""
    ratio = tf.exp(policy.log_likelihood(samples.actions) - old.log_likelihood(samples.actions))
    return tf.reduce_mean(samples.mean(ratio * samples.advantages))


def mean_kl(policy: Gaussian, samples: Samples, old: Gaussian) -> tf.Tensor:
    """Returns the mean over tasks and steps of KL(old || policy), a scalar."""
    return tf.reduce_mean(samples.mean(old.divergence(policy)))


class Linearised:
    """The policies after adaptation as a function of the meta-weights, near some of these.

    `fisher` is exact: the Hessian of `mean_kl` there. The divergence is stationary at the old
    policies, so its Hessian is J' F J: J is the Jacobian of means and log-deviations with respect
    to the meta-weights, through the inner steps, and F the divergence's own Hessian, which is
    diagonal. The product with J is the transposed of the product with J' (two passes backwards),
    so that the activations are computed once, for all products.

    Args:
      adapted: meta-weights -> policies.
      values: the meta-weights.
      samples: whose steps are averaged over.
    """

    def __init__(self, adapted: Adapted, values: Values, samples: Samples):
        self._values, self._samples = values, samples
        self._tape = tf.GradientTape(persistent=True, watch_accessed_variables=False)
        with tf.GradientTape(watch_accessed_variables=False, persistent=True) as self._of_product:
            with self._tape:
                self._tape.watch(values)
                self.policy = adapted(values)
                self.old = Gaussian(*map(tf.stop_gradient, self.policy))
                self.surrogate = surrogate(self.policy, samples, self.old)
            # Any vector would do: the product with J' is linear in it.
            self._cotangent = [tf.zeros_like(x) for x in self.policy]
            self._of_product.watch(self._cotangent)
            self._product = self._transposed(self._cotangent)

    def gradient(self) -> Values:
        """Returns the gradient of the surrogate with respect to the meta-weights."""
        return self._tape.gradient(self.surrogate, self._values, unconnected_gradients='zero')

    def fisher(self, direction: Values) -> Values:
        """Returns the product of the Fisher matrix with a direction."""
        mean, log_std = self._of_product.gradient(
            self._product, self._cotangent, direction, unconnected_gradients='zero'
        )
        counts = self._samples.counts
        # mean_kl weighs every task alike, and every step of a task.
        weights = tf.math.divide_no_nan(counts, tf.reduce_sum(counts, -1, keepdims=True))
        weights = weights[..., tf.newaxis] / tf.cast(tf.shape(counts)[0], counts.dtype)
        total = tf.reduce_sum(weights, 1, keepdims=True)
        return self._transposed(
            [weights * mean * tf.exp(-2 * self.old.log_std), 2 * total * log_std]
        )

    def _transposed(self, cotangent):
        return self._tape.gradient(
            list(self.policy), self._values, cotangent, unconnected_gradients='zero'
        )


def step(
    adapted: Adapted, values: Values, samples: Samples, region: TrustRegion
) -> tuple[Values, dict[str, tf.Tensor]]:
    """Returns (new meta-weights, what is logged); the old ones where no length is accepted.

    The direction solves (H + damping) x = gradient, its length is sqrt(2 max_kl / x'Hx). It is
    shortened until the surrogate is better than before and mean_kl is at most max_kl.

    Args:
      adapted: meta-weights -> the policies after adaptation in the states of `samples`.
      values: the meta-weights.
      samples: trajectories of the adapted policies.
    """
    here = Linearised(adapted, values, samples)
    gradient = here.gradient()

    def product(direction):  # of one system, as conjugate_gradients has it: [1, ...]
        along = here.fisher([direction[str(i)][0] for i in range(len(values))])
        damped = [h + region.damping * direction[str(i)][0] for i, h in enumerate(along)]
        return _as_dict(damped)

    solution = conjugate_gradients(product, _as_dict(gradient), region.iterations)
    curvature = _dot(solution, product(solution))
    full = tf.sqrt(tf.math.divide_no_nan(2 * region.max_kl * tf.ones_like(curvature), curvature))
    ascent = [full * solution[str(i)][0] for i in range(len(values))]

    def scores(length):
        policy = adapted(_moved(values, length, ascent))
        return surrogate(policy, samples, here.old), mean_kl(policy, samples, here.old)

    def is_fine(value, divergence):
        return (value > here.surrogate) & (divergence <= region.max_kl)

    def try_next(tried, length, *_):
        length *= region.shrink
        return tried + 1, length, *scores(length)

    one = tf.ones_like(curvature)
    tried, length, value, divergence = tf.while_loop(
        lambda tried, _, *found: (tried < region.tries) & ~is_fine(*found),
        try_next,
        (tf.constant(1), one, *scores(one)),
        maximum_iterations=region.tries - 1,
    )
    fine = is_fine(value, divergence)
    length = tf.where(fine, length, tf.zeros_like(length))
    moved = [tf.where(fine, new, old) for new, old in zip(_moved(values, length, ascent), values)]
    log = {
        'surrogate': tf.where(fine, value, here.surrogate),
        'kl': tf.where(fine, divergence, tf.zeros_like(divergence)),
        'step_length': length,
        'gradient_norm': tf.linalg.global_norm(gradient),
    }
    return moved, log


def _moved(values, length, direction):
    return [value + length * along for value, along in zip(values, direction)]


def _as_dict(tensors: Values) -> dict[str, Any]:
    return {str(i): tensor[tf.newaxis] for i, tensor in enumerate(tensors)}


def _dot(a, b):
    return tf.add_n([tf.reduce_sum(a[name] * b[name]) for name in a])
