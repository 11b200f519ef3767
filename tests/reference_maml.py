"""A brute-force oracle of what the TF1 code cbfinn/maml computes, independent of this project's
implementation.

It loops over tasks in Python, runs eagerly on ordinary tensors and nests gradient tapes, so that
every line can be held against the definition. It is slow and meant for small cases: `random_case`
makes some.
"""

import math

import numpy as np
import tensorflow as tf

CONV_BLOCKS = 4
BATCH_NORM_EPSILON = 1e-3
LAYER_NORM_EPSILON = 1e-12


def reference_maml(flags, weights, inputa, labela, inputb, labelb, dtype='float64'):
    """What the reference computes for one meta-batch, under the keys of the golden files, as numpy
    arrays.

    Args:
        flags: the reference's flag values by name, as stored in the golden files.
        weights: arrays by the reference's names (conv1, b1, ..., norm0/beta, ...), without the
          "weight/" prefix.
        inputa, labela: support, [tasks, examples, features]; images are flattened H, W, C, class
          labels one-hot.
        inputb, labelb: query, likewise.
        dtype: of the whole computation.

    Returns:
        outputas [tasks, ...] and outputbs [steps, tasks, ...]; total_loss1 and total_losses2
        [steps]; for classification total_accuracy1 and total_accuracies2 [steps]; pre_grad/<name>,
        the gradient of total_loss1; meta_grad/<name>, the gradient of total_losses2[num_updates -
        1], unclipped. There are max(test_num_updates, num_updates) steps.
    """
    weights = {name: tf.constant(np.asarray(value, dtype)) for name, value in weights.items()}
    data = [np.asarray(array, dtype) for array in (inputa, labela, inputb, labelb)]
    tasks = [_task(flags, weights, *map(tf.constant, arrays)) for arrays in zip(*data, strict=True)]

    result = {
        'outputas': np.stack([task['outputa'] for task in tasks]),
        'outputbs': np.stack([task['outputbs'] for task in tasks], axis=1),
        'total_loss1': np.mean([task['lossa'] for task in tasks]),
        'total_losses2': np.mean([task['lossesb'] for task in tasks], axis=0),
    }
    if _is_classification(flags):
        hits_a = np.argmax(result['outputas'], -1) == np.argmax(labela, -1)
        hits_b = np.argmax(result['outputbs'], -1) == np.argmax(labelb, -1)
        result['total_accuracy1'] = np.mean(hits_a)
        result['total_accuracies2'] = np.mean(hits_b, axis=(1, 2))
    # The totals are means over tasks, so their gradients are the means of the tasks' gradients.
    for kind in ('pre_grad', 'meta_grad'):
        for name in weights:
            result[f'{kind}/{name}'] = np.mean([task[kind][name] for task in tasks], axis=0)
    return result


def _task(flags, weights, inputa, labela, inputb, labelb):
    """Adapts to one task; returns its outputs, its losses and the gradients of two of these."""
    # The inner loop adapts everything but the normalisation variables, which only get outer
    # gradients.
    adapted = {name: value for name, value in weights.items() if not name.startswith('norm')}
    norms = {name: value for name, value in weights.items() if name.startswith('norm')}
    outputbs, lossesb = [], []

    with tf.GradientTape(persistent=True) as outer:
        outer.watch(weights)
        outputa = _forward(flags, {**adapted, **norms}, inputa)
        lossa = _loss(flags, outputa, labela)

        for _ in range(max(flags['test_num_updates'], flags['num_updates'])):
            with tf.GradientTape() as inner:
                inner.watch(adapted)
                loss = _loss(flags, _forward(flags, {**adapted, **norms}, inputa), labela)
            gradients = inner.gradient(loss, adapted)
            if flags['stop_grad']:
                gradients = {
                    name: tf.stop_gradient(gradient) for name, gradient in gradients.items()
                }
            adapted = {
                name: value - flags['update_lr'] * gradients[name]
                for name, value in adapted.items()
            }
            outputbs.append(_forward(flags, {**adapted, **norms}, inputb))
            lossesb.append(_loss(flags, outputbs[-1], labelb))

    return {
        'outputa': outputa,
        'outputbs': np.stack(outputbs),
        'lossa': lossa,
        'lossesb': np.stack(lossesb),
        'pre_grad': outer.gradient(lossa, weights),
        'meta_grad': outer.gradient(lossesb[flags['num_updates'] - 1], weights),
    }


