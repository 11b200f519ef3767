"""Weights and sequences that all sides of sequence_models.py start from. NumPy only."""

import math

import numpy as np

SEED = 2
ATTENTIONS, FILTERS = ((64, 32), (256, 128), (512, 256)), 128
# MANN's.
UNITS, SLOTS, WIDTH, HEADS = 200, 128, 40, 4


def snail(features, way, shot):
    """SNAIL's behind an encoder: [(kind, dilation or None, arrays)] of its blocks, in order.

    attention: kernel [in, out] and bias of queries, of keys and of values. dense: kernel
    [2, in, 2 * filters], of the place before and of the place itself, and bias. head: kernel and
    bias.
    """
    rng, size = np.random.default_rng(SEED), features + way
    uniform = lambda fan_in, *shape: rng.uniform(-1, 1, shape).astype(np.float32) / fan_in**0.5
    affine = lambda out: [uniform(size, size, out), uniform(size, out)]
    blocks = []
    for number, (keys, values) in enumerate(ATTENTIONS):
        if number:
            for level in range((way * shot).bit_length()):
                kernel = uniform(2 * size, 2, size, 2 * FILTERS)
                blocks.append(('dense', 2**level, [kernel, uniform(2 * size, 2 * FILTERS)]))
                size += FILTERS
        blocks.append(('attention', None, [*affine(keys), *affine(keys), *affine(values)]))
        size += values
    return [*blocks, ('head', None, affine(way))]


def mann(inputs, way):
    """MANN's: [(kind, None, arrays)]: kernels [in, out], biases [out].

    lstm: kernel, recurrent kernel and bias of its gates, input, forget, cell, output. key and gate:
    of all heads. readout: of the controller and all heads' reads.
    """
    rng = np.random.default_rng(SEED)
    uniform = lambda fan_in, *shape: rng.uniform(-1, 1, shape).astype(np.float32) / fan_in**0.5
    affine = lambda size, out: [uniform(size, size, out), uniform(size, out)]
    reads = HEADS * WIDTH
    kernel, bias = affine(inputs + way + reads, 4 * UNITS)
    return [
        ('lstm', None, [kernel, uniform(UNITS, UNITS, 4 * UNITS), bias]),
        ('key', None, affine(UNITS, reads)),
        ('gate', None, affine(UNITS, HEADS)),
        ('readout', None, affine(UNITS + reads, way)),
    ]


def of_workload(method, workload):
    """The weights of a method; SNAIL's are those behind the workload's encoder."""
    if method == 'mann':
        return mann(math.prod(workload.input_shape), workload.way)
    features = workload.weight_shapes()['w5'][0]
    return snail(features, workload.way, workload.shot)


def sequences(workload):
    """(x, y), the workload's support sets in a random order, [BATCHES, tasks, length, ...]."""
    x, y, *_ = workload.batches()
    order = np.random.default_rng(SEED).permuted(
        np.tile(np.arange(x.shape[2]), (*x.shape[:2], 1)), axis=-1
    )
    at = tuple(np.ogrid[: x.shape[0], : x.shape[1], :1])[:2]
    return x[*at, order], y[*at, order]
