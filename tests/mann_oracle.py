"""Memory-augmented network with least recently used access, from its equations: plain loops in
NumPy float64, one sequence at a time.

Santoro, Bartunov, Botvinick, Wierstra and Lillicrap, "Meta-learning with memory-augmented neural
networks", ICML 2016, arXiv 1605.06065, section 3.

Shapes: slots rows of memory of `width` numbers, `heads` read heads (and as many write heads), a
controller of `hidden` units, an LSTM or a layer of tanh. Where usages are equal, the slot with the
lower index counts as the less used.
"""

import numpy as np
from metric_oracle import cosine, dot, lstm_cell, sigmoid, softmax

USAGE_DECAY = 0.95
LEAST_USED_READINGS = ('slot_per_head', 'smallest', 'threshold')


def _float64(array):
    return np.asarray(array, dtype=np.float64)


# One access to the memory


def order_of_usage(usage):
    """Indices of the slots from the least to the most used; the lower index first of equals."""
    return sorted(range(len(usage)), key=lambda i: (usage[i], i))


def least_used_weights(usage, heads, reading='slot_per_head'):
    """w^lu of every head, and the ways to read its equation.

    Args:
      usage: [slots], w^u.
      heads: n in the paper's m(w^u, n), the n-th smallest usage.
      reading: 'slot_per_head': head h has a one at the h-th least used slot and nowhere else.
        'smallest': all heads have ones at exactly the n least used slots. 'threshold': the paper's
        words, all heads have ones wherever usage <= m(w^u, n), so more than n where usages are
        equal.

    Returns:
      [heads, slots] of zeros and ones.
    """
    assert reading in LEAST_USED_READINGS, reading
    order = order_of_usage(usage)
    weights = np.zeros((heads, len(usage)))
    for head in range(heads):
        if reading == 'slot_per_head':
            weights[head, order[head]] = 1.0
        elif reading == 'smallest':
            for i in order[:heads]:
                weights[head, i] = 1.0
        else:
            for i in range(len(usage)):
                if usage[i] <= usage[order[heads - 1]]:
                    weights[head, i] = 1.0
    return weights


def read_weights(keys, memory, similarity=cosine):
    """w^r_h(i) = softmax over the slots i of K(k_h, M(i)), K the cosine.

    Args:
      keys: [heads, width]. memory: [slots, width].
      similarity: of two vectors. The default is the plain cosine, and 0 where a vector is zero.

    Returns:
      (w^r [heads, slots], the similarities [heads, slots])
    """
    similarities = np.array([[similarity(key, row) for row in memory] for key in keys])
    return np.array([softmax(row) for row in similarities]), similarities


def reads(weights, memory):
    """r_h = sum_i w_h(i) M(i), [heads, slots] and [slots, width] -> [heads, width]."""
    result = np.zeros((len(weights), memory.shape[1]))
    for head in range(len(weights)):
        for i in range(len(memory)):
            for j in range(memory.shape[1]):
                result[head, j] += weights[head, i] * memory[i, j]
    return result


def write_weights(gate_logits, previous_read_weights, previous_least_used):
    """w^w_h = s(g_h) w^r_h(t-1) + (1 - s(g_h)) w^lu_h(t-1), s the logistic sigmoid.

    gate_logits: [heads], or a number for all; the others [heads, slots], as the result.
    """
    gates = np.broadcast_to(sigmoid(gate_logits), (len(previous_read_weights),))
    result = np.zeros(previous_read_weights.shape)
    for head in range(result.shape[0]):
        for i in range(result.shape[1]):
            result[head, i] = (
                gates[head] * previous_read_weights[head, i]
                + (1 - gates[head]) * previous_least_used[head, i]
            )
    return result


def erased(memory, slot):
    """The memory with one row zero."""
    result = np.array(memory)
    result[slot, :] = 0.0
    return result


def written(memory, weights, adds):
    """M(i) + sum over the heads of w^w_h(i) a_h.

    Args:
      memory: [slots, width], with its least used row already zero.
      weights: w^w, [heads, slots]. adds: [heads, width]; the paper adds the keys.
    """
    result = np.array(memory)
    for head in range(len(weights)):
        for i in range(memory.shape[0]):
            for j in range(memory.shape[1]):
                result[i, j] += weights[head, i] * adds[head, j]
    return result