def _loss(flags, outputs, labels):
    """The loss of one task, scaled as the reference scales it."""
    if not _is_classification(flags):
        return tf.reduce_mean(tf.square(outputs - labels))
    # A sum over examples, and divided by the support's shots for the query too, whatever the
    # query's size.
    losses = tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=outputs)
    return tf.reduce_sum(losses) / flags['update_batch_size']


def _forward(flags, weights, inputs):
    """The network's outputs for one task's inputs [examples, features]."""
    if _is_convolutional(flags):
        return _forward_conv(flags, weights, inputs)
    return _forward_fc(flags, weights, inputs)


def _forward_conv(flags, weights, inputs):
    channels = _channels(flags)
    side = math.isqrt(inputs.shape[1] // channels)
    hidden = tf.reshape(inputs, [-1, side, side, channels])
    for block in range(CONV_BLOCKS):
        stride = 1 if flags['max_pool'] else 2
        hidden = (
            tf.nn.conv2d(hidden, weights[f'conv{block + 1}'], stride, 'SAME')
            + weights[f'b{block + 1}']
        )
        hidden = tf.nn.relu(_normalize(flags, weights, block, hidden))
        if flags['max_pool']:
            hidden = tf.nn.max_pool2d(hidden, 2, 2, 'VALID')
    if flags['datasource'] == 'miniimagenet':
        hidden = tf.reshape(hidden, [hidden.shape[0], -1])
    else:
        hidden = tf.reduce_mean(hidden, axis=[1, 2])
    return tf.matmul(hidden, weights['w5']) + weights['b5']


def _forward_fc(flags, weights, inputs):
    layers = sum(name.startswith('w') for name in weights)
    hidden = inputs
    for layer in range(layers - 1):
        hidden = tf.matmul(hidden, weights[f'w{layer + 1}']) + weights[f'b{layer + 1}']
        hidden = tf.nn.relu(_normalize(flags, weights, layer, hidden))
    return tf.matmul(hidden, weights[f'w{layers}']) + weights[f'b{layers}']


def _normalize(flags, weights, block, hidden):
    """The normalisation of a block, counted from 0. The last axis of `hidden` is the channels."""
    if flags['norm'] in (None, 'None'):
        return hidden
    # By rank, not by number: the reference's scopes of its fully connected net are 0, 2, 3, ...
    scope = sorted({name.split('/')[0] for name in weights if name.startswith('norm')})[block]
    if flags['norm'] == 'batch_norm':
        # Always the statistics of the batch at hand, and an offset without a scale.
        axes = list(range(hidden.shape.rank - 1))
        return _standardize(hidden, axes, BATCH_NORM_EPSILON) + weights[f'{scope}/beta']
    if flags['norm'] == 'layer_norm':
        axes = list(range(1, hidden.shape.rank))
        standard = _standardize(hidden, axes, LAYER_NORM_EPSILON)
        return standard * weights[f'{scope}/gamma'] + weights[f'{scope}/beta']
    raise ValueError(f'unknown norm: {flags["norm"]!r}')


def _standardize(hidden, axes, epsilon):
    # Written out, because tf.nn.moments stops the gradient of the mean inside its variance: its
    # second derivatives, and with them the meta-gradient, would be wrong.
    mean = tf.reduce_mean(hidden, axes, keepdims=True)
    variance = tf.reduce_mean(tf.square(hidden - mean), axes, keepdims=True)
    return (hidden - mean) / tf.sqrt(variance + epsilon)


def _is_classification(flags):
    return flags['datasource'] != 'sinusoid'


def _is_convolutional(flags):
    return _is_classification(flags) and flags['conv']


def _channels(flags):
    return 3 if flags['datasource'] == 'miniimagenet' else 1


def random_case(seed, **flags):
    """A random case of modest size: (flags, weights, inputa, labela, inputb, labelb), all arrays
    float64.

    `flags` are the reference's, by name, and three that it does not have: test_num_updates,
    query_per_class (for the
    sinusoid: query points) and side (of the images). What is not given takes a default; the flags
    returned are complete. No weight has a gradient of zero, other than what a batch norm makes
    invariant: the biases before it.
    """
    flags = _complete_flags(flags)
    rng = np.random.default_rng(seed)
    weights = _random_weights(rng, flags)
    sample = _random_images if _is_classification(flags) else _random_sinusoids
    return flags, weights, *sample(rng, flags)


def _complete_flags(given):
    datasource = given.get('datasource', 'omniglot')
    miniimagenet, sinusoid = datasource == 'miniimagenet', datasource == 'sinusoid'
    # Four fully connected layers with a batch norm over a few examples are so ill-conditioned that
    # float32 keeps two or three digits of the meta-gradient; with three shots it keeps five.
    shots = 5 if sinusoid else 1 if given.get('conv', True) else 3
    flags = {
        'datasource': datasource,
        'num_classes': 3,
        'baseline': None,
        'pretrain_iterations': 0,
        'metatrain_iterations': 15000,
        'meta_batch_size': 2,
        'meta_lr': 0.001,
        'update_batch_size': shots,
        'update_lr': 0.1 if datasource == 'omniglot' else 0.01,
        'num_updates': 2,
        'norm': 'None' if sinusoid else 'batch_norm',
        'num_filters': 6,
        'conv': True,
        'max_pool': miniimagenet,
        'stop_grad': False,
        'test_num_updates': 3,
        'query_per_class': 5 if sinusoid else 2,
        'side': 32 if miniimagenet else 28,
    }
    unknown = given.keys() - flags.keys()
    if unknown:
        raise TypeError(f'unknown flags: {sorted(unknown)}')
    return {**flags, **given}


def _random_weights(rng, flags):
    weights = {}
    if _is_convolutional(flags):
        filters = flags['num_filters']
        widths, final_side, channels = [filters] * CONV_BLOCKS, flags['side'], _channels(flags)
        for block in range(CONV_BLOCKS):
            # SAME with stride 2 rounds a side up, VALID pooling rounds it down.
            final_side = final_side // 2 if flags['max_pool'] else (final_side + 1) // 2
            deviation = math.sqrt(2 / (9 * (channels + filters)))
            weights[f'conv{block + 1}'] = deviation * rng.standard_normal((3, 3, channels, filters))
            weights[f'b{block + 1}'] = 0.1 * rng.standard_normal(filters)
            channels = filters
        if final_side == 0:
            raise ValueError(
                f'images of side {flags["side"]} are too small for {CONV_BLOCKS} poolings'
            )
        features = filters * final_side**2 if flags['datasource'] == 'miniimagenet' else filters
        sizes, first = [features, flags['num_classes']], CONV_BLOCKS + 1
    else:
        if _is_classification(flags):
            sizes = [_channels(flags) * flags['side'] ** 2, 256, 128, 64, 64, flags['num_classes']]
        else:
            sizes = [1, 40, 40, 1]
        widths, first = sizes[1:-1], 1
    for layer, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:]), start=first):
        weights[f'w{layer}'] = rng.standard_normal((fan_in, fan_out)) / math.sqrt(fan_in)
        weights[f'b{layer}'] = 0.1 * rng.standard_normal(fan_out)
    if flags['norm'] not in (None, 'None'):
        for block, width in enumerate(widths):
            weights[f'norm{block}/beta'] = 0.2 * rng.standard_normal(width)
            if flags['norm'] == 'layer_norm':
                weights[f'norm{block}/gamma'] = 1 + 0.1 * rng.standard_normal(width)
    return weights


def _random_images(rng, flags):
    tasks, ways = flags['meta_batch_size'], flags['num_classes']
    features = _channels(flags) * flags['side'] ** 2
    prototypes = rng.uniform(size=(tasks, ways, features))
    arrays = []
    for shots in (flags['update_batch_size'], flags['query_per_class']):
        noise = rng.uniform(size=(tasks, ways * shots, features))
        # Support and query share their class's prototype, so that adaptation has something to find.
        arrays.append((np.repeat(prototypes, shots, axis=1) + noise) / 2)
        arrays.append(np.tile(np.repeat(np.eye(ways), shots, axis=0), (tasks, 1, 1)))
    return arrays


def _random_sinusoids(rng, flags):
    tasks = flags['meta_batch_size']
    amplitude = rng.uniform(0.1, 5, size=(tasks, 1, 1))
    phase = rng.uniform(0, math.pi, size=(tasks, 1, 1))
    arrays = []
    for points in (flags['update_batch_size'], flags['query_per_class']):
        x = rng.uniform(-5, 5, size=(tasks, points, 1))
        arrays += [x, amplitude * np.sin(x - phase)]
    return arrays
