"""The PyTorch sides of the step-time benchmark: MAML's training step as PyTorch's users write it,
uncompiled.

    python tests/benchmarks/torch_step.py loop|vmap WORKLOAD_AS_JSON

`loop` adapts task by task with torch.autograd.grad(create_graph=True); `vmap` all tasks at once,
with torch.func.vmap over torch.func.grad. step_time.py starts it, maybe with another Python:
PyTorch and NumPy suffice.
"""

import sys

import torch
import torch.nn.functional as F
from workloads import BATCHES, BLOCKS, Workload, serve


def same_padding(side):
    """(before, after), TensorFlow's SAME padding of a 3x3 convolution with stride 2."""
    total = max(2 * (-(-side // 2) - 1) + 3 - side, 0)
    return total // 2, total - total // 2


class Net:
    """The workload's network with weights in PyTorch's layout."""

    def __init__(self, workload):
        self.workload, self._weights = workload, {}
        for name, array in workload.weights().items():
            weight = torch.from_numpy(array)
            if name.startswith('conv'):
                weight = weight.permute(3, 2, 0, 1)
            elif (
                name == 'w5' and workload.max_pool
            ):  # Rows are height, width, channels there and channels first here.
                images = weight.reshape(*workload.sides()[-1], workload.filters, workload.way)
                weight = images.permute(2, 0, 1, 3).reshape(weight.shape)
            self._weights[name] = weight.contiguous().requires_grad_()

    def weights(self):
        """(weights that the inner loop adapts, weights that it leaves alone)."""
        shared = {name: w for name, w in self._weights.items() if name.startswith('norm')}
        return {name: w for name, w in self._weights.items() if name not in shared}, shared

    def loss(self, weights, x, y):
        """Mean loss of one task's examples: images [n, channels, height, width] with class numbers,
        or points."""
        if self.workload.hidden:
            return ((self._fully_connected(weights, x) - y) ** 2).mean()
        return F.cross_entropy(self._convolutional(weights, x), y)

    def _fully_connected(self, weights, x):
        last = len(self.workload.hidden) + 1
        for i in range(1, last):
            x = F.relu(x @ weights[f'w{i}'] + weights[f'b{i}'])
        return x @ weights[f'w{last}'] + weights[f'b{last}']

    def _convolutional(self, weights, x):
        pool = self.workload.max_pool
        for i in range(BLOCKS):
            if not pool:
                x = F.pad(x, (*same_padding(x.shape[-1]), *same_padding(x.shape[-2])))
            kernel, bias = weights[f'conv{i + 1}'], weights[f'b{i + 1}']
            x = (
                F.conv2d(x, kernel, bias, padding=1)
                if pool
                else F.conv2d(x, kernel, bias, stride=2)
            )
            x = x - x.mean((0, 2, 3), keepdim=True)
            x = x * torch.rsqrt((x**2).mean((0, 2, 3), keepdim=True) + 1e-3)
            x = F.relu(x + weights[f'norm{i}_beta'].reshape(1, -1, 1, 1))
            x = F.max_pool2d(x, 2) if pool else x
        x = x.flatten(1) if pool else x.mean((2, 3))
        return x @ weights['w5'] + weights['b5']


class Side:
    """See workloads.serve."""

    def __init__(self, workload, style):
        self._net, self._workload = Net(workload), workload
        self._adapted, self._shared = self._net.weights()
        self._parameters = [*self._adapted.values(), *self._shared.values()]
        self._optimizer = torch.optim.Adam(self._parameters, 1e-3)
        self._backward = {'loop': self._task_by_task, 'vmap': self._all_at_once}[style]
        data = [torch.from_numpy(array) for array in workload.batches()]
        if not workload.hidden:
            data = [
                x.permute(0, 1, 2, 5, 3, 4).contiguous() if x.ndim == 6 else x.argmax(-1)
                for x in data
            ]
        self._batches = [[x[i] for x in data] for i in range(BATCHES)]

    def first_step(self):
        loss = self.run(0, 1)
        return {
            'loss': loss,
            'gradient_norm': float(sum((w.grad**2).sum() for w in self._parameters)) ** 0.5,
        }

    def run(self, first, count):
        """Mean query loss of the steps, each before it is taken."""
        total = torch.zeros([])
        for step in range(first, first + count):
            self._optimizer.zero_grad()
            total += self._backward(*self._batches[step % BATCHES])
            self._optimizer.step()
        return float(total) / count

    def _query_loss(self, gradients, support_x, support_y, query_x, query_y):
        """One task's loss after the inner steps; gradients: (loss, weights) -> {name: its
        gradient}."""
        adapted, lr = self._adapted, self._workload.mean_inner_lr
        support_loss = lambda adapted: self._net.loss(adapted | self._shared, support_x, support_y)
        for _ in range(self._workload.inner_steps):
            slopes = gradients(support_loss, adapted)
            adapted = {name: w - lr * slopes[name] for name, w in adapted.items()}
        return self._net.loss(adapted | self._shared, query_x, query_y)

    def _task_by_task(self, *batch):
        def gradients(loss, weights):
            slopes = torch.autograd.grad(
                loss(weights), list(weights.values()), create_graph=not self._workload.first_order
            )
            return dict(zip(weights, slopes))

        total = torch.zeros([])
        for task in zip(*batch):
            loss = self._query_loss(gradients, *task) / len(batch[0])
            loss.backward()
            total += loss.detach()
        return total

    def _all_at_once(self, *batch):
        def gradients(loss, weights):
            slopes = torch.func.grad(loss)(weights)
            return (
                {name: g.detach() for name, g in slopes.items()}
                if self._workload.first_order
                else slopes
            )

        loss = torch.func.vmap(lambda *task: self._query_loss(gradients, *task))(*batch).mean()
        loss.backward()
        return loss.detach()


if __name__ == '__main__':
    serve(lambda: Side(Workload.from_json(sys.argv[2]), sys.argv[1]))
