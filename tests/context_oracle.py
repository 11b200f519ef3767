"""ANIL, CAVIA, bias transformation and MAML++ from the papers' equations: NumPy float64, one task
at a time.

ANIL (Raghu et al. 2020, arXiv 1909.09157), CAVIA (Zintgraf et al. 2019, arXiv 1810.03642), bias
transformation (Finn, Yu et al. 2017, arXiv 1709.04905) and MAML++ (Antoniou et al. 2019, arXiv
1810.09502) take the same inner step, w' = w - rate * gradient. They differ in which weights take
it, by which rates, and in what the query loss is made of. The gradient of a fully connected network
is written by hand and holds for complex weights, so that the complex step differentiates a whole
meta-learner. Of a convolutional network the complex step gives the inner gradient, and central
differences the outer one.

Weights are {name: array}, named as the networks name them. A task is (support_x [n, ...],
support_y [n, out], query_x, query_y).
"""

import numpy as np
from optimisation_oracle import BATCH_NORM_EPSILON, LAYER_NORM_EPSILON, complex_step_gradient


class Network:
    """What the networks share: the normalisation, and the loss of their outputs.

    Args:
      norm: 'None', 'batch_norm' or 'layer_norm'; with weights norm*_gamma there is a scale.
      regression: mean squared error; else the mean cross-entropy.
      epsilon: of batch normalisation.
      negative_slope: of the nonlinearity below zero.
    """

    def __init__(
        self, norm='None', regression=False, epsilon=BATCH_NORM_EPSILON, negative_slope=0.0
    ):
        self.norm, self.regression = norm, regression
        self.epsilon, self.negative_slope = epsilon, negative_slope

    def outputs(self, weights, x):
        """Of one set of examples: x [n, ...] -> [n, out]."""
        raise NotImplementedError

    def loss(self, weights, x, y):
        """Of one set of examples: a number."""
        return self._loss_and_slope(self.outputs(weights, x), y)[0]

    def gradient(self, weights, x, y, names):
        """{name: array}, of `loss` with respect to these weights."""
        raise NotImplementedError

    def _loss_and_slope(self, out, y):
        """(loss, its gradient at the outputs)."""
        if self.regression:
            return ((out - y) ** 2).mean(), 2 * (out - y) / y.size
        shifted = out - out.real.max(1, keepdims=True)
        totals = np.exp(shifted).sum(1, keepdims=True)
        value = -(y * (shifted - np.log(totals))).sum() / len(y)
        return value, (np.exp(shifted) / totals - y) / len(y)

    def _standardise(self, x):
        """(x standardised, inverse deviations, axes)."""
        if self.norm == 'None':
            return x, 1.0, None
        if self.norm == 'batch_norm':
            axes, epsilon = tuple(range(x.ndim - 1)), self.epsilon
        else:
            axes, epsilon = tuple(range(1, x.ndim)), LAYER_NORM_EPSILON
        centred = x - x.mean(axes, keepdims=True)
        roots = ((centred**2).mean(axes, keepdims=True) + epsilon) ** -0.5
        return centred * roots, roots, axes

    @staticmethod
    def _scale_and_shift(weights, block, x):
        return x * weights.get(f'norm{block}_gamma', 1.0) + weights.get(f'norm{block}_beta', 0.0)

    def _factor(self, x):
        """The derivative of the nonlinearity at x, which is its factor, too."""
        return np.where(x.real > 0, 1.0, self.negative_slope)


def join(x, weights):
    """Joins the context, where there is one, to every example: [n, in] -> [n, in + k]."""
    if 'context' not in weights:
        return x
    return np.hstack([x, np.tile(weights['context'], (len(x), 1))])


