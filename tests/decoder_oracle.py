"""In-context regression by a transformer decoder, and its baselines: plain loops in NumPy float64,
one prompt at a time.

Garg, Tsipras, Liang and Valiant, "What can transformers learn in-context?", NeurIPS 2022, arXiv
2208.01066, section 2. The decoder is GPT-2's: Radford et al., "Language models are unsupervised
multitask learners", 2019, section 2.3: layer norm before attention and before the MLP, and once
more at the end. GELU: Hendrycks and Gimpel, arXiv 1606.08415.

A sequence is [tokens, width], a prompt x [pairs, dims] and y [pairs].
"""

import math

import numpy as np
from metric_oracle import dot, softmax


def _float64(array):
    return np.asarray(array, dtype=np.float64)


# The decoder


def gelu(x):
    """x Phi(x) of a number, Phi the standard normal distribution function: the exact one."""
    return 0.5 * x * (1.0 + math.erf(x / math.sqrt(2.0)))


def gelu_tanh(x):
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) of a number: GPT-2's approximation."""
    return 0.5 * x * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def affine(x, kernel, bias=None):
    """x kernel + bias at each token: [tokens, in], [in, out], [out] or None -> [tokens, out]."""
    x, kernel = _float64(x), _float64(kernel)
    result = np.zeros((len(x), kernel.shape[1]))
    for t in range(len(x)):
        for j in range(kernel.shape[1]):
            result[t, j] = dot(x[t], kernel[:, j]) + (0.0 if bias is None else float(bias[j]))
    return result


def layer_norm(x, gamma, beta, epsilon=1e-5):
    """gamma (x - mean) / sqrt(variance + epsilon) + beta over the width of each token.

    The variance divides by the width. gamma, beta: [width].
    """
    x = _float64(x)
    result = np.zeros(x.shape)
    for t in range(x.shape[0]):
        mean = sum(x[t]) / x.shape[1]
        variance = sum((value - mean) ** 2 for value in x[t]) / x.shape[1]
        for j in range(x.shape[1]):
            result[t, j] = gamma[j] * (x[t, j] - mean) / math.sqrt(variance + epsilon) + beta[j]
    return result


def causal_attention(x, weights, heads):
    """Multi-head self-attention in which token t attends to tokens s <= t.

    Head h owns the columns h d ... (h + 1) d - 1 of queries, keys and values, d = width / heads:
    logits[t, s] = q_t . k_s / sqrt(d), softmax over s, read[t] = sum_s weights[t, s] v_s. The
    heads' reads beside one another go through the output map.

    Args:
      x: [tokens, width].
      weights: dict of 'query_kernel', 'key_kernel', 'value_kernel', 'output_kernel' [width, width]
        and 'query_bias', 'key_bias', 'value_bias', 'output_bias' [width], or None or absent. Keras'
        MultiHeadAttention holds [width, heads, d] and [heads, d, width]: the same numbers reshaped.

    Returns:
      A dict: 'queries', 'keys', 'values', 'read' and 'output' [tokens, width]; 'logits' (-inf where
      s > t) and 'weights' [heads, tokens, tokens].
    """
    queries, keys, values = (
        affine(x, weights[f'{name}_kernel'], weights.get(f'{name}_bias'))
        for name in ('query', 'key', 'value')
    )
    tokens, width = queries.shape
    d = width // heads
    logits = np.full((heads, tokens, tokens), -np.inf)
    attention = np.zeros((heads, tokens, tokens))
    read = np.zeros((tokens, width))
    for h in range(heads):
        own = range(h * d, (h + 1) * d)
        for t in range(tokens):
            for s in range(t + 1):
                logits[h, t, s] = sum(queries[t, j] * keys[s, j] for j in own) / math.sqrt(d)
            seen = softmax(logits[h, t, : t + 1])
            for s in range(t + 1):
                attention[h, t, s] = seen[s]
                for j in own:
                    read[t, j] += seen[s] * values[s, j]
    return {
        'queries': queries,
        'keys': keys,
        'values': values,
        'logits': logits,
        'weights': attention,
        'read': read,
        'output': affine(read, weights['output_kernel'], weights.get('output_bias')),
    }


def decoder_block(x, weights, heads, epsilon=1e-5, activation=gelu_tanh):
    """x' = x + attention(norm_1(x)), output = x' + mlp(norm_2(x')).

    Args:
      x: [tokens, width].
      weights: dict of 'norm_1' and 'norm_2', (gamma, beta) each; 'attention', see
        `causal_attention`; 'mlp', (kernel [width, inner], bias, kernel [inner, width], bias), inner
        = 4 width in GPT-2.
      activation: `gelu_tanh` (GPT-2), `gelu`, or another function of a number.

    Returns:
      A dict: 'norm_1', 'attention' (the dict), 'after_attention', 'norm_2', 'inner' before and
      'active' after the activation, 'mlp', 'output'.
    """
    x = _float64(x)
    first = layer_norm(x, *weights['norm_1'], epsilon)
    attention = causal_attention(first, weights['attention'], heads)
    after = x + attention['output']
    second = layer_norm(after, *weights['norm_2'], epsilon)
    kernel_1, bias_1, kernel_2, bias_2 = weights['mlp']
    inner = affine(second, kernel_1, bias_1)
    active = np.array([[activation(float(value)) for value in row] for row in inner])
    mlp = affine(active, kernel_2, bias_2)
    return {
        'norm_1': first,
        'attention': attention,
        'after_attention': after,
        'norm_2': second,
        'inner': inner,
        'active': active,
        'mlp': mlp,
        'output': after + mlp,
    }


