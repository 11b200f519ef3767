"""Conditional Neural Processes and the exact Gaussian process: plain loops in NumPy float64, one
task at a time.

Garnelo et al., "Conditional neural processes", ICML 2018, arXiv 1807.01613, section 2; the
posterior is Rasmussen and Williams, "Gaussian processes for machine learning", 2006, algorithm 2.1.

Points are rows: x [points, x dims], y [points, y dims]. A mask is [points], true for points that
count.
"""

import math

import numpy as np
from metric_oracle import dot


def _float64(array):
    return np.asarray(array, dtype=np.float64)


# The network


def mlp(x, layers):
    """Fully connected layers with ReLU between them; the last one is linear.

    Args:
      x: [inputs], one vector.
      layers: list of (kernel [inputs, outputs], bias [outputs]).

    Returns:
      Every layer's output, a list; that of the last is the network's.
    """
    outputs, current = [], [float(value) for value in x]
    for index, (kernel, bias) in enumerate(layers):
        kernel = _float64(kernel)
        current = [dot(current, kernel[:, j]) + float(bias[j]) for j in range(kernel.shape[1])]
        if index < len(layers) - 1:
            current = [max(value, 0.0) for value in current]
        outputs.append(np.array(current))
    return outputs


def encoded(x, y, encoder):
    """r_i = h([x_i, y_i]) of every point, [points, r]."""
    rows = [mlp(list(x[i]) + list(y[i]), encoder)[-1] for i in range(len(x))]
    return np.array(rows).reshape(len(rows), np.shape(encoder[-1][0])[1])


def masked_mean(rows, mask=None):
    """Mean of the rows that count, [points, r] -> [r]; zeros where none does."""
    total, count = np.zeros(rows.shape[1]), 0
    for i in range(len(rows)):
        if mask is None or mask[i]:
            total = total + rows[i]
            count += 1
    return total / count if count else total


