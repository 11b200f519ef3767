"""Closed-form heads from the papers' equations in NumPy float64, one task at a time.

R2-D2 and LR-D2 (Bertinetto et al., ICLR 2019, arXiv 1805.08136), MetaOptNet (Lee et al., CVPR 2019,
arXiv 1904.03758). Each solver takes another way than one would in TensorFlow: ridge regression is
a least-squares problem, logistic regression takes Newton's steps on its weights, and the quadratic
programme of the SVM is solved by accelerated projected gradients.

Labels are one-hot, [examples, way]. An example whose row of labels is all zero is filling, a class
whose column is all zero is absent: the heads leave both out, and score an absent class -inf.
"""

from typing import NamedTuple

import numpy as np


def _float64(array):
    return np.asarray(array, dtype=np.float64)


# Solvers


def ridge_regression(x, y, weight):
    """W that minimises |X W - Y|^2 + weight |W|^2: [n, features], [n, out] -> [features, out]."""
    x, y = _float64(x), _float64(y)
    features = x.shape[1]
    rows = np.concatenate([x, np.sqrt(weight) * np.eye(features)])
    targets = np.concatenate([y, np.zeros((features, y.shape[1]))])
    return np.linalg.lstsq(rows, targets, rcond=None)[0]


def logistic_regression(x, y, weight, steps):
    """`steps` of Newton's method from w = 0 on each class against the others: -> [features, way].

    w <- (X' S X + weight I)^-1 X' S z, with z = eta + (y - mu) / s. By the matrix inversion lemma
    it is the step of R2-D2's section 3.3, X' (X X' + weight S^-1)^-1 z.
    """
    x, y = _float64(x), _float64(y)
    columns = []
    for k in range(y.shape[1]):
        w = np.zeros(x.shape[1])
        for _ in range(steps):
            eta = x @ w
            mu = 1 / (1 + np.exp(-eta))
            s = mu * (1 - mu)
            hessian = (x.T * s) @ x + weight * np.eye(len(w))
            w = np.linalg.solve(hessian, x.T @ (s * eta + y[:, k] - mu))
        columns.append(w)
    return np.stack(columns, axis=1)


def logistic_slope(x, y, weight, w):
    """Gradient in w of sum log(1 + e^eta) - y eta + weight/2 |w|^2, for every class: 0 where it is
    least."""
    return x.T @ (1 / (1 + np.exp(-x @ w)) - y) + weight * w


def project(values, bounds):
    """Nearest point of {a <= bounds, sum of a row = 0} for every row: both [rows, way].

    The point is min(value - tau, bound). A row's sum falls with tau, and is the least of the sums
    in which some entries are free and the others at their bounds. So tau is the least of the roots
    of those sums, and one whose free entries come first in the order of value - bound attains it.
    """
    order = np.argsort(values - bounds, axis=1)
    value, bound = (np.take_along_axis(array, order, axis=1) for array in (values, bounds))
    others = bound.sum(1, keepdims=True) - bound.cumsum(1)
    roots = (value.cumsum(1) + others) / np.arange(1, values.shape[1] + 1)
    return np.minimum(values - roots.min(1, keepdims=True), bounds)


def crammer_singer(kernel, labels, penalty=0.1, ridge=1.0, tolerance=1e-10):
    """alpha [n, way] that minimises
      1/2 sum_k alpha_k' K alpha_k + ridge/2 |alpha|^2 - sum_i alpha_{i, y_i}
    subject to alpha_{i,k} <= penalty [k = y_i] and sum_k alpha_{i,k} = 0.

    Projected gradients with Nesterov's momentum for a strongly convex function, until no residual
    of `kkt` exceeds `tolerance`.
    """
    kernel, labels = _float64(kernel), _float64(labels)
    curvatures = np.linalg.eigvalsh(kernel)
    steepest, flattest = curvatures[-1] + ridge, max(curvatures[0], 0) + ridge
    ratio = np.sqrt(flattest / steepest)
    momentum = (1 - ratio) / (1 + ratio)
    alpha = ahead = np.zeros_like(labels)
    for step in range(200000):
        gradient = kernel @ ahead + ridge * ahead - labels
        before, alpha = alpha, project(ahead - gradient / steepest, penalty * labels)
        ahead = alpha + momentum * (alpha - before)
        if step % 20 == 0 and max(kkt(kernel, labels, alpha, penalty, ridge)[:2]) <= tolerance:
            return alpha
    raise AssertionError('projected gradients did not converge')


