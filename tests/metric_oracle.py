"""Metric-based few-shot learners from the papers' equations: plain loops in NumPy float64, one task
at a time.

Prototypical Networks (Snell et al., NeurIPS 2017, arXiv 1703.05175), Matching Networks (Vinyals et
al., NeurIPS 2016, arXiv 1606.04080), Relation Network (Sung et al., CVPR 2018, arXiv 1711.06025),
Siamese networks (Koch et al., ICML deep learning workshop 2015).

Labels are one-hot, [examples, way]. An example whose row of labels is all zero is filling and
counts for nothing; where a function takes no labels, leave the filling out before the call. d is
the length of an embedding.
"""

import math

import numpy as np


def _float64(array):
    return np.asarray(array, dtype=np.float64)


def _class_of(label):
    """Index of the class of one row of labels, None for filling."""
    return int(np.argmax(label)) if np.any(label) else None


def _members(labels, k):
    """Indices of class k's examples."""
    return [i for i in range(len(labels)) if _class_of(labels[i]) == k]


def _real(labels):
    """Indices of the examples that are not filling."""
    return [i for i in range(len(labels)) if _class_of(labels[i]) is not None]


def softmax(logits):
    """Of one vector."""
    logits = _float64(logits)
    exponentials = np.exp(logits - max(logits))
    return exponentials / sum(exponentials)


def sigmoid(x):
    """Of a number or element by element."""
    return 1.0 / (1.0 + np.exp(-_float64(x)))


def squared_l2(a, b):
    """||a - b||^2 of two vectors: summed over the components, not averaged."""
    return sum((x - y) ** 2 for x, y in zip(_float64(a), _float64(b), strict=True))


def dot(a, b):
    return sum(x * y for x, y in zip(_float64(a), _float64(b), strict=True))


def cosine(a, b):
    """a.b / (|a| |b|) of two vectors; 0 where one of them is zero."""
    norms = math.sqrt(dot(a, a)) * math.sqrt(dot(b, b))
    return dot(a, b) / norms if norms > 0 else 0.0


# Losses and scores of a classifier


def nll(logits, labels):
    """Mean over the queries of -log softmax(logits)[class]: logits and labels [queries, way]."""
    losses = [-_log_softmax(logits[i])[_class_of(labels[i])] for i in _real(labels)]
    return sum(losses) / len(losses)


def _log_softmax(logits):
    logits = _float64(logits)
    largest = max(logits)
    return logits - largest - math.log(sum(math.exp(value - largest) for value in logits))


def accuracy(scores, labels):
    """Share of the queries whose highest score (the first of equals) is their class': [queries,
    way] both."""
    hits = [int(np.argmax(scores[i])) == _class_of(labels[i]) for i in _real(labels)]
    return sum(hits) / len(hits)


# Prototypical Networks


def prototypes(embeddings, labels):
    """Equation 1: c_k = mean of class k's support embeddings, [n, d] -> [way, d].

    Raises:
      ValueError: for a class without support, whose prototype is undefined.
    """
    embeddings, labels = _float64(embeddings), np.asarray(labels)
    means = []
    for k in range(labels.shape[1]):
        members = _members(labels, k)
        if not members:
            raise ValueError(f'class {k} has no support')
        means.append(sum(embeddings[i] for i in members) / len(members))
    return np.array(means)


def squared_euclidean_logits(queries, centres):
    """Equation 2's logits, -||query - c_k||^2, not averaged over d: [q, d], [way, d] -> [q,
    way]."""
    return np.array([[-squared_l2(query, centre) for centre in centres] for query in queries])


def cosine_logits(queries, centres, scale):
    """scale * cos(query, c_k): [q, d], [way, d] -> [q, way]."""
    return np.array([[scale * cosine(query, centre) for centre in centres] for query in queries])


# Matching Networks

SIMILARITIES = {'cosine': cosine, 'squared_l2': lambda a, b: -squared_l2(a, b), 'dot': dot}


