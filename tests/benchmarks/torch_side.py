"""Steps of Adam in PyTorch, as a side of a benchmark."""

import torch
from workloads import BATCHES

RATE = 1e-4


class Side:
    """See workloads.serve. A subclass has `batches`, a list, and `loss(*batch)`."""

    def __init__(self, parameters):
        self._parameters = parameters
        self._optimizer = torch.optim.Adam(parameters, RATE, fused=True)

    def first_step(self):
        loss = self.run(0, 1)
        squares = sum((w.grad**2).sum() for w in self._parameters)
        return {'loss': loss, 'gradient_norm': float(squares) ** 0.5}

    def run(self, first, count):
        """Mean query loss of the steps, each before it is taken."""
        total = torch.zeros([])
        for step in range(first, first + count):
            self._optimizer.zero_grad()
            loss = self.loss(*self.batches[step % BATCHES])
            loss.backward()
            self._optimizer.step()
            total += loss.detach()
        return float(total) / count