class KKT(NamedTuple):
    """How far alpha is from the optimum.

    feasibility: by how much it breaks a constraint.
    complementarity: the most that a multiplier and its bound's slack both differ from 0, both in
      the unit of the gradient.
    margin: the least by which one of the two does. Where it is 0 the solution has a kink.
    """

    feasibility: float
    complementarity: float
    margin: float


def kkt(kernel, labels, alpha, penalty=0.1, ridge=1.0):
    """Residuals of the optimality conditions with the multipliers that suit alpha best.

    Stationarity is gradient + mu = nu, with mu >= 0 of the bounds and nu of a row's sum. It holds
    for nu = the largest of the row's gradients and mu = nu - gradient, and no smaller nu leaves
    mu >= 0. What is left is feasibility and mu * slack = 0.
    """
    kernel, labels, alpha = _float64(kernel), _float64(labels), _float64(alpha)
    gradient = kernel @ alpha + ridge * alpha - labels
    multiplier = gradient.max(1, keepdims=True) - gradient
    slack = penalty * labels - alpha
    feasibility = max(np.abs(alpha.sum(1)).max(), -slack.min(), 0.0)
    slack = np.abs(slack) * (np.linalg.eigvalsh(kernel)[-1] + ridge)
    counting = labels.any(1)
    return KKT(
        feasibility,
        np.minimum(multiplier, slack).max(),
        np.maximum(multiplier, slack)[counting].min(),
    )


# Heads


def _with_ones(x):
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def _of_what_counts(head):
    """Gives a head the counting examples and the classes that are there; the others score -inf."""

    def scores(support, labels, query, *arguments, **options):
        support, labels, query = _float64(support), _float64(labels), _float64(query)
        examples, classes = labels.any(1), labels.any(0)
        outputs = np.full((len(query), labels.shape[1]), -np.inf)
        outputs[:, classes] = head(
            support[examples], labels[examples][:, classes], query, *arguments, **options
        )
        return outputs

    return scores


@_of_what_counts
def r2d2(support, labels, query, ridge=50.0, scale=10.0, offset=0.0):
    """a (x_q W) + c, W of X / sqrt(n) and Y / sqrt(n) with a column of ones: -> [q, way]."""
    root = np.sqrt(len(support))
    w = ridge_regression(_with_ones(support) / root, labels / root, ridge)
    return scale * (_with_ones(query) @ w) + offset


@_of_what_counts
def lrd2(support, labels, query, ridge=50.0, steps=5):
    """x_q w of each class' logistic regression with a column of ones: -> [q, way]."""
    return _with_ones(query) @ logistic_regression(_with_ones(support), labels, ridge, steps)


@_of_what_counts
def svm(support, labels, query, penalty=0.1, ridge=1.0, scale=1.0, tolerance=1e-10):
    """scale * sum_i alpha_{i,k} <x_i, x_q>, alpha of the SVM: -> [q, way]."""
    alpha = crammer_singer(support @ support.T, labels, penalty, ridge, tolerance)
    return scale * (query @ support.T @ alpha)


@_of_what_counts
def kernel_ridge(support, labels, query, ridge=50.0, scale=1.0):
    """scale * sum_i alpha_{i,k} <x_i, x_q>, alpha = 2 (K + ridge I)^-1 Y: -> [q, way]."""
    kernel = support @ support.T + ridge * np.eye(len(support))
    return scale * (query @ support.T @ (2 * np.linalg.inv(kernel) @ labels))


@_of_what_counts
def prototypes(support, labels, query, scale=1.0):
    """-scale |x_q - mean of class k|^2 / features: -> [q, way]."""
    scores = [
        [-np.mean((x - support[labels[:, k] > 0].mean(0)) ** 2) for k in range(labels.shape[1])]
        for x in query
    ]
    return scale * np.array(scores)
