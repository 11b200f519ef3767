"""SNAIL's temporal network from its equations: plain loops in NumPy float64, one sequence at once.

Mishra, Rohaninejad, Chen and Abbeel, "A simple neural attentive meta-learner", ICLR 2018, arXiv
1707.03141, section 3 and the pseudo-code there.

A sequence is [steps, channels]; position t sees positions 0 ... t.
"""

import math

import numpy as np
from metric_oracle import dot, sigmoid, softmax


def _float64(array):
    return np.asarray(array, dtype=np.float64)


def levels(length):
    """Number of dense blocks of TCBlock(T): ceil(log2 T), found by doubling."""
    count = 0
    while 2**count < length:
        count += 1
    return count


def dilations(length):
    """1, 2, 4, ...: `levels(length)` of them, whose receptive field is at least `length`.

    A dilation of 1 comes first. Beginning with 2 would leave odd distances unseen within a block;
    `tc_block` takes such rates, too.
    """
    return [2**i for i in range(levels(length))]


def affine(x, kernel, bias=None):
    """The same map at each position, a 1x1 convolution: [steps, in] -> [steps, out].

    kernel: [in, out]. bias: [out] or None.
    """
    x, kernel = _float64(x), _float64(kernel)
    result = np.zeros((len(x), kernel.shape[1]))
    for t in range(len(x)):
        for j in range(kernel.shape[1]):
            result[t, j] = dot(x[t], kernel[:, j]) + (0.0 if bias is None else bias[j])
    return result


def causal_convolution(x, kernel, bias, dilation):
    """out[t] = bias + sum_s x[t - (taps - 1 - s) dilation] kernel[s]; positions before 0 are zero.

    Args:
      x: [steps, in].
      kernel: [taps, in, out], Keras' layout of a Conv1D: the last tap is for the position itself.
        SNAIL has two taps.
      bias: [out] or None.

    Returns:
      [steps, out]
    """
    x, kernel = _float64(x), _float64(kernel)
    taps, _, outputs = kernel.shape
    result = np.zeros((len(x), outputs))
    for t in range(len(x)):
        for j in range(outputs):
            total = 0.0 if bias is None else float(bias[j])
            for s in range(taps):
                source = t - (taps - 1 - s) * dilation
                if source >= 0:
                    total += dot(x[source], kernel[s, :, j])
            result[t, j] = total
    return result


def dense_block(x, weights, dilation):
    """DenseBlock: [x, tanh(conv_f(x)) * sigmoid(conv_g(x))], the new channels after the old.

    Args:
      x: [steps, in].
      weights: dict of 'filter_kernel' and 'gate_kernel' [2, in, filters], 'filter_bias' and
        'gate_bias' [filters] or None.

    Returns:
      A dict: 'filter' and 'gate' before their non-linearities and 'activation', [steps, filters];
      'output' [steps, in + filters].
    """
    x = _float64(x)
    filter_ = causal_convolution(x, weights['filter_kernel'], weights['filter_bias'], dilation)
    gate = causal_convolution(x, weights['gate_kernel'], weights['gate_bias'], dilation)
    activation = np.zeros(filter_.shape)
    for t in range(activation.shape[0]):
        for j in range(activation.shape[1]):
            activation[t, j] = math.tanh(filter_[t, j]) * sigmoid(gate[t, j])
    return {
        'filter': filter_,
        'gate': gate,
        'activation': activation,
        'output': _joined(x, activation),
    }


def tc_block(x, blocks, length=None, rates=None):
    """TCBlock: dense blocks one after the other, dilated 1, 2, 4, ...

    Args:
      x: [steps, in].
      blocks: list of `dense_block`'s weights, as many as `levels(length)`.
      length: T, to check the number of blocks. None: any number.
      rates: a dilation for every block. None: 1, 2, 4, ...

    Returns:
      A dict: 'blocks', a list of `dense_block`'s dicts, and 'output' [steps, in + filters levels].
    """
    if length is not None:
        assert len(blocks) == levels(length), (len(blocks), levels(length))
    results, output = [], _float64(x)
    for i, weights in enumerate(blocks):
        results.append(dense_block(output, weights, 2**i if rates is None else rates[i]))
        output = results[-1]['output']
    return {'blocks': results, 'output': output}


