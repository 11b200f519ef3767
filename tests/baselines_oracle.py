"""Baselines of few-shot learning from their papers' and PyTorch's equations: plain loops in NumPy
float64, one task at a time, every derivative by hand.

Chen et al. (ICLR 2019, arXiv 1904.04232), Ravi and Larochelle (ICLR 2017), Kingma and Ba (ICLR
2015, algorithm 1). Labels are one-hot, [examples, classes].
"""

import numpy as np


def softmax(logits):
    """Row by row."""
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def cross_entropy(logits, labels):
    """Mean over the examples."""
    return -np.mean(np.sum(labels * np.log(softmax(logits)), 1))


def of_logits(logits, labels):
    """Gradient of the mean cross-entropy with respect to the logits."""
    return (softmax(logits) - labels) / len(labels)


def linear(features, weights):
    return features @ weights['kernel'] + weights['bias']


def linear_gradients(features, labels, weights):
    """({name: gradient}, gradient with respect to the features) of the mean cross-entropy."""
    d = of_logits(linear(features, weights), labels)
    return {'kernel': features.T @ d, 'bias': d.sum(0)}, d @ weights['kernel'].T


def unit(features):
    """As the authors of Baseline++ have it: 1e-5 is added to the length."""
    return features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-5)


def cosine(features, weights, scale):
    """scale g_k (v_k / |v_k|) . f / |f|."""
    lengths = np.linalg.norm(weights['direction'], axis=0)
    return scale * unit(features) @ (weights['direction'] / lengths * weights['norm'])


def cosine_gradients(features, labels, weights, scale):
    """{name: gradient} of the mean cross-entropy; v_k is the direction's column k."""
    d = of_logits(cosine(features, weights, scale), labels)
    to_kernel = scale * unit(features).T @ d
    gradients = {name: np.zeros_like(w) for name, w in weights.items()}
    for k in range(labels.shape[1]):
        v, g = weights['direction'][:, k], weights['norm'][k]
        length = np.linalg.norm(v)
        along = v @ to_kernel[:, k] / length
        gradients['norm'][k] = along
        gradients['direction'][:, k] = g / length * (to_kernel[:, k] - along * v / length)
    return gradients


def sgd(gradients_of, weights, batches, lr, momentum, dampening, weight_decay):
    """Weights after a step on each batch, as torch.optim.SGD takes it.

    gradients_of: (weights, batch) -> {name: gradient}.
    """
    weights, buffers = dict(weights), {}
    for batch in batches:
        for name, gradient in gradients_of(weights, batch).items():
            gradient = gradient + weight_decay * weights[name]
            if name not in buffers:
                buffers[name] = gradient.copy()
            else:
                buffers[name] = momentum * buffers[name] + (1 - dampening) * gradient
            weights[name] = weights[name] - lr * buffers[name]
    return weights


def decaying(gradients_of, weights, updates, lr, decay):
    """Weights after some updates with Torch's learningRateDecay: lr / (1 + t decay)."""
    weights = dict(weights)
    for t in range(updates):
        gradients = gradients_of(weights)
        weights = {name: w - lr / (1 + t * decay) * gradients[name] for name, w in weights.items()}
    return weights


def adam(gradients_of, weights, batches, lr, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    """Weights after a step on each batch; epsilon stands beside the uncorrected root, as in
    TensorFlow (Kingma and Ba's section 2, last lines)."""
    weights = dict(weights)
    m = {name: np.zeros_like(w) for name, w in weights.items()}
    v = {name: np.zeros_like(w) for name, w in weights.items()}
    for t, batch in enumerate(batches, start=1):
        rate = lr * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        for name, gradient in gradients_of(weights, batch).items():
            m[name] = beta_1 * m[name] + (1 - beta_1) * gradient
            v[name] = beta_2 * v[name] + (1 - beta_2) * gradient**2
            weights[name] = weights[name] - rate * m[name] / (np.sqrt(v[name]) + epsilon)
    return weights


def with_linear_encoder(x, labels, weights):
    """{name: gradient} of a network x E + e, then a linear head: encoder, offset, kernel, bias."""
    features = x @ weights['encoder'] + weights['offset']
    gradients, to_features = linear_gradients(features, labels, weights)
    return gradients | {'encoder': x.T @ to_features, 'offset': to_features.sum(0)}


def nearest(support, labels, query):
    """The class of each query's nearest support example by the cosine."""
    chosen = []
    for q in query:
        cosines = [q @ s / (np.linalg.norm(q) * np.linalg.norm(s)) for s in support]
        chosen.append(int(np.argmax(labels[int(np.argmax(cosines))])))
    return chosen
