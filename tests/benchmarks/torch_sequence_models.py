"""The PyTorch side of the sequence models' benchmark, uncompiled: SNAIL as its equations have it.

    python tests/benchmarks/torch_sequence_models.py METHOD plain|sequences|by_task WORKLOAD_AS_JSON

MANN is in torch_mann.py. SNAIL's tasks are computed together. plain: one support set and all its
queries are read at once, each query as if it came next; sequences: each query behind a copy of the
support set, as released codes have it. Both take batch norm over the whole meta-batch. by_task: as
plain, but tasks pass through the encoder one after another, each with batch statistics of its own,
as in the package. sequence_models.py starts it, maybe with another Python: PyTorch and NumPy
suffice.
"""

import sys

import torch
import torch.nn.functional as F
from sequence_weights import of_workload
from torch import nn
from torch_heads import encoder
from torch_mann import MannSide
from torch_side import Side
from workloads import BATCHES, Workload, serve

STYLES = ('plain', 'sequences', 'by_task')


class Dense(nn.Module):
    """A dense block. A query's place before lies in the support set.

    dilation: how far it looks back.
    """

    def __init__(self, dilation, kernel, bias):
        super().__init__()
        self.dilation = dilation
        self.kernel, self.bias = nn.Parameter(kernel.flatten(0, 1).T), nn.Parameter(bias)

    def forward(self, x, supports, mask):
        del mask
        later = F.pad(x[:, :supports], (0, 0, self.dilation, 0))
        of_queries = later[:, supports : supports + 1].expand(-1, x.shape[1] - supports, -1)
        before = torch.cat([later[:, :supports], of_queries], 1)
        f, g = F.linear(torch.cat([before, x], -1), self.kernel, self.bias).chunk(2, -1)
        return torch.cat([x, torch.tanh(f) * torch.sigmoid(g)], -1)


class Attention(nn.Module):
    """Soft attention. Weights of queries, keys and values are one matrix."""

    def __init__(self, query, query_bias, keys, keys_bias, values, values_bias):
        super().__init__()
        self.sizes = [query.shape[1], keys.shape[1], values.shape[1]]
        self.kernel = nn.Parameter(torch.cat([query, keys, values], 1).T.contiguous())
        self.bias = nn.Parameter(torch.cat([query_bias, keys_bias, values_bias]))

    def forward(self, x, supports, mask):
        del supports
        query, keys, values = F.linear(x, self.kernel, self.bias).split(self.sizes, -1)
        read = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        return torch.cat([x, read], -1)


class Snail(nn.Module):
    """Attention, dense blocks and the last layer, with the workload's weights."""

    def __init__(self, weights):
        super().__init__()
        blocks = []
        for kind, dilation, arrays in weights:
            tensors = list(map(torch.from_numpy, arrays))
            if kind == 'attention':
                blocks.append(Attention(*tensors))
            elif kind == 'dense':
                blocks.append(Dense(dilation, *tensors))
        self.blocks = nn.ModuleList(blocks)
        self.kernel, self.bias = nn.Parameter(tensors[0].T.contiguous()), nn.Parameter(tensors[1])

    def forward(self, x, supports):
        """Logits of the queries. x: [n, supports + queries, in], the support set first."""
        length = x.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool).tril()
        mask[supports:, supports:] = torch.eye(length - supports, dtype=torch.bool)
        for block in self.blocks:
            x = block(x, supports, mask)
        return F.linear(x[:, supports:], self.kernel, self.bias)


class SnailSide(Side):
    """style: one of STYLES."""

    def __init__(self, workload, style):
        self._style, self._encoder = style, encoder(workload)
        self._model = Snail(of_workload('snail', workload))
        super().__init__([*self._encoder.parameters(), *self._model.parameters()])
        support_x, support_y, query_x, query_y = map(torch.from_numpy, workload.batches())
        images = torch.cat([support_x, query_x], 2).permute(0, 1, 2, 5, 3, 4).contiguous()
        labels = query_y.argmax(-1)
        self.batches = [(images[i], support_y[i], labels[i]) for i in range(BATCHES)]

    def loss(self, images, support_y, query_y):
        if self._style == 'by_task':
            features = torch.stack([self._encoder(of_a_task) for of_a_task in images])
        else:
            features = self._encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        supports, queries = support_y.shape[1], query_y.shape[1]
        unlabelled = support_y.new_zeros(len(support_y), queries, support_y.shape[2])
        x = torch.cat([features, torch.cat([support_y, unlabelled], 1)], -1)
        if self._style == 'sequences':
            copies = x[:, None, :supports].expand(-1, queries, -1, -1)
            x = torch.cat([copies, x[:, supports:, None]], 2).flatten(0, 1)
        return F.cross_entropy(self._model(x, supports).flatten(0, 1), query_y.flatten())


def side_of(method, style, workload):
    """The Side of a method."""
    return MannSide(workload) if method == 'mann' else SnailSide(workload, style)


if __name__ == '__main__':
    serve(lambda: side_of(*sys.argv[1:3], Workload.from_json(sys.argv[3])))
