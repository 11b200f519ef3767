"""MAML, first-order MAML and Reptile to first order in alpha (Nichol et al. 2018, section 5.1).

With k mini-batches in random order, A = E[g_i] and B = E[H_i g_j] of two different ones, both at
the start, what the outer loop steps by is, up to O(alpha^2):

  first-order MAML   A - (k - 1) alpha B            k = 2:  A - alpha B
  MAML               A - 2 (k - 1) alpha B                  A - 2 alpha B
  Reptile            k A - k (k - 1) / 2 alpha B            2 A - alpha B
"""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.episodes.task import Task
from maml_tf.inner_loop import InnerProblem, inner_loop, stack_over_tasks
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.regression import Regression
from maml_tf.update_rules import GradientDescent

TASKS, SIZE = 4, 5
METHODS = ['first-order MAML', 'MAML', 'Reptile']


def coefficients(method, k):
    """(of A, of -alpha B)."""
    return {
        'first-order MAML': (1, k - 1),
        'MAML': (1, 2 * (k - 1)),
        'Reptile': (k, k * (k - 1) / 2),
    }[method]


class MiniBatches:
    """Losses (w - c)'H(w - c) / 2 + curl * sum(sin w) of k mini-batches of every task.

    curl: without it the losses are quadratics. It is another number for every mini-batch.
    """

    def __init__(self, k, curly, seed=0):
        rng = np.random.default_rng(seed)
        roots = rng.normal(size=(TASKS, k, SIZE, SIZE))
        self.k, self.start = k, rng.normal(size=SIZE)
        self.hessians = roots @ roots.swapaxes(-1, -2) / SIZE
        self.centres = rng.normal(size=(TASKS, k, SIZE))
        self.curls = rng.uniform(0.5, 1.5, size=(TASKS, k)) * curly

    def derivatives(self):
        """(gradients [tasks, k, SIZE], Hessians [tasks, k, SIZE, SIZE]) at the start, by hand."""
        offset, curls = self.start - self.centres, self.curls[..., None]
        gradients = np.einsum('tkij,tkj->tki', self.hessians, offset) + curls * np.cos(self.start)
        bends = curls * np.sin(self.start)
        return gradients, self.hessians - np.eye(SIZE) * bends[..., None]

    def averages(self):
        """(A, B)."""
        gradients, hessians = self.derivatives()
        pairs = itertools.permutations(range(self.k), 2)
        products = [
            np.einsum('tij,tj->ti', hessians[:, i], gradients[:, j]).mean(0) for i, j in pairs
        ]
        return gradients.mean((0, 1)), np.mean(products, 0)

    def in_every_order(self):
        """The parts of the losses, with every order of a task's mini-batches a task of its own."""
        orders = list(itertools.permutations(range(self.k)))
        for parts in (self.hessians, self.centres, self.curls):
            yield np.concatenate([parts[:, order] for order in orders])

    def expected_step(self, method, alpha):
        """What the outer loop steps by, from the package's inner loop; a mean over the orders."""
        hessians, centres, curls = self.in_every_order()
        theta = tf.Variable(self.start)

        def losses(weights, number):
            offset = weights - centres[:, number]
            squares = tf.einsum('ti,tij,tj->t', offset, hessians[:, number], offset) / 2
            return squares + curls[:, number] * tf.reduce_sum(tf.sin(weights), -1)

        def support_loss(weights, step, others):
            del others
            return losses(weights['w'], step), weights['w']

        with tf.GradientTape() as tape:
            stacked = stack_over_tasks({'w': tf.convert_to_tensor(theta)}, len(centres))
            problem = InnerProblem(support_loss, stacked, GradientDescent(alpha))
            steps = self.k if method == 'Reptile' else self.k - 1
            end = inner_loop(problem, steps, method == 'first-order MAML').fast_weights[-1]['w']
            query_loss = tf.reduce_mean(losses(end, self.k - 1))
        if method == 'Reptile':
            return np.mean(self.start - end, 0) / alpha
        return np.array(tape.gradient(query_loss, theta))

    def error(self, method, alpha):
        """What the expansion leaves out."""
        (of_a, of_b), (a, b) = coefficients(method, self.k), self.averages()
        return self.expected_step(method, alpha) - (of_a * a - of_b * alpha * b)


