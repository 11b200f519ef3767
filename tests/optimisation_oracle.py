"""Meta-SGD and Reptile from the papers' equations: NumPy float64, one task at a time.

Meta-SGD (Li et al. 2017, arXiv 1707.09835) and Reptile (Nichol et al. 2018, arXiv 1803.02999), on
fully connected networks. The gradient of a task's loss is written by hand. It holds for complex
weights too, so that `complex_step_gradient` differentiates a whole meta-learner to the last digits.

Weights are {name: array}: w1 b1 w2 b2 ... and, with a normalisation, norm0_beta (norm0_gamma) ....
A task is (support_x [n, in], support_y [n, out], query_x, query_y).
"""

import numpy as np

BATCH_NORM_EPSILON = 1e-3
LAYER_NORM_EPSILON = 1e-12
ADAM_EPSILON = 1e-8  # TensorFlow 1's default, which the authors of Reptile keep.


# A network and its losses


def outputs(weights, x):
    """Of a fully connected network with ReLU: x [n, in] -> [n, out]."""
    return _layers(weights, x)[-1][-1]


def loss(weights, x, y, shots=None):
    """Of one set of examples: a number.

    shots: None: mean squared error; a number: cross-entropy summed over the examples, over it.
    """
    return _loss_and_gradient_at_outputs(outputs(weights, x), y, shots)[0]


def gradient(weights, x, y, shots=None):
    """{name: array}, of `loss` with respect to every weight, by hand."""
    *hidden, (name, inputs, out) = _layers(weights, x)
    gradients, (_, slope) = {}, _loss_and_gradient_at_outputs(out, y, shots)
    while True:
        gradients[f'w{name}'], gradients[f'b{name}'] = inputs.T @ slope, slope.sum(0)
        if not hidden:
            return gradients
        slope = slope @ weights[f'w{name}'].T
        name, inputs, linear = hidden.pop()
        scope, standard, roots, axis = _normalise(weights, name, linear)
        slope = slope * (_scale_and_shift(weights, scope, standard).real > 0)
        if axis is None:
            continue
        gradients[f'{scope}_beta'] = slope.sum(0)
        if f'{scope}_gamma' in weights:
            gradients[f'{scope}_gamma'] = (slope * standard).sum(0)
            slope = slope * weights[f'{scope}_gamma']
        mean = lambda v: v.mean(axis, keepdims=True)
        slope = roots * (slope - mean(slope) - standard * mean(slope * standard))


def _layers(weights, x):
    """[(number, inputs, linear outputs)] of the layers."""
    layers, last = [], sum(name.startswith('w') for name in weights)
    for number in range(1, last + 1):
        layers.append((number, x, x @ weights[f'w{number}'] + weights[f'b{number}']))
        scope, standard, _, _ = _normalise(weights, number, layers[-1][-1])
        normal = _scale_and_shift(weights, scope, standard)
        x = normal * (normal.real > 0)
    return layers


def _normalise(weights, number, x):
    """(scope, standardised x, inverse deviations, axis) of a layer; axis None: no normalisation."""
    scope = f'norm{number - 1}'
    if f'{scope}_beta' not in weights:
        return scope, x, 1.0, None
    # With a scale it is layer normalisation, without it batch normalisation.
    layer_norm = f'{scope}_gamma' in weights
    axis, epsilon = (1, LAYER_NORM_EPSILON) if layer_norm else (0, BATCH_NORM_EPSILON)
    centred = x - x.mean(axis, keepdims=True)
    roots = ((centred**2).mean(axis, keepdims=True) + epsilon) ** -0.5
    return scope, centred * roots, roots, axis


def _scale_and_shift(weights, scope, x):
    return x * weights.get(f'{scope}_gamma', 1.0) + weights.get(f'{scope}_beta', 0.0)


def _loss_and_gradient_at_outputs(out, y, shots):
    if shots is None:
        return ((out - y) ** 2).mean(), 2 * (out - y) / y.size
    shifted = out - out.real.max(1, keepdims=True)
    totals = np.exp(shifted).sum(1, keepdims=True)
    value = -(y * (shifted - np.log(totals))).sum() / shots
    return value, (np.exp(shifted) / totals * y.sum(1, keepdims=True) - y) / shots


# Derivatives of whole programs


