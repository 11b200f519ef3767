"""Meta Networks on fully connected networks, from their equations: plain loops in NumPy float64,
one task at a time, backward passes by hand.

Munkhdalai and Yu, "Meta networks", ICML 2017, arXiv 1703.00837, section 3 and algorithm 1. The
preprocessing is Andrychowicz et al., "Learning to learn by gradient descent by gradient descent",
NIPS 2016, arXiv 1606.04474, appendix A.

A network is a list of layers, a layer a dict of 'kernel' [in, out] and 'bias' [out] or None. Layers
end in ReLU, the last one does not. So the toy of two layers is [in, hidden] and [hidden, way]: the
second is the output layer, and the embedding is what the first puts out. Gradients and fast weights
are lists of such dicts, too; a fast layer that is None leaves that layer as it is.

Two choices move numbers, and `episode` takes either reading. A key is the embedding as a layer like
all others, or the plain sum of its last layer's two paths, as in the released code
(tsendeemts/metanet). The loss is a mean over the queries, or their sum, as there.
"""

import math

import numpy as np
from metric_oracle import cosine, dot, lstm_cell, softmax


def _float64(array):
    return np.asarray(array, dtype=np.float64)


# Networks


def affine(x, layer):
    """x kernel + bias of one vector."""
    kernel, bias = _float64(layer['kernel']), layer.get('bias')
    return np.array(
        [
            dot(x, kernel[:, j]) + (0.0 if bias is None else float(bias[j]))
            for j in range(kernel.shape[1])
        ]
    )


def relu(x):
    """max(x, 0) of a vector."""
    return np.array([max(value, 0.0) for value in x])


def forward(x, slow):
    """The network with slow weights alone, on one vector.

    Returns:
      A dict: 'inputs' of every layer, 'pre_activations' of every layer, lists; 'embedding', the
      input of the last layer; 'linear_embedding', the sum of the paths that made it, without their
      ReLUs (None for a network of one layer); 'logits'.
    """
    return augmented_forward(x, slow, [None] * len(slow))


def augmented_forward(x, slow, fast):
    """Layer augmentation, section 3.3, on one vector.

    A layer puts out ReLU(x W + b) + ReLU(x W* + b*), the last one x W + b + x W* + b*.

    Args:
      x: [in]. slow, fast: networks; entries of fast may be None.

    Returns:
      `forward`'s dict, with 'pre_activations' of the slow path and 'fast_pre_activations' (None
      where there are no fast weights).
    """
    current = _float64(x)
    inputs, slow_paths, fast_paths, sums = [], [], [], [None]
    for index, layer in enumerate(slow):
        inputs.append(current)
        slow_paths.append(affine(current, layer))
        fast_paths.append(None if fast[index] is None else affine(current, fast[index]))
        through = relu if index < len(slow) - 1 else np.array
        current = through(slow_paths[-1])
        sums.append(slow_paths[-1])
        if fast_paths[-1] is not None:
            current = current + through(fast_paths[-1])
            sums[-1] = sums[-1] + fast_paths[-1]
    return {
        'inputs': inputs,
        'pre_activations': slow_paths,
        'fast_pre_activations': fast_paths,
        'embedding': inputs[-1],
        'linear_embedding': sums[-2],
        'logits': current,
    }


def cross_entropy(logits, label):
    """-log softmax(logits)[label] of one example."""
    largest = max(logits)
    return largest + math.log(sum(math.exp(value - largest) for value in logits)) - logits[label]


def mean_loss(x, labels, slow):
    """Mean cross-entropy over the examples, slow weights alone: [n, in] and classes [n]."""
    losses = [cross_entropy(forward(x[i], slow)['logits'], labels[i]) for i in range(len(x))]
    return sum(losses) / len(losses)


