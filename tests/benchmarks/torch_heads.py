"""The PyTorch side of the heads benchmark: R2-D2, LR-D2 and MetaOptNet-SVM as PyTorch's users write
them, uncompiled.

    python tests/benchmarks/torch_heads.py METHOD plain|channels_last|whole WORKLOAD_AS_JSON

The tasks of a meta-batch pass through the encoder one after another, as each has batch statistics
of its own; the heads of all tasks are solved together. channels_last: images lie in memory as they
do in TensorFlow. whole: the linear systems of the support vector machine are solved by Whole, else
by ByClass. heads.py starts it, maybe with another Python: PyTorch and NumPy suffice.
"""

import sys

import torch
import torch.nn.functional as F
from torch import nn
from workloads import BATCHES, BLOCKS, Workload, serve

RIDGE = 50.0  # Of R2-D2 and LR-D2.
NEWTON_STEPS = 5  # Of LR-D2.
PENALTY, SVM_RIDGE, INTERIOR_STEPS = 0.1, 1.0, 15
# Slacks, multipliers and variances stay above these: something is divided by them.
LEAST, LEAST_VARIANCE = 1e-12, 1e-7


def encoder(workload):
    """Four blocks of a 3x3 convolution, batch norm, 2x2 max-pool and ReLU, flattened, with the
    workload's weights."""
    layers, weights = [], {name: torch.from_numpy(w) for name, w in workload.weights().items()}
    for i in range(BLOCKS):
        kernel = weights[f'conv{i + 1}'].permute(3, 2, 0, 1)
        convolution = nn.Conv2d(kernel.shape[1], workload.filters, 3, padding=1)
        norm = nn.BatchNorm2d(workload.filters)
        with torch.no_grad():
            convolution.weight.copy_(kernel)
            convolution.bias.copy_(weights[f'b{i + 1}'])
            norm.bias.copy_(weights[f'norm{i}_beta'])
        layers += [convolution, norm, nn.MaxPool2d(2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten())


def with_ones(x):
    """Features [tasks, n, features], and a one."""
    return torch.cat([x, torch.ones_like(x[..., :1])], -1)


class Head(nn.Module):
    """Subclasses write `weights`: features and one-hot labels of the support sets, [tasks, n, ...],
    to weights [tasks, features, way]."""

    def forward(self, support, labels, query):
        """Returns the logits of the queries, [tasks, queries, way]."""
        return query @ self.weights(support, labels)


class R2D2(Head):
    """Ridge regression by the smaller of its two systems, as the authors' code has it."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.offset = nn.Parameter(torch.tensor(0.0))

    def weights(self, x, y):
        x, y = x / x.shape[1] ** 0.5, y / y.shape[1] ** 0.5
        examples, features = x.shape[1:]
        penalty = RIDGE * torch.eye(min(examples, features))
        if examples <= features:
            return x.mT @ torch.linalg.solve(x @ x.mT + penalty, y)
        return torch.linalg.solve(x.mT @ x + penalty, x.mT @ y)

    def forward(self, support, labels, query):
        logits = super().forward(with_ones(support), labels, with_ones(query))
        return self.scale * logits + self.offset


class LRD2(Head):
    """Logistic regression of each class against the others by Newton's method, all classes at
    once."""

    def weights(self, x, y):
        gram, y = (x @ x.mT)[:, None], y.mT
        eta = torch.zeros_like(y)
        for _ in range(NEWTON_STEPS):
            mu = torch.sigmoid(eta)
            variance = (mu * (1 - mu)).clamp(LEAST_VARIANCE)
            z = eta + (y - mu) / variance
            alpha = torch.linalg.solve(gram + torch.diag_embed(RIDGE / variance), z[..., None])
            eta = (gram @ alpha)[..., 0]
        return x.mT @ alpha[..., 0].mT

    def forward(self, support, labels, query):
        return super().forward(with_ones(support), labels, with_ones(query))


class SVM(Head):
    """MetaOptNet's. newton: ByClass or Whole."""

    def __init__(self, newton):
        super().__init__()
        self.scale, self._newton = nn.Parameter(torch.tensor(1.0)), newton

    def weights(self, x, y):
        return x.mT @ CrammerSinger.apply(x @ x.mT, y, self._newton)

    def forward(self, support, labels, query):
        return self.scale * super().forward(support, labels, query)


class ByClass:
    """Solves (K + diag(w_k)) a_k + e = r_k for all classes k, where sum_k a_k = b.

    With a matrix [n, n] for each class and one for e: the kernel is the same of all classes, which
    the released code does not use.

    Args:
      kernel: K, float64 [tasks, n, n].
      weights: w [tasks, way, n].
    """

    def __init__(self, kernel, weights):
        factors = torch.linalg.cholesky(kernel[:, None] + torch.diag_embed(weights))
        self._inverses = torch.cholesky_inverse(factors)
        self._of_sums = torch.linalg.cholesky(self._inverses.sum(1))

    def solve(self, right, sums):
        """Returns (a [tasks, way, n], e [tasks, n]) of r [tasks, way, n] and b [tasks, n]."""
        free = self._inverses @ right[..., None]
        equal = torch.cholesky_solve(free.sum(1) - sums[..., None], self._of_sums)
        return (free - self._inverses @ equal[:, None])[..., 0], equal[..., 0]


class Whole:
    """Solves what ByClass solves as one system of (way + 1) n equations, as a solver of general
    quadratic programmes does."""

    def __init__(self, kernel, weights):
        (tasks, way, n), double = weights.shape, {'dtype': kernel.dtype}
        self._size = way * n
        sums = torch.kron(torch.ones(way, 1, **double), torch.eye(n, **double))
        system = kernel.new_zeros(tasks, self._size + n, self._size + n)
        blocks = torch.kron(torch.eye(way, **double)[None], kernel)
        system[:, : self._size, : self._size] = blocks + torch.diag_embed(weights.flatten(1))
        system[:, : self._size, self._size :] = sums
        system[:, self._size :, : self._size] = sums.T
        self._factors = torch.linalg.lu_factor(system)

    def solve(self, right, sums):
        both = torch.cat([right.flatten(1), sums], 1)[..., None]
        found = torch.linalg.lu_solve(*self._factors, both)[..., 0]
        return found[:, : self._size].reshape(right.shape), found[:, self._size :]


class CrammerSinger(torch.autograd.Function):
    """The dual variables [tasks, n, way] of the support vector machine of a kernel [tasks, n, n]
    (Lee et al. 2019, eq. 8).

    By an interior point in float64, INTERIOR_STEPS steps; the gradient is that of the conditions of
    optimality (Amos and Kolter 2017).
    """

    @staticmethod
    def forward(ctx, kernel, labels, newton):
        kernel_64 = kernel.double()
        alpha, weights = interior_point(kernel_64, labels.double().mT, newton)
        ctx.save_for_backward(kernel_64, alpha, weights)
        ctx.newton, ctx.dtype = newton, kernel.dtype
        return alpha.mT.to(kernel.dtype)

    @staticmethod
    def backward(ctx, upstream):
        kernel, alpha, weights = ctx.saved_tensors
        upstream = upstream.double().mT
        of_alpha, _ = ctx.newton(kernel, weights).solve(-upstream, torch.zeros_like(upstream[:, 0]))
        outer = of_alpha.mT @ alpha
        return ((outer + outer.mT) / 2).to(ctx.dtype), None, None


def interior_point(kernel, labels, newton):
    """Returns (alpha, ridge + multipliers / slacks) at the solution, each [tasks, way, n], by
    Mehrotra's predictor and corrector; labels are [tasks, way, n], too."""
    bounds = PENALTY * labels
    start = newton(kernel, torch.full_like(labels, SVM_RIDGE + 1))
    alpha, equal = start.solve(labels + bounds, torch.zeros_like(labels[:, 0]))
    slack, dual = positive(bounds - alpha), positive(alpha - bounds)
    for _ in range(INTERIOR_STEPS):
        system = newton(kernel, SVM_RIDGE + dual / slack)
        of_alpha = alpha @ kernel + SVM_RIDGE * alpha - labels + dual + equal[:, None]
        of_bounds, of_sums = alpha + slack - bounds, alpha.sum(1)

        def direction(of_products):
            right = (of_products - dual * of_bounds) / slack - of_alpha
            d_alpha, d_equal = system.solve(right, -of_sums)
            d_slack = -of_bounds - d_alpha
            return d_alpha, d_slack, -(of_products + dual * d_slack) / slack, d_equal

        products = slack * dual
        _, d_slack, d_dual, _ = direction(products)
        size = longest(slack, d_slack, dual, d_dual)
        gap = products.mean((1, 2), keepdim=True)
        ahead = (slack + size * d_slack) * (dual + size * d_dual)
        centre = (ahead.mean((1, 2), keepdim=True) / gap) ** 3 * gap
        d_alpha, d_slack, d_dual, d_equal = direction(products + d_slack * d_dual - centre)
        size = 0.99 * longest(slack, d_slack, dual, d_dual)
        alpha, equal = alpha + size * d_alpha, equal + size[:, 0] * d_equal
        slack, dual = (slack + size * d_slack).clamp(LEAST), (dual + size * d_dual).clamp(LEAST)
    return alpha, SVM_RIDGE + dual / slack


def positive(x):
    """x, moved up until its task's least entry is 1."""
    return x + (1 - x.amin((1, 2), keepdim=True)).clamp(0)


def longest(slack, d_slack, dual, d_dual):
    """The longest step of each task, at most 1, that leaves nothing negative."""
    shares = torch.maximum(-d_slack / slack, -d_dual / dual).amax((1, 2), keepdim=True)
    return 1 / shares.clamp(1)


STYLES = ('plain', 'channels_last', 'whole')


class Side:
    """See workloads.serve.

    style: one of STYLES.
    """

    def __init__(self, workload, method, style):
        layout = torch.channels_last if style == 'channels_last' else torch.contiguous_format
        self._encoder = encoder(workload).to(memory_format=layout)
        make = {
            'r2d2': R2D2,
            'lrd2': LRD2,
            'metaoptnet': lambda: SVM(Whole if style == 'whole' else ByClass),
        }
        self._head = make[method]()
        self._parameters = [*self._encoder.parameters(), *self._head.parameters()]
        self._optimizer = torch.optim.Adam(self._parameters, 1e-3)
        support_x, support_y, query_x, query_y = map(torch.from_numpy, workload.batches())
        images = torch.cat([support_x, query_x], 2).permute(0, 1, 2, 5, 3, 4)
        of_a_batch = lambda i: [x.contiguous(memory_format=layout) for x in images[i]]
        labels = query_y.argmax(-1)
        self._batches = [(of_a_batch(i), support_y[i], labels[i]) for i in range(BATCHES)]

    def first_step(self):
        loss = self.run(0, 1)
        squares = sum((w.grad**2).sum() for w in self._parameters)
        return {'loss': loss, 'gradient_norm': float(squares) ** 0.5}

    def run(self, first, count):
        """Mean query loss of the steps, each before it is taken."""
        total = torch.zeros([])
        for step in range(first, first + count):
            self._optimizer.zero_grad()
            loss = self._loss(*self._batches[step % BATCHES])
            loss.backward()
            self._optimizer.step()
            total += loss.detach()
        return float(total) / count

    def _loss(self, images, support_y, query_y):
        features = torch.stack([self._encoder(of_a_task) for of_a_task in images])
        shots = support_y.shape[1]
        logits = self._head(features[:, :shots], support_y, features[:, shots:])
        return F.cross_entropy(logits.flatten(0, 1), query_y.flatten())


if __name__ == '__main__':
    serve(lambda: Side(Workload.from_json(sys.argv[3]), *sys.argv[1:3]))