def attention_block(x, weights):
    """AttentionBlock: [x, read], where position t reads the values of positions s <= t.

    logits[t, s] = q_t . k_s / sqrt(K), softmax over s for each t, read[t] = sum_s weights[t, s]
    v_s. Position t sees itself.

    Args:
      x: [steps, in].
      weights: dict of 'query_kernel' and 'key_kernel' [in, K], 'value_kernel' [in, V], and
        'query_bias', 'key_bias' [K], 'value_bias' [V], or None for each.

    Returns:
      A dict: 'queries' and 'keys' [steps, K], 'values' [steps, V], 'logits' [steps, steps] with
      -inf where s > t, 'weights' [steps, steps], 'read' [steps, V], 'output' [steps, in + V].
    """
    x = _float64(x)
    steps = len(x)
    queries = affine(x, weights['query_kernel'], weights['query_bias'])
    keys = affine(x, weights['key_kernel'], weights['key_bias'])
    values = affine(x, weights['value_kernel'], weights['value_bias'])
    logits = np.full((steps, steps), -np.inf)
    attention = np.zeros((steps, steps))
    read = np.zeros(values.shape)
    for t in range(steps):
        for s in range(t + 1):
            logits[t, s] = dot(queries[t], keys[s]) / math.sqrt(keys.shape[1])
        seen = softmax(logits[t, : t + 1])
        for s in range(t + 1):
            attention[t, s] = seen[s]
            for j in range(values.shape[1]):
                read[t, j] += seen[s] * values[s, j]
    return {
        'queries': queries,
        'keys': keys,
        'values': values,
        'logits': logits,
        'weights': attention,
        'read': read,
        'output': _joined(x, read),
    }


def _joined(x, y):
    return np.array([list(x[t]) + list(y[t]) for t in range(len(x))])


def sequence(embeddings, labels, way):
    """The input of the temporal network: embeddings beside one-hot labels, zeros for the last one.

    Args:
      embeddings: [N K + 1, d], the support set's and then the query's.
      labels: classes of the support set, [N K].

    Returns:
      [N K + 1, d + way]
    """
    rows = []
    for t in range(len(embeddings)):
        one_hot = [0.0] * way
        if t < len(labels):
            one_hot[int(labels[t])] = 1.0
        rows.append(list(_float64(embeddings[t])) + one_hot)
    return np.array(rows)


def temporal_net(x, blocks, output_kernel, output_bias):
    """The whole temporal network: blocks one after the other, then a 1x1 convolution.

    For few-shot classification A(64, 32), TC(T, 128), A(256, 128), TC(T, 128), A(512, 256), and as
    many outputs as classes, T = N K + 1.

    Args:
      x: [steps, channels].
      blocks: list of ('attention', weights of `attention_block`) and ('tc', list of weights of
        `tc_block`).
      output_kernel: [channels after the last block, way]. output_bias: [way] or None.

    Returns:
      A dict: 'blocks', a list of the blocks' dicts; 'features' [steps, channels]; 'logits' [steps,
      way] at every position; 'last' [way], at the query, the only ones with a loss.
    """
    results, output = [], _float64(x)
    for kind, weights in blocks:
        results.append({'attention': attention_block, 'tc': tc_block}[kind](output, weights))
        output = results[-1]['output']
    logits = affine(output, output_kernel, output_bias)
    return {'blocks': results, 'features': output, 'logits': logits, 'last': logits[-1]}


def last_step_loss(logits, label):
    """-log softmax(logits of the last position)[label]: logits [steps, way]."""
    last = _float64(logits)[-1]
    return max(last) + math.log(sum(math.exp(value - max(last)) for value in last)) - last[label]