def updated_usage(usage, read, write, decay=USAGE_DECAY):
    """w^u(i) = decay w^u(t-1)(i) + sum over the heads of w^r_h(i) + w^w_h(i)."""
    result = np.zeros(len(usage))
    for i in range(len(usage)):
        result[i] = decay * usage[i]
        for head in range(len(read)):
            result[i] += read[head, i] + write[head, i]
    return result


def initial_state(slots, width, heads, hidden=0, value=1e-6):
    """The state before the first step, a dict for `lrua_step` and, with h and c, for `mann_step`.

    Every entry of the memory is `value`. The usage and every head's read weights are one at slot 0
    and zero elsewhere. What was read, h and c are zero.
    """
    first = np.array([1.0] + [0.0] * (slots - 1))
    return {
        'memory': np.full((slots, width), float(value)),
        'read_weights': np.stack([first] * heads),
        'usage': first,
        'reads': np.zeros((heads, width)),
        'h': np.zeros(hidden),
        'c': np.zeros(hidden),
    }


def lrua_step(
    state,
    keys,
    adds,
    gate_logits,
    decay=USAGE_DECAY,
    reading='slot_per_head',
    read_first=False,
    similarity=cosine,
):
    """One step: write where the last step read or where little was used, then read.

    In this order: w^lu(t-1) from w^u(t-1); w^w from w^r(t-1) and w^lu(t-1); the one row that
    w^u(t-1) uses least becomes zero; the heads' vectors are added; w^r and the reads; w^u.

    Args:
      state: dict with 'memory' [slots, width], 'read_weights' [heads, slots] and 'usage' [slots].
        The usage is that of the step before, w^u(t-1).
      keys, adds: [heads, width]. gate_logits: [heads] or a number, before the sigmoid.
      reading: see `least_used_weights`.
      read_first: read M(t-1) as it was before the erasure, not M(t). The equations name M_t, so the
        default is to write first.

    Returns:
      A new dict: 'least_used' [heads, slots] and 'erased_slot' from w^u(t-1), 'gates',
      'write_weights' [heads, slots], 'erased' [slots, width], 'memory', 'similarities' and
      'read_weights' [heads, slots], 'reads' [heads, width], 'usage' [slots].
    """
    keys, adds = _float64(keys), _float64(adds)
    memory, previous = _float64(state['memory']), _float64(state['read_weights'])
    usage = _float64(state['usage'])
    least_used = least_used_weights(usage, len(keys), reading)
    slot = order_of_usage(usage)[0]
    write = write_weights(gate_logits, previous, least_used)
    clean = erased(memory, slot)
    new_memory = written(clean, write, adds)
    from_memory = memory if read_first else new_memory
    read, similarities = read_weights(keys, from_memory, similarity)
    return {
        'least_used': least_used,
        'erased_slot': slot,
        'gates': np.broadcast_to(sigmoid(gate_logits), (len(keys),)),
        'write_weights': write,
        'erased': clean,
        'memory': new_memory,
        'similarities': similarities,
        'read_weights': read,
        'reads': reads(read, from_memory),
        'usage': updated_usage(usage, read, write, decay),
    }


def lrua_sequence(state, keys, adds, gate_logits, **settings):
    """`lrua_step` over a sequence; returns the steps' dicts, a list.

    keys, adds: [steps, heads, width]. gate_logits: [steps, heads].
    """
    steps = []
    for t in range(len(keys)):
        state = lrua_step(state, keys[t], adds[t], gate_logits[t], **settings)
        steps.append(state)
    return steps


# With its controller


def affine(x, kernel, bias=None):
    """x kernel + bias of one vector: [inputs], [inputs, outputs] and [outputs] -> [outputs]."""
    kernel = _float64(kernel)
    result = np.array([dot(x, kernel[:, j]) for j in range(kernel.shape[1])])
    return result if bias is None else result + _float64(bias)


def with_previous_labels(x, labels, way):
    """The controller's inputs (x_t, y_{t-1}): y one-hot, and zeros at the first step.

    x: [steps, features]. labels: [steps], classes. -> [steps, features + way]
    """
    rows = []
    for t in range(len(x)):
        one_hot = [0.0] * way
        if t > 0:
            one_hot[int(labels[t - 1])] = 1.0
        rows.append(list(_float64(x[t])) + one_hot)
    return np.array(rows)