def matching_simple(support, labels, queries, similarity='cosine', temperature=1.0):
    """Equation 1: P(y|x) = sum_i a(x, x_i) y_i, a = softmax over i of temperature * similarity(x,
    x_i).

    The temperature multiplies (a larger one sharpens); 'squared_l2' is the similarity -||x -
    x_i||^2. Embeddings with FCE come in as queries = f and support = g.

    Returns:
      probabilities [q, way].
    """
    support, labels = _float64(support), np.asarray(labels)
    real = _real(labels)
    probabilities = np.zeros((len(queries), labels.shape[1]))
    for q, query in enumerate(queries):
        attention = softmax(
            [temperature * SIMILARITIES[similarity](query, support[i]) for i in real]
        )
        for weight, i in zip(attention, real, strict=True):
            probabilities[q, _class_of(labels[i])] += weight
    return probabilities


def matching_loss(probabilities, labels):
    """Mean over the queries of -log P(class|x), unclipped: probabilities and labels [q, way]."""
    losses = [-math.log(probabilities[i][_class_of(labels[i])]) for i in _real(labels)]
    return sum(losses) / len(losses)


def class_summed_cosine_logits(support, labels, queries):
    """Logits sum_{i in class k} cos(x, x_i), [q, way], for `nll`: no attention softmax and no
    temperature.

    Source: the matching network in twitter-research/meta-learning-lstm.
    """
    labels = np.asarray(labels)
    return np.array(
        [
            [
                sum(cosine(query, support[i]) for i in _members(labels, k))
                for k in range(labels.shape[1])
            ]
            for query in queries
        ]
    )


def lstm_cell(x, h, c, kernel, recurrent_kernel, bias):
    """One step of an LSTM in Keras' layout, gates in the order i, f, c~, o along the last axis.

    i, f, o = sigmoid, c~ = tanh of x kernel + h recurrent_kernel + bias; c' = f c + i c~; h' = o
    tanh(c').

    Args:
      x: [inputs]. h: [recurrent]; as long as c in an ordinary LSTM, 2d in the attention LSTM of
        `fce_f`. c: [d].
      kernel: [inputs, 4d]. recurrent_kernel: [recurrent, 4d]. bias: [4d]. A Keras layer's weights
        in its order; its bias already holds the 1 of unit_forget_bias.

    Returns:
      (h' [d], c' [d])
    """
    kernel, recurrent_kernel, bias, c = (
        _float64(value) for value in (kernel, recurrent_kernel, bias, c)
    )
    d = len(c)
    gates = [dot(x, kernel[:, j]) + dot(h, recurrent_kernel[:, j]) + bias[j] for j in range(4 * d)]
    new_h, new_c = np.zeros(d), np.zeros(d)
    for j in range(d):
        i, f, o = sigmoid(gates[j]), sigmoid(gates[d + j]), sigmoid(gates[3 * d + j])
        new_c[j] = f * c[j] + i * math.tanh(gates[2 * d + j])
        new_h[j] = o * math.tanh(new_c[j])
    return new_h, new_c


def fce_g(embeddings, forward, backward):
    """Appendix A.2: g(x_i, S) = h_forward_i + h_backward_i + g'(x_i), a bidirectional LSTM over the
    support set.

    Both start from zeros; the forward one reads the supports in the order given, the backward one
    from the last to the first, and h_backward_i is its output just after it has read x_i.

    Args:
      embeddings: g', [n, d], without filling.
      forward, backward: (kernel [d, 4d], recurrent_kernel [d, 4d], bias [4d]).

    Returns:
      g [n, d]
    """
    g = _float64(embeddings).copy()
    n, d = g.shape
    for order, weights in ((range(n), forward), (reversed(range(n)), backward)):
        h, c = np.zeros(d), np.zeros(d)
        for i in order:
            h, c = lstm_cell(embeddings[i], h, c, *weights)
            g[i] += h
    return g


