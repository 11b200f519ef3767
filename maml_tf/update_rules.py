"""Update rules: what one step of the inner loop makes of the weights, given their gradients."""

from collections.abc import Mapping

import tensorflow as tf

Tensors = dict[str, tf.Tensor]


class UpdateRule:
    """One step of an inner loop. Subclasses write `__call__`; the rest has defaults.

    Weights and gradients share their keys and shapes, [tasks, ...]. What a rule learns is handed to
    it as `parameters`, never read from variables in `__call__`: the derivatives of a loop that is
    computed anew on the way back (rematerialise.py) reach only what is handed over.
    """

    def parameters(self) -> Tensors:
        """Returns what the rule learns, {name: tensor}, as it is now."""
        return {}

    def start(self, weights: Tensors) -> Tensors:
        """Returns the slots before the first step: the rule's memory from step to step."""
        del weights
        return {}

    def __call__(
        self,
        weights: Tensors,
        gradients: Tensors,
        slots: Tensors,
        parameters: Tensors,
        step: tf.Tensor | int,
    ) -> tuple[Tensors, Tensors]:
        """Returns (weights, slots) after the step; `step` counts from 0."""
        raise NotImplementedError


class GradientDescent(UpdateRule):
    """w - lr g.

    Args:
      lr: a number, or a tensor that broadcasts to every weight.
    """

    def __init__(self, lr: float | tf.Tensor):
        self.lr = lr

    def __call__(self, weights, gradients, slots, parameters, step):
        return {name: w - self.lr * gradients[name] for name, w in weights.items()}, slots


class LearntRates(UpdateRule):
    """w - a g with a learnt rate for every entry of every weight (Meta-SGD, Li et al. 2017, eq. 1).

    Args:
      rates: {name of the weight: variable of its shape without the task axis}.
    """

    def __init__(self, rates: Mapping[str, tf.Variable]):
        self.rates = rates

    def parameters(self) -> Tensors:
        return {name: tf.convert_to_tensor(rate) for name, rate in self.rates.items()}

    def __call__(self, weights, gradients, slots, parameters, step):
        return {name: w - parameters[name] * gradients[name] for name, w in weights.items()}, slots


class LearntRate(UpdateRule):
    """w - a g with one learnt rate a (Alpha MAML, Behl et al. 2019)."""

    def __init__(self, rate: tf.Variable):
        self.rate = rate

    def parameters(self) -> Tensors:
        return {'rate': tf.convert_to_tensor(self.rate)}

    def __call__(self, weights, gradients, slots, parameters, step):
        rate = parameters['rate']
        return {name: w - rate * gradients[name] for name, w in weights.items()}, slots


class ScaledLater(UpdateRule):
    """Another rule, of which the steps after the first see gradients that are multiplied.

    Of gradient descent that is another rate from the second step on: alpha, then alpha / 2 (Finn et
    al. 2017, section 5.3).
    """

    def __init__(self, rule: UpdateRule, factor: float):
        self._rule, self._factor = rule, factor

    def parameters(self) -> Tensors:
        return self._rule.parameters()

    def start(self, weights: Tensors) -> Tensors:
        return self._rule.start(weights)

    def __call__(self, weights, gradients, slots, parameters, step):
        # A loop in the graph counts its steps by a tensor.
        later = tf.cast(tf.convert_to_tensor(step) > 0, next(iter(gradients.values())).dtype)
        factor = 1 + later * (self._factor - 1)
        scaled = {name: factor * g for name, g in gradients.items()}
        return self._rule(weights, scaled, slots, parameters, step)


class RatesByStep(LearntRates):
    """w - a g with a learnt rate for every weight tensor and step (MAML++, Antoniou et al. 2019,
    section 4). Steps after the last have its rate.

    Args:
      rates: {name of the weight: variable [steps]}.
    """

    def __call__(self, weights, gradients, slots, parameters, step):
        def rate(name):
            of_weight = parameters[name]
            return tf.gather(of_weight, tf.minimum(step, of_weight.shape[0] - 1))

        return {name: w - rate(name) * gradients[name] for name, w in weights.items()}, slots


class AdamWithoutMomentum(UpdateRule):
    """Adam with beta_1 = 0 (Kingma and Ba 2015, algorithm 1): w - lr g / (sqrt(v_hat) + epsilon).

    Its slots are the second moments v. As in TensorFlow's Adam the bias correction is of the rate:
    lr sqrt(1 - beta_2^t) g / (sqrt(v) + epsilon).

    Args:
      moments: {name of the weight: v before the first step, without the task axis}; None: zeros.
      steps_before: steps that these moments have seen, a number or a float scalar.
    """

    def __init__(
        self,
        lr: float,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        moments: Mapping[str, tf.Variable] | None = None,
        steps_before: tf.Tensor | float = 0.0,
    ):
        self.lr, self.beta_2, self.epsilon = lr, beta_2, epsilon
        self._moments, self._steps_before = moments, steps_before

    def start(self, weights: Tensors) -> Tensors:
        if self._moments is None:
            return {name: tf.zeros_like(w) for name, w in weights.items()}
        return {
            name: tf.broadcast_to(tf.convert_to_tensor(self._moments[name]), tf.shape(w))
            for name, w in weights.items()
        }

    def __call__(self, weights, gradients, slots, parameters, step):
        dtype = next(iter(weights.values())).dtype
        t = tf.cast(step, dtype) + tf.cast(self._steps_before, dtype) + 1
        # tf.cast would round a Python number to float32 on the way to float64.
        rate = self.lr * tf.sqrt(1 - tf.pow(tf.constant(self.beta_2, dtype), t))
        moments = {
            name: self.beta_2 * v + (1 - self.beta_2) * tf.square(gradients[name])
            for name, v in slots.items()
        }
        after = {
            name: w - rate * gradients[name] / (tf.sqrt(moments[name]) + self.epsilon)
            for name, w in weights.items()
        }
        return after, moments