def gradients(x, labels, slow):
    """Gradient of `mean_loss` with respect to the slow weights: back-propagation by hand.

    With d the derivative with respect to a layer's pre-activation: at the last layer d = softmax -
    one-hot; kernel[i, j] gets input_i d_j and bias_j gets d_j; below, d_i = 1[pre-activation_i > 0]
    sum_j kernel[i, j] d_j. Summed over the examples and divided by their number.

    Returns:
      A list of dicts like slow; 'bias' is None where the layer has none.
    """
    result = [
        {
            'kernel': np.zeros(np.shape(layer['kernel'])),
            'bias': None if layer.get('bias') is None else np.zeros(np.shape(layer['bias'])),
        }
        for layer in slow
    ]
    for n in range(len(x)):
        seen = forward(x[n], slow)
        d = softmax(seen['logits'])
        d[labels[n]] -= 1.0
        for index in reversed(range(len(slow))):
            kernel = _float64(slow[index]['kernel'])
            for j in range(kernel.shape[1]):
                for i in range(kernel.shape[0]):
                    result[index]['kernel'][i, j] += seen['inputs'][index][i] * d[j] / len(x)
                if result[index]['bias'] is not None:
                    result[index]['bias'][j] += d[j] / len(x)
            if index > 0:
                below = seen['pre_activations'][index - 1]
                d = np.array(
                    [dot(kernel[i], d) if below[i] > 0 else 0.0 for i in range(kernel.shape[0])]
                )
    return result


# Fast weights


def preprocessed(gradient, k=7.0):
    """Log and sign of one number: (log|g| / k, sign g) where |g| >= e^-k, else (-1, e^k g)."""
    if abs(gradient) >= math.exp(-k):
        return math.log(abs(gradient)) / k, math.copysign(1.0, gradient)
    return -1.0, math.exp(k) * gradient


def lstm_fast_weight(numbers, generator, k=7.0):
    """One entry of Q*: an LSTM reads that entry's gradient of every chunk, a linear map its last h.

    Args:
      numbers: the entry's gradients, in the order of the chunks.
      generator: dict of 'lstm': kernel [2, 4 hidden], recurrent_kernel [hidden, 4 hidden], bias [4
        hidden] in Keras' layout (`metric_oracle.lstm_cell`), from zero h and c; 'kernel' [hidden]
        or [hidden, 1] and 'bias', a number or [1].
    """
    hidden = len(generator['lstm'][1])
    h, c = np.zeros(hidden), np.zeros(hidden)
    for number in numbers:
        h, c = lstm_cell(preprocessed(number, k), h, c, *generator['lstm'])
    kernel, bias = _float64(generator['kernel']).reshape(hidden), np.ravel(generator['bias'])
    return dot(h, kernel) + float(bias[0])


def mlp_fast_weight(number, generator, k=7.0):
    """One entry of W*_i: a multilayer perceptron reads that entry's gradient.

    generator: list of layers (dicts), 2-20-20-1 in the paper: ReLU between them, the last one
    linear.
    """
    return forward(preprocessed(number, k), generator)['logits'][0]


def _each_entry(gradients_of_chunks, generators, function):
    """Fast weights, entry by entry; generators: one for every layer, None for a layer without."""
    result = []
    for index, generator in enumerate(generators):
        if generator is None:
            result.append(None)
            continue
        layer = {}
        for name in ('kernel', 'bias'):
            arrays = [chunk[index].get(name) for chunk in gradients_of_chunks]
            if arrays[0] is None:
                layer[name] = None
                continue
            layer[name] = np.zeros(np.shape(arrays[0]))
            for position in np.ndindex(layer[name].shape):
                numbers = [float(array[position]) for array in arrays]
                layer[name][position] = function(numbers, generator)
        result.append(layer)
    return result


def task_fast_weights(chunk_gradients, generators, k=7.0):
    """Q* = d({gradients of the chunks}): `lstm_fast_weight` of every entry.

    Args:
      chunk_gradients: a list over the chunks of `gradients` of the representation loss.
      generators: one for every layer of u, None for a layer that gets no fast weights.
    """
    return _each_entry(chunk_gradients, generators, lambda g, d: lstm_fast_weight(g, d, k))


def example_fast_weights(gradient, generators, k=7.0):
    """W*_i = m(gradient of example i): `mlp_fast_weight` of every entry.

    gradient: `gradients` of one example. generators: one for every layer of b, or None.
    """
    return _each_entry([gradient], generators, lambda g, m: mlp_fast_weight(g[0], m, k))