def fce_f(embedding, g, steps, weights):
    """Appendix A.1: the query's embedding after `steps` reads of the support set.

    For k = 1 ... steps, with h_0 = c_0 = 0:
      r_{k-1} = sum_i softmax_i(h_{k-1}^T g(x_i)) g(x_i)
      h^_k, c_k = LSTM(f'(x), [h_{k-1}, r_{k-1}], c_{k-1})
      h_k = h^_k + f'(x)
    and f = h_steps. h_0 = 0 (the paper does not state it) makes every h_0^T g(x_i) equal, so r_0 is
    the plain mean of g, not zero. The recurrent state is h then r, 2d long, while h^ and c have
    length d; the h that is read and fed back is h_k, with f' added, not h^_k.

    Args:
      embedding: f'(x), [d]. g: [n, d], without filling. steps: at least 1.
      weights: (kernel [d, 4d], recurrent_kernel [2d, 4d], bias [4d]).

    Returns:
      f [d]; all h_1 ... h_steps, [steps, d]; all r_0 ... r_{steps-1}, [steps, d] (row k-1: the read
      used in step k).
    """
    embedding, g = _float64(embedding), _float64(g)
    h, c = np.zeros(len(embedding)), np.zeros(len(embedding))
    all_h, all_r = [], []
    for _ in range(steps):
        attention = softmax([dot(h, g_i) for g_i in g])
        r = sum(weight * g_i for weight, g_i in zip(attention, g, strict=True))
        h_hat, c = lstm_cell(embedding, np.concatenate([h, r]), c, *weights)
        h = h_hat + embedding
        all_h.append(h)
        all_r.append(r)
    return h, np.array(all_h), np.array(all_r)


# Relation Network


def relation_pairs(support_maps, labels, query_maps):
    """Every (query, class) pair's input to the relation module, [q, way, h, w, 2c].

    The class' map is the SUM of its supports' maps (section 3.2, "element-wise sum"); it comes
    first on the channels.
    """
    support_maps, query_maps, labels = (
        _float64(support_maps),
        _float64(query_maps),
        np.asarray(labels),
    )
    class_maps = [
        sum((support_maps[i] for i in _members(labels, k)), np.zeros(support_maps.shape[1:]))
        for k in range(labels.shape[1])
    ]
    return np.array(
        [
            [np.concatenate([class_map, query_map], axis=-1) for class_map in class_maps]
            for query_map in query_maps
        ]
    )


def relation_scores(support_maps, labels, query_maps, relation):
    """Equation 1: r_{q,k} = relation(C(sum of f(x_i) over class k, f(x_q))), [q, way].

    Args:
      support_maps: [n, h, w, c]. query_maps: [q, h, w, c].
      relation: function of one [h, w, 2c] to a number. With batch norm over the pairs it cannot be
        one; take `relation_pairs` then.
    """
    return np.array(
        [
            [float(relation(pair)) for pair in row]
            for row in relation_pairs(support_maps, labels, query_maps)
        ]
    )


def relation_mse(scores, labels):
    """Mean over all (query, class) pairs of (score - label)^2: both [q, way]. (Equation 2 sums; the
    code averages.)"""
    errors = [
        (scores[i][k] - labels[i][k]) ** 2 for i in _real(labels) for k in range(len(labels[i]))
    ]
    return sum(errors) / len(errors)


# Layers, for small inputs


def conv2d_valid(images, kernel, bias=None):
    """Cross-correlation, stride 1, no padding: [n, h, w, in], [kh, kw, in, out] -> [n, h-kh+1,
    w-kw+1, out]."""
    images, kernel = _float64(images), _float64(kernel)
    n, height, width, _ = images.shape
    kernel_height, kernel_width, _, filters = kernel.shape
    out = np.zeros((n, height - kernel_height + 1, width - kernel_width + 1, filters))
    for b, y, x, f in np.ndindex(*out.shape):
        patch = images[b, y : y + kernel_height, x : x + kernel_width, :]
        out[b, y, x, f] = np.sum(patch * kernel[:, :, :, f]) + (0.0 if bias is None else bias[f])
    return out