def prompt(x, y):
    """x_1, y_1, ... with y as [y, 0, ..., 0]: [pairs, dims] and [pairs] -> [2 pairs, dims]."""
    rows = []
    for i in range(len(x)):
        rows.append([float(value) for value in x[i]])
        rows.append([float(y[i])] + [0.0] * (len(x[i]) - 1))
    return np.array(rows)


def in_context(x, y, weights, heads, epsilon=1e-5, activation=gelu_tanh):
    """The whole model: y_i is predicted at the token of x_i, which has seen the pairs before i.

    Args:
      x: [pairs, dims]. y: [pairs].
      weights: dict of 'read_in' (kernel [dims, width], bias [width] or None), 'positions' [tokens
        or more, width], 'blocks' (list of `decoder_block`'s weights), 'norm' (gamma, beta; None for
        none) and 'read_out' (kernel [width, 1], bias [1] or None).

    Returns:
      A dict: 'tokens' [2 pairs, dims], 'embedded' [2 pairs, width] with the positions added,
      'blocks' (list of dicts), 'normed' [2 pairs, width], 'outputs' [2 pairs] at every token,
      'predictions' [pairs], 'squared_errors' [pairs], 'loss' (their mean).
    """
    tokens = prompt(x, y)
    embedded = affine(tokens, *weights['read_in'])
    for t in range(len(embedded)):
        embedded[t] = embedded[t] + _float64(weights['positions'][t])
    blocks, current = [], embedded
    for block in weights['blocks']:
        blocks.append(decoder_block(current, block, heads, epsilon, activation))
        current = blocks[-1]['output']
    if weights.get('norm') is not None:
        current = layer_norm(current, *weights['norm'], epsilon)
    outputs = affine(current, *weights['read_out'])[:, 0]
    predictions = np.array([outputs[2 * i] for i in range(len(x))])
    errors = np.array([(predictions[i] - float(y[i])) ** 2 for i in range(len(x))])
    return {
        'tokens': tokens,
        'embedded': embedded,
        'blocks': blocks,
        'normed': current,
        'outputs': outputs,
        'predictions': predictions,
        'squared_errors': errors,
        'loss': sum(errors) / len(errors),
    }


# Baselines. Entry i predicts y_i from the i pairs before it; with no pair, all predict 0.


def least_squares_weights(x, y, cutoff=None):
    """The w of smallest norm among those that minimise |x w - y|^2, from the SVD x = U S V^T.

    w = sum_j (u_j . y / s_j) v_j over the singular values s_j > cutoff s_1.

    Args:
      x: [pairs, dims]. y: [pairs].
      cutoff: None for max(pairs, dims) times the float64 machine epsilon.
    """
    x, y = _float64(x), _float64(y)
    if cutoff is None:
        cutoff = max(x.shape) * np.finfo(np.float64).eps
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    w = np.zeros(x.shape[1])
    for j in range(len(s)):
        if s[j] > cutoff * s[0]:
            w = w + dot(u[:, j], y) / s[j] * vt[j]
    return w


def averaging_weights(x, y):
    """Mean of y_i x_i over the pairs."""
    x = _float64(x)
    total = np.zeros(x.shape[1])
    for i in range(len(x)):
        total = total + float(y[i]) * x[i]
    return total / len(x)


def nearest_neighbours_prediction(x, y, point, neighbours=3):
    """Mean y of the points nearest to `point` by Euclidean distance; of all where they are fewer.

    Of equally distant points, the earlier one is the nearer.
    """
    distances = [sum((a - b) ** 2 for a, b in zip(_float64(row), _float64(point))) for row in x]
    order = sorted(range(len(x)), key=lambda i: (distances[i], i))[:neighbours]
    return sum(float(y[i]) for i in order) / len(order)


def _for_each_context(x, y, predict):
    return np.array(
        [predict(x[:i], y[:i], x[i]) if i > 0 else 0.0 for i in range(len(x))], dtype=np.float64
    )


def least_squares(x, y, cutoff=None):
    """Predictions for every context length, [pairs]: x_i . `least_squares_weights`."""
    return _for_each_context(
        x, y, lambda xs, ys, point: dot(point, least_squares_weights(xs, ys, cutoff))
    )


def averaging(x, y):
    """Predictions for every context length, [pairs]: x_i . `averaging_weights`."""
    return _for_each_context(x, y, lambda xs, ys, point: dot(point, averaging_weights(xs, ys)))


def nearest_neighbours(x, y, neighbours=3):
    """Predictions for every context length, [pairs]: `nearest_neighbours_prediction`."""
    return _for_each_context(
        x, y, lambda xs, ys, point: nearest_neighbours_prediction(xs, ys, point, neighbours)
    )


def squared_error_curve(predictions, y, divisor=1.0):
    """Mean over the prompts of (prediction - y)^2 / divisor at each context length.

    Args:
      predictions, y: [prompts, pairs].
      divisor: the paper's figures for linear functions divide by dims.
    """
    predictions, y = _float64(predictions), _float64(y)
    return np.array(
        [
            sum((predictions[p, i] - y[p, i]) ** 2 for p in range(len(y))) / len(y) / divisor
            for i in range(y.shape[1])
        ]
    )