class FullyConnected(Network):
    """Linear layers w1 b1 w2 ... with ReLU; the context is joined to the inputs of the first."""

    def outputs(self, weights, x):
        return self._layers(weights, x)[-1][-1]

    def gradient(self, weights, x, y, names):
        *hidden, (number, inputs, out) = self._layers(weights, x)
        gradients, (_, slope) = {}, self._loss_and_slope(out, y)
        while True:
            gradients[f'w{number}'], gradients[f'b{number}'] = inputs.T @ slope, slope.sum(0)
            slope = slope @ weights[f'w{number}'].T
            if not hidden:
                break
            number, inputs, linear = hidden.pop()
            standard, roots, axes = self._standardise(linear)
            slope = slope * self._factor(self._scale_and_shift(weights, number - 1, standard))
            if axes is None:
                continue
            gradients[f'norm{number - 1}_beta'] = slope.sum(0)
            gradients[f'norm{number - 1}_gamma'] = (slope * standard).sum(0)
            slope = slope * weights.get(f'norm{number - 1}_gamma', 1.0)
            average = lambda v, axes=axes: v.mean(axes, keepdims=True)
            slope = roots * (slope - average(slope) - standard * average(slope * standard))
        # The same context goes into every example.
        gradients['context'] = slope[:, x.shape[1] :].sum(0)
        return {name: gradients[name] for name in names}

    def _layers(self, weights, x):
        """[(number, inputs, linear outputs)] of the layers."""
        layers, x = [], join(x, weights)
        for number in range(1, sum(name.startswith('w') for name in weights) + 1):
            layers.append((number, x, x @ weights[f'w{number}'] + weights[f'b{number}']))
            standard = self._standardise(layers[-1][-1])[0]
            x = self._scale_and_shift(weights, number - 1, standard)
            x = x * self._factor(x)
        return layers