def complex_step_gradient(function, values, step=1e-30):
    """{name: array}: the gradient of a number, function({name: array}), at `values`."""
    gradients = {}
    for name, value in values.items():
        gradients[name] = np.empty(value.shape)
        for i in np.ndindex(value.shape):
            moved = value.astype(complex)
            moved[i] += 1j * step
            gradients[name][i] = function({**values, name: moved}).imag / step
    return gradients


def finite_differences(function, values, step=1e-5):
    """As `complex_step_gradient`, by central differences."""
    gradients = {}
    for name, value in values.items():
        gradients[name] = np.empty(value.shape)
        for i in np.ndindex(value.shape):
            shift = np.zeros(value.shape)
            shift[i] = step
            ends = [function({**values, name: value + sign * shift}) for sign in (1, -1)]
            gradients[name][i] = (ends[0] - ends[1]) / (2 * step)
    return gradients


def mean(dicts):
    """{name: mean over the dicts}."""
    return {name: np.mean([d[name] for d in dicts], axis=0) for name in dicts[0]}


# Meta-SGD


def meta_sgd_trajectory(weights, rates, task, steps, shots=None, stop_grad=False):
    """Weights before and after every step of theta' = theta - alpha * gradient, a list of dicts.

    rates: {name: array} of the weights that are adapted; the others stay.
    stop_grad: the derivative of the gradient is taken for zero.
    """
    trajectory = [weights]
    for _ in range(steps):
        weights = dict(weights)
        slopes = gradient(weights, *task[:2], shots)
        for name, rate in rates.items():
            slope = slopes[name].real if stop_grad else slopes[name]
            weights[name] = weights[name] - rate * slope
        trajectory.append(weights)
    return trajectory


def meta_sgd_loss(weights, rates, tasks, steps, shots=None, stop_grad=False):
    """Mean over the tasks of the query loss after the steps."""
    losses = []
    for task in tasks:
        adapted = meta_sgd_trajectory(weights, rates, task, steps, shots, stop_grad)[-1]
        losses.append(loss(adapted, *task[2:], shots))
    return sum(losses) / len(losses)


def meta_sgd_gradients(weights, rates, tasks, steps, shots=None, stop_grad=False):
    """(of the weights, of the rates), each {name: array}, of `meta_sgd_loss`."""
    settings = tasks, steps, shots, stop_grad
    return (
        complex_step_gradient(lambda w: meta_sgd_loss(w, rates, *settings), weights),
        complex_step_gradient(lambda a: meta_sgd_loss(weights, a, *settings), rates),
    )


# Reptile


def adam_trajectory(weights, moments, batches, lr, beta_2, shots=None, steps_before=0):
    """Adam without a first moment (beta_1 = 0) on mini-batches of one task.

    Args:
      moments: {name: array}, the second moments to begin with.
      batches: a list of (x, y), one for each step.
      shots: as in `loss`: for the mini-batches, so examples per class of one of them.
      steps_before: steps that went into `moments`.
    Returns: (weights before and after every step, a list of dicts; moments at the end).
    """
    trajectory, count = [weights], steps_before
    for x, y in batches:
        slopes, count = gradient(weights, x, y, shots), count + 1
        moments = {k: beta_2 * moments[k] + (1 - beta_2) * slopes[k] ** 2 for k in slopes}
        corrected_lr = lr * np.sqrt(1 - beta_2**count)
        weights = {
            k: weights[k] - corrected_lr * slopes[k] / (np.sqrt(moments[k]) + ADAM_EPSILON)
            for k in slopes
        }
        trajectory.append(weights)
    return trajectory, moments


def reptile(weights, moments, tasks, orders, lr, beta_2, shots=None, steps_before=0):
    """(meta-gradient, new moments) of one meta-batch, each {name: array}.

    The meta-gradient is theta - mean theta_i; the new moments are the mean of the tasks'.

    Args:
      tasks: a list of (support_x, support_y).
      orders: for each task the examples of its mini-batches, [steps, size].
      lr, beta_2, shots, steps_before: as in `adam_trajectory`.
    """
    ends, end_moments = [], []
    for (x, y), order in zip(tasks, orders, strict=True):
        batches = [(x[numbers], y[numbers]) for numbers in order]
        trajectory, last = adam_trajectory(
            weights, moments, batches, lr, beta_2, shots, steps_before
        )
        ends.append(trajectory[-1])
        end_moments.append(last)
    end = mean(ends)
    return {name: weights[name] - end[name] for name in weights}, mean(end_moments)