def test_derivatives_by_hand():
    """The gradients and the Hessians against central differences."""
    batches, epsilon = MiniBatches(2, curly=1.0), 1e-5

    def value(shift):
        offset, w = batches.start + shift - batches.centres, batches.start + shift
        squares = np.einsum('tki,tkij,tkj->tk', offset, batches.hessians, offset) / 2
        return squares + batches.curls * np.sin(w).sum()

    def slope(shift):
        other = MiniBatches(2, curly=1.0)
        other.start = other.start + shift
        return other.derivatives()[0]

    gradients, hessians = batches.derivatives()
    for i, shift in enumerate(epsilon * np.eye(SIZE)):
        of_value = (value(shift) - value(-shift)) / (2 * epsilon)
        of_slope = (slope(shift) - slope(-shift)) / (2 * epsilon)
        np.testing.assert_allclose(gradients[..., i], of_value, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(hessians[..., i], of_slope, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize('method', METHODS)
def test_two_quadratics(method):
    """First-order MAML and Reptile are their expansions; MAML leaves out alpha^2 E[H_1 H_2 g_1]."""
    batches, alpha = MiniBatches(2, curly=0.0), 0.1
    gradients, hessians = batches.derivatives()
    left_out = np.zeros(SIZE)
    if method == 'MAML':
        for i, j in ((0, 1), (1, 0)):
            products = hessians[:, i] @ hessians[:, j] @ gradients[:, i, :, None]
            left_out += alpha**2 * products.mean(0)[:, 0] / 2
        assert np.abs(left_out).max() > 1e-3
    a, b = batches.averages()
    assert np.abs(a).min() > 1e-2 and np.abs(alpha * b).min() > 1e-3
    np.testing.assert_allclose(batches.error(method, alpha), left_out, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize('curly', [0.0, 1.0])
@pytest.mark.parametrize('k', [2, 3, 4])
@pytest.mark.parametrize('method', METHODS)
def test_the_error_falls_as_the_square_of_the_rate(method, k, curly):
    """Of k mini-batches, on quadratics and on losses whose Hessians change on the way."""
    batches, alpha = MiniBatches(k, curly), 1e-3
    whole, half = (np.linalg.norm(batches.error(method, a)) for a in (alpha, alpha / 2))
    if k == 2 and not curly and method != 'MAML':  # Exact, see above.
        assert max(whole, half) < 1e-11
        return
    assert half > 1e-9
    assert whole / half == pytest.approx(4, abs=0.1)
    # An error in either coefficient would be this much.
    a, b = batches.averages()
    assert np.linalg.norm(a) > 100 * whole and np.linalg.norm(alpha * b) > 10 * whole


@pytest.mark.parametrize('stop_grad', [False, True])
def test_the_learner_on_linear_regression(stop_grad):
    """MAML itself: support and query set are two mini-batches, and change places in half the tasks.

    With W = (w; b) and X = (x, 1): g = 2 X'(XW - y) / n and H = 2 X'X / n.
    """
    rng = np.random.default_rng(1)
    draw = lambda: (rng.normal(size=(TASKS, 6, SIZE)), rng.normal(size=(TASKS, 6, 1)))
    one, other = draw(), draw()
    swapped = lambda first, second: [np.concatenate(pair) for pair in zip(first, second)]
    task = Task(*map(tf.constant, (*swapped(one, other), *swapped(other, one))))
    start = rng.normal(size=(SIZE + 1, 1))

    def meta_gradient(alpha):
        network = FullyConnected((SIZE,), 1, (), 'None')
        learner = MAML(network, Regression(), inner_lr=alpha, stop_grad=stop_grad, dtype='float64')
        learner.meta_weights['w1'].assign(start[:-1])
        learner.meta_weights['b1'].assign(start[-1])
        gradients = learner.meta_gradients(task, tf.constant(0, tf.int64)).gradients
        of = {id(v): np.array(g) for v, g in zip(learner.trainable_variables, gradients)}
        w, b = (of[id(learner.meta_weights[name])] for name in ('w1', 'b1'))
        return np.vstack([w, b[None]])

    slopes, hessians = [], []
    for x, y in (one, other):
        x = np.concatenate([x, np.ones((TASKS, 6, 1))], -1)
        slopes.append(2 * x.swapaxes(1, 2) @ (x @ start - y) / 6)
        hessians.append(2 * x.swapaxes(1, 2) @ x / 6)
    a = np.mean(slopes, (0, 1))
    b = (hessians[0] @ slopes[1] + hessians[1] @ slopes[0]).mean(0) / 2
    error = lambda alpha: np.linalg.norm(
        meta_gradient(alpha) - (a - (1 if stop_grad else 2) * alpha * b)
    )
    if stop_grad:
        assert np.linalg.norm(b) > 1 and error(0.1) < 1e-12
    else:
        assert error(1e-3) > 1e-7
        assert error(1e-3) / error(5e-4) == pytest.approx(4, abs=0.1)
