"""The LSTM meta-learner from its equations: NumPy float64, one task at a time.

Ravi and Larochelle (ICLR 2017), with the preprocessing of Andrychowicz et al. (2016). Weights are
{name: array} and bear the package's names. Gradients that the LSTM reads are by complex steps. All
else holds for complex numbers, so that `derivatives` differentiates a whole episode to the last
digits, with what the LSTM read recorded before and replayed.
"""

import numpy as np

HIDDEN, P, EPSILON = 20, 10, 1e-3


# Networks: (weights, x, given) -> (outputs, [(mean, unbiased variance) of each normalisation]).
# given: statistics of each normalisation to normalise by; None: the batch's own.


def fully_connected(weights, x, given=None):
    """x: [n, in]."""
    seen, last = [], sum(name.startswith('w') for name in weights)
    for number in range(1, last):
        x = x @ weights[f'w{number}'] + weights[f'b{number}']
        x = _relu(_normalised(weights, number - 1, x, given, seen))
    return x @ weights[f'w{last}'] + weights[f'b{last}'], seen


def strided(weights, x, given=None):
    """Four convolutions of stride 2; x: [n, side, side, channels]."""
    return _convolutional(weights, x, given, 2)


def pooled(weights, x, given=None):
    """Four convolutions, each with a 2x2 max-pooling after its normalisation."""
    return _convolutional(weights, x, given, 1)


def _convolutional(weights, x, given, stride):
    seen = []
    for block in range(4):
        x = _convolved(x, weights[f'conv{block + 1}'], stride)
        x = _normalised(weights, block, x, given, seen)
        x = _relu(_max_pooled(x) if stride == 1 else x)
    return x.reshape(len(x), -1) @ weights['w5'] + weights['b5'], seen


def _convolved(x, kernel, stride):
    side = x.shape[1]
    out = -(-side // stride)
    missing = max((out - 1) * stride + 3 - side, 0)
    around = missing // 2, missing - missing // 2  # An odd one is at the end.
    x = np.pad(x, [(0, 0), around, around, (0, 0)])
    y = np.zeros((len(x), out, out, kernel.shape[-1]), np.result_type(x, kernel))
    for row in range(out):
        for column in range(out):
            top, left = stride * row, stride * column
            patch = x[:, top : top + 3, left : left + 3]
            y[:, row, column] = np.tensordot(patch, kernel, 3)
    return y


def _max_pooled(x):
    half = -(-x.shape[1] // 2)
    y = np.empty((len(x), half, half, x.shape[-1]), x.dtype)
    for row in range(half):
        for column in range(half):
            window = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            window = window.reshape(len(x), -1, x.shape[-1])
            first = window.real.argmax(1)[:, None]
            y[:, row, column] = np.take_along_axis(window, first, 1)[:, 0]
    return y


def _normalised(weights, block, x, given, seen):
    if f'norm{block}_beta' not in weights:
        return x
    flat = x.reshape(-1, x.shape[-1])
    mean = flat.mean(0)
    squares = ((flat - mean) ** 2).sum(0)
    seen.append((mean, squares / (len(flat) - 1)))
    mean, variance = (mean, squares / len(flat)) if given is None else given[block]
    x = (x - mean) / (variance + EPSILON) ** 0.5
    return x * weights.get(f'norm{block}_gamma', 1.0) + weights[f'norm{block}_beta']


def _relu(x):
    return x * (x.real > 0)


def loss(outputs, y, classification=True):
    """Mean cross-entropy, or mean squared error."""
    if not classification:
        return ((outputs - y) ** 2).mean()
    shifted = outputs - outputs.real.max(1, keepdims=True)
    return -(y * (shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))).sum(1).mean()


# The LSTM, of one weight tensor at a time: coordinates are rows here.


def preprocessed(x):
    """[n] -> [n, 2]"""
    small = np.abs(x) < np.exp(-P)
    safe = np.where(small, 1.0, np.abs(x))
    return np.stack(
        [np.where(small, -1.0, np.log(safe) / P), np.where(small, np.exp(P) * x, np.sign(x))], 1
    )


def lstm(parameters, memory, theta, gradient, its_loss):
    """(theta, memory) after a step; memory: (h, c [n, HIDDEN], f, i [n]), None before the first."""
    n = len(theta)
    h, c, f, i = memory or (np.zeros((n, HIDDEN)), np.zeros((n, HIDDEN)), np.zeros(n), np.zeros(n))
    read = [np.tile(preprocessed(np.array([its_loss])), (n, 1)), preprocessed(gradient), h]
    z = np.concatenate(read, 1) @ parameters['lstm_kernel'].T + parameters['lstm_bias']
    enter, keep, leave, candidate = (z[:, k * HIDDEN : (k + 1) * HIDDEN] for k in range(4))
    c = _sigmoid(keep) * c + _sigmoid(enter) * np.tanh(candidate)
    h = _sigmoid(leave) * np.tanh(c)
    (w_f, w_i), (b_f, b_i) = parameters['gates_kernel'], parameters['gates_bias']
    f = np.concatenate([h, theta[:, None], f[:, None]], 1) @ w_f + b_f
    i = np.concatenate([h, theta[:, None], i[:, None]], 1) @ w_i + b_i
    return _sigmoid(f) * theta - _sigmoid(i) * gradient, (h, c, f, i)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


# An episode


def adapt(network, parameters, start, batches, divide=True, classification=True, replay=None):
    """Goes through mini-batches [(x, y)]; returns (weights before and after each, what was read).

    replay: what an earlier call read, [(loss, gradients)], to be read again.
    """
    path, memories, read = [start], {}, []
    for number, (x, y) in enumerate(batches):
        weights = path[-1]
        if replay is None:
            value = lambda weights: loss(network(weights, x)[0], y, classification)
            scale = len(x) if divide else 1
            slopes = {name: d / scale for name, d in derivatives(value, weights).items()}
            read.append((value(weights), slopes))
        else:
            read.append(replay[number])
        its_loss, slopes = read[-1]
        after = {}
        for name, theta in weights.items():
            flat, memories[name] = lstm(
                parameters, memories.get(name), theta.ravel(), slopes[name].ravel(), its_loss
            )
            after[name] = flat.reshape(theta.shape)
        path.append(after)
    return path, read


def running_statistics(network, path, batches, momentum):
    """Those after each mini-batch, and before the first: a list of [(mean, variance)]."""
    _, seen = network(path[0], batches[0][0])
    now = [(np.zeros(len(mean)), np.ones(len(mean))) for mean, _ in seen]
    history = [now]
    for weights, (x, _) in zip(path, batches):
        _, seen = network(weights, x)
        move = lambda old, new: (1 - momentum) * old + momentum * new
        now = [tuple(map(move, old, new)) for old, new in zip(now, seen)]
        history.append(now)
    return history


def query_loss(network, parameters, start, batches, query, replay, classification=True):
    """The query loss after all mini-batches, by the statistics of the queries."""
    path, _ = adapt(network, parameters, start, batches, replay=replay)
    return loss(network(path[-1], query[0])[0], query[1], classification)


def derivatives(function, values, entries=None, step=1e-30):
    """{name: array}: of a number, function({name: array}), by complex steps.

    entries: {name: flat indices} to differentiate by, and then the arrays are of these; None: all.
    """
    results = {}
    for name, value in values.items():
        chosen = range(value.size) if entries is None else entries[name]
        result = []
        for i in chosen:
            moved = value.astype(complex)
            moved.flat[i] += 1j * step
            result.append(function({**values, name: moved}).imag / step)
        results[name] = np.array(result).reshape(value.shape if entries is None else -1)
    return results
