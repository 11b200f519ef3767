"""Update rules of ordinary training, here on one support set."""

import tensorflow as tf

from maml_tf.update_rules import Tensors, UpdateRule


class Momentum(UpdateRule):
    """Gradient descent with momentum, as PyTorch defines it.

    g <- gradient + weight_decay w; v <- momentum v + (1 - dampening) g, but g itself in the first
    step; w <- w - lr v. The slots are v.
    """

    def __init__(
        self, lr: float, momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0
    ):
        self.lr, self.momentum = lr, momentum
        self.dampening, self.weight_decay = dampening, weight_decay

    def start(self, weights: Tensors) -> Tensors:
        return {name: tf.zeros_like(w) for name, w in weights.items()}

    def __call__(self, weights, gradients, slots, parameters, step):
        first = tf.equal(step, 0)
        after, velocities = {}, {}
        for name, w in weights.items():
            g = gradients[name] + self.weight_decay * w
            moved = self.momentum * slots[name] + (1 - self.dampening) * g
            velocities[name] = tf.where(first, g, moved)
            after[name] = w - self.lr * velocities[name]
        return after, velocities


class DecayingRate(UpdateRule):
    """w - lr / (1 + decay step) g, with the rate that Torch's `optim.sgd` has.

    Args:
      lr, decay: numbers or scalar tensors.
    """

    def __init__(self, lr: float | tf.Tensor, decay: float | tf.Tensor):
        self.lr, self.decay = lr, decay

    def __call__(self, weights, gradients, slots, parameters, step):
        dtype = next(iter(weights.values())).dtype
        lr, decay = (
            # tf.cast would round a Python number to float32 on the way to float64.
            tf.cast(value, dtype) if tf.is_tensor(value) else tf.constant(value, dtype)
            for value in (self.lr, self.decay)
        )
        rate = lr / (1 + decay * tf.cast(step, dtype))
        return {name: w - rate * gradients[name] for name, w in weights.items()}, slots


class Adam(UpdateRule):
    """Adam as the end of section 2 has it (Kingma and Ba 2015): the rate has its bias correction.

    The slots are the first and second moments, `<name>_m` and `<name>_v`.
    """

    def __init__(
        self, lr: float, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-8
    ):
        self.lr, self.beta_1, self.beta_2, self.epsilon = lr, beta_1, beta_2, epsilon

    def start(self, weights: Tensors) -> Tensors:
        return {f'{name}_{kind}': tf.zeros_like(w) for name, w in weights.items() for kind in 'mv'}

    def __call__(self, weights, gradients, slots, parameters, step):
        dtype = next(iter(weights.values())).dtype
        t = tf.cast(step, dtype) + 1
        left = lambda beta: 1 - tf.pow(tf.constant(beta, dtype), t)
        rate = self.lr * tf.sqrt(left(self.beta_2)) / left(self.beta_1)
        after, moments = {}, {}
        for name, w in weights.items():
            g = gradients[name]
            m = self.beta_1 * slots[f'{name}_m'] + (1 - self.beta_1) * g
            v = self.beta_2 * slots[f'{name}_v'] + (1 - self.beta_2) * tf.square(g)
            after[name] = w - rate * m / (tf.sqrt(v) + self.epsilon)
            moments |= {f'{name}_m': m, f'{name}_v': v}
        return after, moments
