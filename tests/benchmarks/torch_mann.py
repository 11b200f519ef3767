"""MANN in PyTorch, uncompiled, as its equations have it."""

import torch
import torch.nn.functional as F
from sequence_weights import HEADS, SLOTS, WIDTH, of_workload, sequences
from torch import nn
from torch_side import Side
from workloads import BATCHES

DECAY, START = 0.95, 1e-6


class Mann(nn.Module):
    """A controller LSTM with a memory that is written where it was used least, with the workload's
    weights."""

    def __init__(self, weights):
        super().__init__()
        tensors = {kind: list(map(torch.from_numpy, arrays)) for kind, _, arrays in weights}
        kernel, recurrent, bias = tensors['lstm']
        self.lstm = nn.LSTMCell(kernel.shape[0], recurrent.shape[0])
        self.lstm.weight_ih = nn.Parameter(kernel.T.contiguous())
        self.lstm.weight_hh = nn.Parameter(recurrent.T.contiguous())
        self.lstm.bias_ih = nn.Parameter(bias)
        # PyTorch has a second bias, which is not learnt here.
        self.lstm.bias_hh = nn.Parameter(torch.zeros_like(bias), requires_grad=False)
        self.key, self.gate, self.readout = map(
            linear, (tensors['key'], tensors['gate'], tensors['readout'])
        )

    def forward(self, x):
        """Logits of all steps. x: [tasks, length, in]"""
        tasks = len(x)
        h = c = x.new_zeros(tasks, self.lstm.hidden_size)
        reads = x.new_zeros(tasks, HEADS * WIDTH)
        memory = x.new_full((tasks, SLOTS, WIDTH), START)
        usage = F.one_hot(torch.zeros(tasks, dtype=torch.long), SLOTS).to(x.dtype)
        reading = usage[:, None].expand(-1, HEADS, -1)
        outputs = []
        for inputs in x.unbind(1):
            h, c = self.lstm(torch.cat([inputs, reads], -1), (h, c))
            keys = torch.tanh(self.key(h)).unflatten(-1, (HEADS, WIDTH))
            gate = torch.sigmoid(self.gate(h))[..., None]
            slots = usage.topk(HEADS, largest=False).indices
            least = torch.zeros_like(usage).scatter(1, slots, 1.0)
            writing = gate * reading + (1 - gate) * least[:, None]
            memory = memory.scatter(1, slots[:, :1, None].expand(-1, -1, WIDTH), 0.0)
            memory = torch.baddbmm(memory, writing.mT, keys)
            rows, unit = (F.normalize(values, dim=-1, eps=1e-6) for values in (memory, keys))
            reading = torch.softmax(unit @ rows.mT, -1)
            usage = DECAY * usage + (reading + writing).sum(1)
            reads = (reading @ memory).flatten(1)
            outputs.append(torch.cat([h, reads], -1))
        return self.readout(torch.stack(outputs, 1))


class MannSide(Side):
    """The loss of all steps of sequences whose labels come one step late."""

    def __init__(self, workload):
        self._model = Mann(of_workload('mann', workload))
        super().__init__([w for w in self._model.parameters() if w.requires_grad])
        x, y = map(torch.from_numpy, sequences(workload))
        inputs = torch.cat([x.flatten(3), F.pad(y[:, :, :-1], (0, 0, 1, 0))], -1)
        self.batches = [(inputs[i], y[i].argmax(-1)) for i in range(BATCHES)]

    def loss(self, x, y):
        return F.cross_entropy(self._model(x).flatten(0, 1), y.flatten())


def linear(arrays):
    """The layer of a kernel [in, out] and a bias."""
    kernel, bias = arrays
    layer = nn.Linear(*kernel.shape)
    layer.weight, layer.bias = nn.Parameter(kernel.T.contiguous()), nn.Parameter(bias)
    return layer