class ConvNet(Network):
    """Four blocks of 3x3 convolution, normalisation and ReLU, then a linear layer w5 b5.

    With film_w and film_b in the weights, h <- gamma h + delta before the third ReLU, where
    [gamma, delta] = context @ film_w + film_b. Else a context is joined to the inputs of w5.

    Args:
      max_pool: pools 2x2 pixels before the ReLU (an odd last row or column by itself); False:
        convolutions stride by 2.
      head: 'mean' over the last image, or 'flatten'.
    """

    def __init__(self, norm='None', max_pool=False, head='mean', **kwargs):
        super().__init__(norm, **kwargs)
        self.max_pool, self.head = max_pool, head

    def outputs(self, weights, x):
        for block in range(4):
            x = self._convolve(x, weights[f'conv{block + 1}']) + weights[f'b{block + 1}']
            x = self._scale_and_shift(weights, block, self._standardise(x)[0])
            if self.max_pool:
                x = _pool(x)
            if block == 2 and 'film_w' in weights:
                film = np.einsum('k,kc->c', weights['context'], weights['film_w'])
                gamma, delta = np.split(film + weights['film_b'], 2)
                x = gamma * x + delta
            x = x * self._factor(x)
        x = x.mean((1, 2)) if self.head == 'mean' else x.reshape(len(x), -1)
        if 'film_w' not in weights:
            x = join(x, weights)
        return np.einsum('ni,io->no', x, weights['w5']) + weights['b5']

    def gradient(self, weights, x, y, names):
        """By the complex step: of real weights only."""
        chosen = {name: weights[name] for name in names}
        return complex_step_gradient(lambda w: self.loss({**weights, **w}, x, y), chosen)

    def _convolve(self, x, kernel):
        """[n, height, width, in] with SAME padding, which is uneven where it is odd."""
        stride = 1 if self.max_pool else 2
        sides = [-(-side // stride) for side in x.shape[1:3]]
        missing = [max((out - 1) * stride + 3 - side, 0) for out, side in zip(sides, x.shape[1:3])]
        x = np.pad(x, [(0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)])
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
        return np.einsum('nhwcij,ijco->nhwo', windows[:, ::stride, ::stride], kernel)


def _pool(x):
    """Takes the largest (by the real part) of each 2x2 pixels, or what there is of them."""
    n, height, width, channels = x.shape
    pixels = np.full((n, height + height % 2, width + width % 2, channels), -np.inf, x.dtype)
    pixels[:, :height, :width] = x
    windows = pixels.reshape(n, pixels.shape[1] // 2, 2, pixels.shape[2] // 2, 2, channels)
    windows = windows.transpose(0, 1, 3, 5, 2, 4).reshape(
        n, pixels.shape[1] // 2, pixels.shape[2] // 2, channels, 4
    )
    place = windows.real.argmax(-1)[..., None]
    return np.take_along_axis(windows, place, -1)[..., 0]


# The inner loop


def entry(array, step):
    """Entry `step` of what each step has one of; later steps take the last."""
    return array[min(step, len(array) - 1)]


def norms_of(weights, step, step_norms=True):
    """The weights as step `step` reads them: its rows of the normalisations' weights."""
    if not step_norms:
        return weights
    return {name: entry(w, step) if name.startswith('norm') else w for name, w in weights.items()}


def trajectory(network, weights, rates, task, steps, stop_grad=False, step_norms=False):
    """Weights before and after every step of w' = w - rate * gradient, a list of dicts.

    Args:
      rates: {name of an adapted weight: [rate of every step]}; the other weights stay.
      stop_grad: the derivative of the gradient is taken for zero.
      step_norms: weights norm* are [steps, channels], and step s (from 0) reads row s.
    """
    result = [weights]
    for step in range(steps):
        slopes = network.gradient(norms_of(weights, step, step_norms), *task[:2], rates)
        weights = dict(weights)
        for name, rate in rates.items():
            slope = slopes[name].real if stop_grad else slopes[name]
            weights[name] = weights[name] - entry(rate, step) * slope
        result.append(weights)
    return result


def reads(network, weights, rates, task, steps, stop_grad=False, step_norms=False):
    """The weights that predict the queries, before and after every step.

    After step s (from 0) they have the rows that step s read; before any, the first.
    """
    path = trajectory(network, weights, rates, task, steps, stop_grad, step_norms)
    return [norms_of(w, max(taken - 1, 0), step_norms) for taken, w in enumerate(path)]


def query_outputs(network, weights, rates, task, steps, step_norms=False):
    """[steps + 1, queries, out], the predictions before and after every step."""
    path = reads(network, weights, rates, task, steps, step_norms=step_norms)
    return np.array([network.outputs(w, task[2]) for w in path])


def query_losses(network, weights, rates, task, steps, **settings):
    """The query loss after every step, a list of `steps` numbers. settings: see `trajectory`."""
    path = reads(network, weights, rates, task, steps, **settings)
    return [network.loss(w, *task[2:]) for w in path[1:]]


# The outer loop


def last_step(steps):
    """The weights of the query losses where only the last counts."""
    return [0.0] * (steps - 1) + [1.0]


def multi_step_weights(steps, iteration, horizon, epoch=500):
    """The weights of the query losses after every step, in MAML++.

    horizon: the iteration from which on only the last loss counts.
    """
    if iteration >= horizon:
        return last_step(steps)
    e, last_epoch = iteration // epoch, horizon / epoch
    before = max(1 / steps - e / (steps * last_epoch), 0.03 / steps)
    last = min(1 / steps + e * (steps - 1) / (steps * last_epoch), 1 - 0.03 * (steps - 1) / steps)
    return [before] * (steps - 1) + [last]


def meta_loss(network, weights, rates, tasks, steps, loss_weights=None, **settings):
    """Mean over the tasks of the weighted sum of the query losses after every step.

    Args:
      loss_weights: one for every step; None: the last loss alone.
      settings: see `trajectory`.
    """
    loss_weights = last_step(steps) if loss_weights is None else loss_weights
    return sum(
        share * loss
        for task in tasks
        for share, loss in zip(
            loss_weights, query_losses(network, weights, rates, task, steps, **settings)
        )
    ) / len(tasks)


def meta_gradients(network, weights, rates, tasks, steps, loss_weights=None, **settings):
    """(of the weights, of the rates), each {name: array}, of `meta_loss`."""
    arguments = tasks, steps, loss_weights
    return (
        complex_step_gradient(
            lambda w: meta_loss(network, w, rates, *arguments, **settings), weights
        ),
        complex_step_gradient(
            lambda a: meta_loss(network, weights, a, *arguments, **settings), rates
        ),
    )


def constant_rates(rate, names):
    return {name: np.array([rate]) for name in names}


def few_differences(function, values, rng, entries=2, step=1e-7):
    """Central differences by a few random entries of every array: [(name, index, difference)].

    step: so small that hardly a ReLU of the many of an image turns within it.
    """
    result = []
    for name, value in values.items():
        for flat in rng.choice(value.size, min(entries, value.size), replace=False):
            index = np.unravel_index(flat, value.shape)
            shift = np.zeros(value.shape)
            shift[index] = step
            ends = [function({**values, name: value + sign * shift}) for sign in (1, -1)]
            result.append((name, index, (ends[0] - ends[1]) / (2 * step)))
    return result


# Random numbers to compare with


def random_tasks(rng, tasks=3, shape=(4,), way=3, shots=2, regression=False):
    """A list of tasks with one more query than support example of each class."""
    labels = lambda shots: np.repeat(np.eye(way), shots, axis=0)
    if regression:
        labels = lambda shots: rng.normal(size=(way * shots, way))
    draw = lambda shots: (rng.normal(size=(way * shots, *shape)), labels(shots))
    return [(*draw(shots), *draw(shots + 1)) for _ in range(tasks)]


def values(variables):
    return {name: np.array(variable) for name, variable in variables.items()}


def random_weights(rng, values, scale=0.5):
    """{name: normal numbers}, far from where training starts, of the shapes of these arrays.

    Biases and offsets lean to the positive, so that not too many units are dead.
    """
    lean = lambda name: scale if name.startswith('b') or name.endswith(('_b', '_beta')) else 0.0
    return {
        name: lean(name) + scale * rng.normal(size=np.shape(value))
        for name, value in values.items()
    }


def randomise(rng, variables, scale=0.5):
    """Assigns `random_weights`."""
    for name, value in random_weights(rng, variables, scale).items():
        variables[name].assign(value)


def by_name(learner, gradients, *groups):
    """For each group of variables {name: variable} its gradients, {name: array}.

    Variables that are not trained have none. Every gradient must belong to a group.
    """
    assert len(gradients) == len(learner.trainable_variables)
    of = {id(v): np.array(g) for v, g in zip(learner.trainable_variables, gradients)}
    result = [{name: of.pop(id(v)) for name, v in group.items() if id(v) in of} for group in groups]
    assert not of
    return result


def assert_alike(ours, theirs, null=(), rtol=1e-9, atol=1e-12):
    """Compares {name: array}; only those named in `null` may be zero."""
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        # Zeros would agree too easily.
        assert (np.abs(theirs[name]).max() > 1e-6) == (name not in null), name
        np.testing.assert_allclose(value, theirs[name], rtol, atol, err_msg=name)


def assert_few_alike(ours, differences, null=(), rtol=1e-5, atol=1e-8):
    """Compares {name: array} with `few_differences` of each; only those in `null` may be zero."""
    assert ours.keys() == {name for name, *_ in differences}
    for name, value in ours.items():
        assert (np.abs(value).max() > 1e-5) == (name not in null), name
    for name, index, difference in differences:
        np.testing.assert_allclose(
            ours[name][index], difference, rtol, atol, err_msg=f'{name}{index}'
        )


def null_biases(norm, weights):
    """Names of the biases that a batch normalisation takes away."""
    blocks = [int(n[4:-5]) for n in weights if n.startswith('norm') and n.endswith('_beta')]
    return {f'b{block + 1}' for block in blocks} if norm == 'batch_norm' else set()