def mann_step(state, x, weights, **settings):
    """One step of the controller, the memory and the output.

    h_t, c_t = LSTM([x_t, r_{t-1}], h, c), or h_t = tanh([x_t, r_{t-1}] W + b), a feed-forward
    controller, which leaves c alone. Of every head: the key tanh(h_t W_k + b_k), the add vector
    tanh(h_t W_a + b_a), the gate's logit h_t w_g + b_g. Logits = [h_t, r_t] W_o + b_o, with the
    heads' reads one after the other.

    Args:
      state: `lrua_step`'s and 'reads' [heads, width], 'h' and 'c' [hidden].
      x: [features], what the controller sees beside the reads: the image and the last label.
      weights: dict. 'lstm': kernel [features + heads width, 4 hidden], recurrent_kernel [hidden,
        4 hidden] and bias [4 hidden] in Keras' layout (`metric_oracle.lstm_cell`); or
        'feed_forward': kernel [features + heads width, hidden] and bias [hidden]. 'key_kernel'
        [heads, hidden, width] and 'key_bias' [heads, width] or None. 'add_kernel' and 'add_bias',
        alike; where there is no 'add_kernel', the key is what is added. 'gate_kernel' [heads,
        hidden] and 'gate_bias' [heads]; a gate that does not look at h has no 'gate_kernel'.
        'output_kernel' [hidden + heads width, way] and 'output_bias' [way].
      settings: of `lrua_step`.

    Returns:
      `lrua_step`'s dict and 'h', 'c', 'keys', 'adds', 'gate_logits', 'logits', 'probabilities'.
    """
    heads = len(state['reads'])
    inputs = list(_float64(x)) + [value for row in state['reads'] for value in row]
    if 'feed_forward' in weights:
        h, c = np.tanh(affine(inputs, *weights['feed_forward'])), state['c']
    else:
        h, c = lstm_cell(inputs, state['h'], state['c'], *weights['lstm'])

    def of_each_head(name):
        biases = weights.get(f'{name}_bias')
        return np.array(
            [
                np.tanh(
                    affine(h, weights[f'{name}_kernel'][k], None if biases is None else biases[k])
                )
                for k in range(heads)
            ]
        )

    keys = of_each_head('key')
    adds = of_each_head('add') if weights.get('add_kernel') is not None else keys
    gate_logits = np.array(_float64(weights['gate_bias']))
    if weights.get('gate_kernel') is not None:
        gate_logits = gate_logits + [dot(h, weights['gate_kernel'][k]) for k in range(heads)]
    step = lrua_step(state, keys, adds, gate_logits, **settings)
    hidden_and_reads = list(h) + [value for row in step['reads'] for value in row]
    logits = affine(hidden_and_reads, weights['output_kernel'], weights.get('output_bias'))
    return {
        **step,
        'h': h,
        'c': c,
        'keys': keys,
        'adds': adds,
        'gate_logits': gate_logits,
        'logits': logits,
        'probabilities': softmax(logits),
    }


def mann_sequence(state, inputs, weights, **settings):
    """`mann_step` for every row of inputs [steps, features]; returns the steps' dicts, a list."""
    steps = []
    for x in inputs:
        state = mann_step(state, x, weights, **settings)
        steps.append(state)
    return steps


def sequence_loss(logits, labels):
    """Mean over the steps of -log softmax(logits)[label]: [steps, way] and classes [steps]."""
    losses = []
    for row, label in zip(_float64(logits), labels, strict=True):
        losses.append(max(row) + np.log(sum(np.exp(row - max(row)))) - row[int(label)])
    return sum(losses) / len(losses)


# Scores by instance number


def instance_numbers(labels):
    """How often the sequence has shown each step's class so far, this step counted: 1, 2, ..."""
    return [list(labels[: t + 1]).count(label) for t, label in enumerate(labels)]


def accuracy_by_instance(labels, predictions):
    """Share of right predictions among the first, second, ... instances of a class.

    Args:
      labels, predictions: classes, [sequences, steps]. A step with a negative label counts for
        nothing and ends nothing.

    Returns:
      (accuracies, counts): lists, entry i - 1 for instance i. The shares are over all sequences
      together.
    """
    hits, counts = {}, {}
    for row, predicted in zip(labels, predictions, strict=True):
        for t, instance in enumerate(instance_numbers(row)):
            if row[t] >= 0:
                counts[instance] = counts.get(instance, 0) + 1
                hits[instance] = hits.get(instance, 0) + int(row[t] == predicted[t])
    largest = max(counts)
    return (
        [hits[i] / counts[i] for i in range(1, largest + 1)],
        [counts[i] for i in range(1, largest + 1)],
    )
