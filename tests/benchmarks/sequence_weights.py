"""Weights of the sequence models that all sides of sequence_models.py start from. NumPy only."""

import numpy as np

SEED = 2
ATTENTIONS, FILTERS = ((64, 32), (256, 128), (512, 256)), 128


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


MODELS = {'snail': snail}


def of_workload(method, workload):
    """The weights of a method behind the workload's encoder."""
    features = workload.weight_shapes()['w5'][0]
    return MODELS[method](features, workload.way, workload.shot)