def conv2d_same(images, kernel, bias=None):
    """`conv2d_valid` of images padded with zeros to keep their size; an even kernel has the odd
    zero after, as TF."""
    images = _float64(images)
    n, height, width, channels = images.shape
    kernel_height, kernel_width = np.shape(kernel)[:2]
    padded = np.zeros((n, height + kernel_height - 1, width + kernel_width - 1, channels))
    top, left = (kernel_height - 1) // 2, (kernel_width - 1) // 2
    padded[:, top : top + height, left : left + width, :] = images
    return conv2d_valid(padded, kernel, bias)


def max_pool2x2(images):
    """Largest of every 2 x 2 block, stride 2; a last odd row or column is dropped: [n, h, w, c]."""
    images = _float64(images)
    n, height, width, channels = images.shape
    out = np.zeros((n, height // 2, width // 2, channels))
    for b, y, x, f in np.ndindex(*out.shape):
        out[b, y, x, f] = np.max(images[b, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2, f])
    return out


def batch_norm_running(x, mean, variance, gamma, beta, epsilon=1e-3):
    """gamma (x - mean) / sqrt(variance + epsilon) + beta for each channel: x [..., c], the others
    [c]."""
    x = _float64(x)
    out = np.zeros_like(x)
    for f in range(x.shape[-1]):
        out[..., f] = gamma[f] * (x[..., f] - mean[f]) / math.sqrt(variance[f] + epsilon) + beta[f]
    return out


def batch_norm_batch(x, gamma, beta, epsilon=1e-3):
    """`batch_norm_running` with the mean and the biased variance (over all axes but the last) of x
    itself."""
    x = _float64(x)
    channels = [x[..., f].ravel() for f in range(x.shape[-1])]
    means = [sum(values) / len(values) for values in channels]
    variances = [
        sum((values - mean) ** 2) / len(values)
        for values, mean in zip(channels, means, strict=True)
    ]
    return batch_norm_running(x, means, variances, gamma, beta, epsilon)


# Siamese networks


def siamese_probability(h1, h2, weights, bias, distance='l1'):
    """Section 3.1: probability that two images are of one class, sigmoid(sum_j w_j t_j + b):
    vectors [d], a number out.

    t_j is |h1_j - h2_j| ('l1', the paper's), (h1_j - h2_j)^2 ('l2'), or h1_j h2_j / (|h1| |h2|)
    ('cosine', whose sum with weights 1 is the cosine; 0 where one of the two is zero).
    """
    h1, h2 = _float64(h1), _float64(h2)
    norms = math.sqrt(dot(h1, h1)) * math.sqrt(dot(h2, h2))
    total = float(bias)
    for j in range(len(h1)):
        component = {
            'l1': abs(h1[j] - h2[j]),
            'l2': (h1[j] - h2[j]) ** 2,
            'cosine': h1[j] * h2[j] / norms if norms > 0 else 0.0,
        }[distance]
        total += float(weights[j]) * component
    return float(sigmoid(total))


def siamese_scores(support, labels, queries, weights, bias, distance='l1'):
    """Score of class k for a query: the best same-class probability with a support of k, [q, way];
    -inf with none."""
    labels = np.asarray(labels)
    return np.array(
        [
            [
                max(
                    (
                        siamese_probability(query, support[i], weights, bias, distance)
                        for i in _members(labels, k)
                    ),
                    default=-math.inf,
                )
                for k in range(labels.shape[1])
            ]
            for query in queries
        ]
    )


def binary_cross_entropy(probabilities, same):
    """Mean over the pairs of -log p where same is 1 and -log(1 - p) where it is 0, unclipped: both
    [pairs]."""
    losses = [-math.log(p if y else 1.0 - p) for p, y in zip(probabilities, same, strict=True)]
    return sum(losses) / len(losses)


def within_alphabet_accuracy(runs):
    """Accuracy over the trials of Lake's within-alphabet 20-way 1-shot task, as Koch et al.
    evaluate it (section 4.3).

    The rule. A run takes ONE alphabet out of the ten evaluation alphabets, twenty of its characters
    uniformly without repetition, and two different drawers among those kept for evaluation. The
    first drawer's twenty images are the queries; the second drawer's twenty, the same characters,
    are the support set. Each query is compared
    with all twenty supports and gets the class of the most probable: twenty trials of a run. Every
    alphabet has two runs, thus 40 trials, and the ten alphabets 400; the accuracy is the share of
    the trials that are right. No task mixes alphabets, no image is both query and support, and a
    query is never by the drawer of its support. No rotation and no distortion. It is harder than 20
    characters from anywhere: the two figures do not compare.

    Args:
      runs: list of (scores [q, way], labels [q, way]).
    """
    hits = sum(accuracy(scores, labels) * len(_real(labels)) for scores, labels in runs)
    return hits / sum(len(_real(labels)) for _, labels in runs)


def affine_matrix(rotation, shear, scale):
    """R(rotation) Shear Scale, [2, 2], on columns (x, y): x to the right, y down. See `distort`."""
    theta = math.radians(rotation)
    turn = np.array([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])
    lean = np.array([[1.0, math.tan(shear[0])], [math.tan(shear[1]), 1.0]])
    return turn @ lean @ np.array([[scale[0], 0.0], [0.0, scale[1]]])


def distort(
    image, rotation=0.0, shear=(0.0, 0.0), scale=(1.0, 1.0), shift=(0.0, 0.0), background=0.0
):
    """Affine distortion T = (theta, rho_x, rho_y, s_x, s_y, t_x, t_y), Koch et al., section 3.2:
    [h, w] -> [h, w].

    Coordinates (x, y) = (column, row), x to the right, y down, whole numbers at the middles of the
    pixels; the centre is ((w - 1) / 2, (h - 1) / 2). A point p of the image goes to
      p' = centre + R Shear Scale (p - centre) + shift
    with R = [[cos, -sin], [sin, cos]] of theta, Shear = [[1, tan rho_x], [tan rho_y, 1]], Scale =
    diag(s_x, s_y). The paper fixes no convention; in this one a positive theta turns the drawing
    clockwise as seen, a positive rho_x pushes the lower rows to the right, a positive rho_y the
    right columns down, a scale above 1 enlarges, and a positive shift moves right and down. An
    output pixel at p' takes the input's value at p = centre + (R Shear Scale)^-1 (p' - shift -
    centre), bilinear between the four neighbours, each neighbour outside of the image standing for
    `background`.

    Args:
      rotation: theta, degrees. shear: (rho_x, rho_y), radians. scale: (s_x, s_y). shift: (t_x,
        t_y), pixels.
    """
    image = _float64(image)
    height, width = image.shape
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    inverse = np.linalg.inv(affine_matrix(rotation, shear, scale))

    def pixel(row, column):
        return image[row, column] if 0 <= row < height and 0 <= column < width else background

    out = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            x, y = centre + inverse @ (np.array([column, row]) - _float64(shift) - centre)
            left, top = math.floor(x), math.floor(y)
            right_share, lower_share = x - left, y - top
            upper = (1 - right_share) * pixel(top, left) + right_share * pixel(top, left + 1)
            lower = (1 - right_share) * pixel(top + 1, left) + right_share * pixel(
                top + 1, left + 1
            )
            out[row, column] = (1 - lower_share) * upper + lower_share * lower
    return out


def finite_difference_gradient(function, array, epsilon=1e-5):
    """Central differences (f(a + e) - f(a - e)) / 2e of a scalar function, one element at a time:
    shape of `array`.

    The function must compute in float64: in float32 the differences are mostly rounding.
    """
    array = _float64(array)
    gradient = np.zeros_like(array)
    for index in np.ndindex(*array.shape):
        above, below = array.copy(), array.copy()
        above[index] += epsilon
        below[index] -= epsilon
        gradient[index] = (float(function(above)) - float(function(below))) / (2 * epsilon)
    return gradient
