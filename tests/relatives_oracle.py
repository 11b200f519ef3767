"""iMAML and Alpha MAML from the papers' equations: NumPy float64, one task at a time.

iMAML (Rajeswaran et al. 2019, arXiv 1909.04630) and Alpha MAML (Behl et al. 2019, arXiv
1905.07435), on the networks, weights and tasks of optimisation_oracle.py.
"""

import numpy as np
import optimisation_oracle as oracle

STEP = 1e-30  # of complex steps


# Vectors that are {name: array}


def dot(one, other):
    """The inner product of two dicts."""
    return sum((one[name] * other[name]).sum() for name in one)


def plus(one, factor, other):
    """one + factor * other."""
    return {name: one[name] + factor * other[name] for name in one}


# iMAML


def imaml_trajectory(weights, task, lr, steps, regularisation, shots=None):
    """Weights before and after every step of gradient descent, a list of dicts.

    On L_support(phi) + regularisation / 2 * |phi - weights|^2, from phi = weights. With
    regularisation 0 these are the steps of the released code.
    """
    trajectory = [weights]
    for _ in range(steps):
        phi = trajectory[-1]
        slopes = plus(
            oracle.gradient(phi, *task[:2], shots), regularisation, plus(phi, -1, weights)
        )
        trajectory.append(plus(phi, -lr, slopes))
    return trajectory


def imaml_end(weights, task, lr, steps, regularisation, shots=None, released=False):
    """The weights at which iMAML takes the query loss.

    The released code takes plain steps, and then one on the regulariser alone.
    """
    if not released:
        return imaml_trajectory(weights, task, lr, steps, regularisation, shots)[-1]
    phi = imaml_trajectory(weights, task, lr, steps, 0.0, shots)[-1]
    return plus(phi, -lr * regularisation, plus(phi, -1, weights))


def hessian_product(weights, vector, x, y, shots=None):
    """The Hessian of the loss times a vector, by a complex step of the gradient."""
    slopes = oracle.gradient(plus(weights, 1j * STEP, vector), x, y, shots)
    return {name: slope.imag / STEP for name, slope in slopes.items()}


def conjugate_gradients(product, right, steps):
    """What so many steps from zero make of: product(solution) = right."""
    solution = {name: np.zeros_like(value) for name, value in right.items()}
    residual = direction = right
    for _ in range(steps):
        image = product(direction)
        length = dot(residual, residual) / dot(direction, image)
        solution = plus(solution, length, direction)
        after = plus(residual, -length, image)
        direction = plus(after, dot(after, after) / dot(residual, residual), direction)
        residual = after
    return solution


def imaml_matrix(phi, task, regularisation, shots=None, released=False):
    """v -> (I + H / lambda) v, or of the released code 2 v + H v / (lambda + 10)."""
    scale, divisor = (2.0, regularisation + 10) if released else (1.0, regularisation)

    def product(vector):
        curvature = hessian_product(phi, vector, *task[:2], shots)
        return {name: scale * v + curvature[name] / divisor for name, v in vector.items()}

    return product


def imaml_gradients(
    weights, tasks, lr, steps, regularisation, cg_steps, shots=None, released=False
):
    """The meta-gradient {name: array}: the mean over the tasks of what each one's system gives."""
    gradients = []
    for task in tasks:
        phi = imaml_end(weights, task, lr, steps, regularisation, shots, released)
        right = oracle.gradient(phi, *task[2:], shots)
        product = imaml_matrix(phi, task, regularisation, shots, released)
        gradients.append(conjugate_gradients(product, right, cg_steps))
    return oracle.mean(gradients)


# Alpha MAML


def hypergradient(weights, alpha, adapted, tasks, steps, shots=None, stop_grad=False):
    """The derivative by alpha of the mean query loss after MAML's inner steps.

    adapted: names of the weights that the inner loop changes.
    """
    rates = {name: alpha + 1j * STEP for name in adapted}
    return oracle.meta_sgd_loss(weights, rates, tasks, steps, shots, stop_grad).imag / STEP


def maml_gradients(weights, alpha, adapted, tasks, steps, shots=None, stop_grad=False):
    """The meta-gradient {name: array} of MAML."""
    settings = {name: alpha for name in adapted}, tasks, steps, shots, stop_grad
    return oracle.complex_step_gradient(lambda w: oracle.meta_sgd_loss(w, *settings), weights)


def gradient_descent():
    """A function: gradient -> direction, of plain gradient descent."""
    return lambda gradient: gradient


def adam(beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    """A function: gradient -> direction, of Adam as TensorFlow has it; it counts its calls."""
    moments, squares, count = {}, {}, 0

    def direction(gradient):
        nonlocal count
        count += 1
        for name, g in gradient.items():
            moments[name] = beta_1 * moments.get(name, 0.0) + (1 - beta_1) * g
            squares[name] = beta_2 * squares.get(name, 0.0) + (1 - beta_2) * g**2
        correction = np.sqrt(1 - beta_2**count) / (1 - beta_1**count)
        return {
            name: correction * moments[name] / (np.sqrt(squares[name]) + epsilon)
            for name in gradient
        }

    return direction


def alpha_maml(
    weights, alpha, beta, batches, adapted, steps, kappas, direction, shots=None, stop_grad=False
):
    """[(weights, alpha, beta)] after every iteration, one of each meta-batch.

    Args:
      alpha, beta: the inner and the outer rate to begin with.
      batches: lists of tasks.
      kappas: the steps of the two rates.
      direction: a function that turns a meta-gradient into the outer optimizer's direction u, so
        that theta <- theta - beta u.
    """
    results, last = [], None
    for tasks in batches:
        settings = weights, alpha, adapted, tasks, steps, shots, stop_grad
        gradient, slope = maml_gradients(*settings), hypergradient(*settings)
        if last is not None:
            beta = beta + kappas[1] * dot(gradient, last)
        last = direction(gradient)
        weights, alpha = plus(weights, -beta, last), alpha - kappas[0] * slope
        results.append((weights, alpha, beta))
    return results