def softplus(x):
    """log(1 + exp(x)) of a number."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def decoded(r, x, decoder, smallest=0.1, scale=0.9):
    """(mu, sigma) at every target: (mu, s) = g([r, x*]), sigma = smallest + scale softplus(s).

    Args:
      r: [r]. x: [targets, x dims].
      decoder: layers of `mlp`, whose last has 2 y dims outputs, the means and then s.

    Returns:
      A dict: 'mean', 'raw' (s) and 'sigma', [targets, y dims] each.
    """
    outputs = np.array([mlp(list(r) + list(row), decoder)[-1] for row in x])
    dims = outputs.shape[1] // 2
    raw = outputs[:, dims:]
    sigma = np.array([[smallest + scale * softplus(value) for value in row] for row in raw])
    return {'mean': outputs[:, :dims], 'raw': raw, 'sigma': sigma}


def normal_log_density(y, mean, sigma):
    """log N(y; mean, sigma^2) of numbers."""
    return -0.5 * math.log(2 * math.pi) - math.log(sigma) - 0.5 * ((y - mean) / sigma) ** 2


def log_likelihoods(y, mean, sigma):
    """log N of every target, summed over the y dims (they are independent): [targets]."""
    result = np.zeros(len(y))
    for i in range(len(y)):
        for j in range(np.shape(y)[1]):
            result[i] += normal_log_density(y[i][j], mean[i][j], sigma[i][j])
    return result


def mean_log_likelihood(y, mean, sigma, mask=None):
    """Mean over the targets that count of `log_likelihoods`. The loss is its negative."""
    values = log_likelihoods(y, mean, sigma)
    chosen = [values[i] for i in range(len(values)) if mask is None or mask[i]]
    return sum(chosen) / len(chosen)


def cnp(context, target, encoder, decoder, context_mask=None, target_mask=None, **settings):
    """A whole forward pass.

    Args:
      context: (x [points, x dims], y [points, y dims]). target: (x, y), alike; the paper's targets
        hold the context points, too.
      settings: smallest and scale, of `decoded`.

    Returns:
      A dict: 'encoded' [points, r], 'r' [r], 'mean', 'raw', 'sigma' [targets, y dims],
      'log_likelihoods' [targets], 'mean_log_likelihood', 'loss', and 'squared_error', the mean over
      the targets that count and the y dims of (mean - y)^2.
    """
    rows = encoded(*context, encoder)
    r = masked_mean(rows, context_mask)
    x, y = _float64(target[0]), _float64(target[1])
    outputs = decoded(r, x, decoder, **settings)
    mean, sigma = outputs['mean'], outputs['sigma']
    value = mean_log_likelihood(y, mean, sigma, target_mask)
    errors = [
        (mean[i, j] - y[i, j]) ** 2
        for i in range(len(y))
        for j in range(y.shape[1])
        if target_mask is None or target_mask[i]
    ]
    return {
        'encoded': rows,
        'r': r,
        **outputs,
        'log_likelihoods': log_likelihoods(y, mean, sigma),
        'mean_log_likelihood': value,
        'loss': -value,
        'squared_error': sum(errors) / len(errors),
    }


# The exact posterior of a Gaussian process


def rbf(a, b, length=0.4, amplitude=1.0):
    """amplitude^2 exp(-|a - b|^2 / (2 length^2)) of two points."""
    distance = sum((x - y) ** 2 for x, y in zip(_float64(a), _float64(b), strict=True))
    return amplitude**2 * math.exp(-distance / (2 * length**2))


def covariance(x, jitter=0.02, length=0.4, amplitude=1.0):
    """Covariance of the observations at x, [n, n]: the kernel, and jitter^2 on the diagonal.

    jitter is a standard deviation.
    """
    result = np.zeros((len(x), len(x)))
    for i in range(len(x)):
        for j in range(len(x)):
            result[i, j] = rbf(x[i], x[j], length, amplitude) + (jitter**2 if i == j else 0.0)
    return result


def cholesky(matrix):
    """Lower triangular L with L L^T = matrix, row by row."""
    n = len(matrix)
    lower = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1):
            rest = matrix[i, j] - dot(lower[i, :j], lower[j, :j])
            lower[i, j] = math.sqrt(rest) if i == j else rest / lower[j, j]
    return lower


def _forward_substituted(lower, b):
    solution = np.zeros(len(b))
    for i in range(len(b)):
        solution[i] = (b[i] - dot(lower[i, :i], solution[:i])) / lower[i, i]
    return solution


def gp_posterior(context, x, jitter=0.02, length=0.4, amplitude=1.0, noisy=True):
    """Mean and variance of the process at each of the points x, given the context.

    K = kernel of the context + jitter^2 I, k = kernel of the context and x*: mean = k^T K^-1 y,
    variance = k(x*, x*) - k^T K^-1 k, and jitter^2 more where noisy: a fresh observation, whose
    noise is its own even where x* is a context point. With no context, the prior.

    Args:
      context: (x [points, x dims], y [points, 1] or [points]). x: [targets, x dims].

    Returns:
      A dict: 'mean' and 'variance', [targets] each.
    """
    known = _float64(context[0])
    y = _float64(context[1]).reshape(len(known))
    lower = cholesky(covariance(known, jitter, length, amplitude))
    whitened_y = _forward_substituted(lower, y)
    means, variances = [], []
    for point in _float64(x):
        k = np.array([rbf(row, point, length, amplitude) for row in known])
        whitened_k = _forward_substituted(lower, k)
        means.append(dot(whitened_k, whitened_y))
        variance = rbf(point, point, length, amplitude) - dot(whitened_k, whitened_k)
        variances.append(variance + (jitter**2 if noisy else 0.0))
    return {'mean': np.array(means), 'variance': np.array(variances)}


def gp_log_likelihoods(context, target, **settings):
    """log N(y*; posterior mean, variance) of each target by itself, not of all together: [targets].

    context and target: (x, y). settings: of `gp_posterior`.
    """
    posterior = gp_posterior(context, target[0], **settings)
    y = _float64(target[1]).reshape(len(target[0]))
    return np.array(
        [
            normal_log_density(y[i], posterior['mean'][i], math.sqrt(posterior['variance'][i]))
            for i in range(len(y))
        ]
    )


def gp_mean_log_likelihood(context, target, mask=None, **settings):
    """Mean over the targets that count of `gp_log_likelihoods`.

    At fresh points it bounds what a CNP can expect. At context points, whose y it has seen with the
    very noise, it does not.
    """
    values = gp_log_likelihoods(context, target, **settings)
    chosen = [values[i] for i in range(len(values)) if mask is None or mask[i]]
    return sum(chosen) / len(chosen)