def flat(network):
    """All entries one after the other: layer by layer, the kernel row by row, then the bias."""
    numbers = []
    for layer in network:
        for name in ('kernel', 'bias'):
            if layer is not None and layer.get(name) is not None:
                numbers.extend(np.ravel(layer[name]))
    return np.array(numbers)


# Memory


def attention(keys, query):
    """softmax over the examples of cos(R_i, r): ([n], the cosines [n])."""
    cosines = np.array([cosine(key, query) for key in keys])
    return softmax(cosines), cosines


def weighted_sum(weights, memory):
    """W* = sum_i a_i M_i of networks of fast weights."""
    result = []
    for index, first in enumerate(memory[0]):
        if first is None:
            result.append(None)
            continue
        layer = {}
        for name in ('kernel', 'bias'):
            layer[name] = None if first.get(name) is None else np.zeros(np.shape(first[name]))
            for i in range(len(memory)):
                if layer[name] is not None:
                    layer[name] = layer[name] + weights[i] * memory[i][index][name]
        result.append(layer)
    return result


def episode(
    support,
    query,
    slow,
    generators,
    chunks,
    k=7.0,
    given=None,
    key='embedding',
    total='mean',
):
    """One task: algorithm 1, for all queries.

    Args:
      support, query: (x [n, in], classes [n]).
      slow: dict of 'representation' (Q, with the output layer of the representation loss) and
        'base' (W), networks.
      generators: dict of 'representation' and 'base': a generator for every layer, or None. The
        output layer of the representation has no influence on the keys.
      chunks: list of lists of indices into the support set, in the order in which the LSTM reads
        their gradients. A chunk's loss is the mean over its examples.
      given: None, or dict of 'chunk_gradients' and 'example_gradients' to use in place of those
        computed here. With them fixed, finite differences of the loss with respect to any weight
        are the gradient that takes what the generators read for constant.
      key: 'embedding', ReLU(W r) + ReLU(W* r), or 'linear_embedding', W r + W* r: what
        `augmented_forward` calls so. The representation loss sees the ReLU either way.
      total: 'mean' or 'sum' of the queries' losses.

    Returns:
      A dict: 'chunk_losses', 'chunk_gradients', 'task_fast' (Q*), 'example_losses',
      'example_gradients', 'memory' (list of W*_i), 'keys' [support, d], 'query_keys' [queries, d],
      'cosines' and 'attention' [queries, support], 'query_fast' (list of W*), 'logits' [queries,
      way], 'losses' [queries], 'loss' (their mean or sum).
    """
    assert total in ('mean', 'sum'), total
    (x, labels), (query_x, query_labels) = support, query
    u, b = slow['representation'], slow['base']
    parts = [([x[i] for i in chunk], [labels[i] for i in chunk]) for chunk in chunks]
    singles = [([x[i]], [labels[i]]) for i in range(len(x))]
    result = {
        'chunk_losses': [mean_loss(*part, u) for part in parts],
        'chunk_gradients': [gradients(*part, u) for part in parts],
        'example_losses': [mean_loss(*single, b) for single in singles],
        'example_gradients': [gradients(*single, b) for single in singles],
        **(given or {}),
    }
    task_fast = task_fast_weights(result['chunk_gradients'], generators['representation'], k)
    memory = [
        example_fast_weights(gradient, generators['base'], k)
        for gradient in result['example_gradients']
    ]
    keys = [augmented_forward(row, u, task_fast)[key] for row in x]
    query_keys = [augmented_forward(row, u, task_fast)[key] for row in query_x]
    looks = [attention(keys, row) for row in query_keys]
    query_fast = [weighted_sum(weights, memory) for weights, _ in looks]
    logits = [
        augmented_forward(query_x[i], b, query_fast[i])['logits'] for i in range(len(query_x))
    ]
    losses = [cross_entropy(logits[i], query_labels[i]) for i in range(len(query_x))]
    return {
        **result,
        'task_fast': task_fast,
        'memory': memory,
        'keys': np.array(keys),
        'query_keys': np.array(query_keys),
        'cosines': np.array([cosines for _, cosines in looks]),
        'attention': np.array([weights for weights, _ in looks]),
        'query_fast': query_fast,
        'logits': np.array(logits),
        'losses': np.array(losses),
        'loss': sum(losses) / (len(losses) if total == 'mean' else 1),
    }
