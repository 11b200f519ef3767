"""Task-stacked layers as pure functions: x is [tasks, examples, ...], and so may be every weight.

A weight without a task axis is shared by all tasks. Second derivatives are right everywhere: no
`tf.nn.moments` (and so no Keras BatchNormalization), whose variance holds the mean constant.
"""
import tensorflow as tf


def per_example(weight, x):
    """Shapes [tasks, c] or [c] so that it broadcasts against x: [tasks, examples, ..., c]."""
    if weight.shape.rank == 1:
        return weight
    return tf.reshape(weight, [-1] + [1] * (x.shape.rank - 2) + [weight.shape[-1]])


def linear(x, weight, bias):
    """[tasks, n, in] by [(tasks,) in, out], plus [(tasks,) out] -> [tasks, n, out]."""
    x = tf.matmul(x, weight)
    return x + per_example(bias, x)


def conv3x3(x, kernel, bias, stride):
    """SAME convolution, [tasks, n, height, width, in] by [(tasks,) 3, 3, in, out] -> [tasks, n, h, w, out].

    Kernels that differ between tasks become a batched matrix product over 3x3 patches: TensorFlow has no
    convolution with per-example kernels, and this form was the fastest measured under XLA on a CPU.
    """
    if kernel.shape.rank == 4:
        return _shared_conv3x3(x, kernel, stride) + bias
    tasks, n, height, width, channels = _shape(x)
    out_height, out_width = -(-height // stride), -(-width // stride)
    patches = tf.concat(_shifted(x, stride, out_height, out_width), axis=-1)
    patches = tf.reshape(patches, [tasks, n * out_height * out_width, 9 * channels])
    x = tf.matmul(patches, tf.reshape(kernel, [-1, 9 * channels, kernel.shape[-1]]))
    x = tf.reshape(x, [tasks, n, out_height, out_width, kernel.shape[-1]])
    return x + per_example(bias, x)


def _shape(x):
    """Static sizes where they are known (XLA wants those), dynamic ones elsewhere (exported signatures)."""
    dynamic = tf.shape(x)
    return [dynamic[i] if size is None else size for i, size in enumerate(x.shape)]


def _shared_conv3x3(x, kernel, stride):
    tasks, n, *image = _shape(x)
    x = tf.nn.conv2d(tf.reshape(x, [tasks * n, *image]), kernel, stride, 'SAME')
    return tf.reshape(x, [tasks, n, *x.shape[1:]])


def _shifted(x, stride, out_height, out_width):
    """The nine inputs of a SAME 3x3 convolution's outputs, each [tasks, n, out_height, out_width, channels]."""
    def padding(size, out):  # TensorFlow puts the odd pixel of SAME padding at the end.
        total = max((out - 1) * stride + 3 - size, 0)
        return [total // 2, total - total // 2]
    x = tf.pad(x, [[0, 0], [0, 0], padding(x.shape[2], out_height), padding(x.shape[3], out_width), [0, 0]])
    rows, columns = stride * (out_height - 1) + 1, stride * (out_width - 1) + 1
    return [x[:, :, i:i + rows:stride, j:j + columns:stride] for i in range(3) for j in range(3)]


def max_pool2x2(x):
    """2x2 VALID max-pooling of [tasks, n, height, width, c]; the first of equal maxima takes the gradient.

    Nested `tf.maximum` rather than `tf.nn.max_pool2d`: element-wise operations fuse under XLA, forwards and
    in both derivatives, and ties go where the pooling kernel sends them (row by row, the first).
    """
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    corner = lambda i, j: x[:, :, i:height:2, j:width:2]
    return tf.maximum(tf.maximum(corner(0, 0), corner(0, 1)), tf.maximum(corner(1, 0), corner(1, 1)))


def batch_norm(x, beta, epsilon=1e-3):
    """Normalises by the statistics of each task's batch, always; an offset and no scale, as the reference.

    x: [tasks, n, ..., c], normalised over all axes between the first and the last; beta: [(tasks,) c].
    """
    return normalise(x, range(1, x.shape.rank - 1), epsilon) + per_example(beta, x)


def layer_norm(x, gamma, beta, epsilon=1e-12):
    """Normalises each example over all its features (images: height, width and channels); scale and offset."""
    return normalise(x, range(2, x.shape.rank), epsilon) * per_example(gamma, x) + per_example(beta, x)


def normalise(x, axes, epsilon):
    """x minus its mean over `axes`, over its standard deviation; the variance is written out."""
    centred = x - tf.reduce_mean(x, axes, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axes, keepdims=True)
    return centred * tf.math.rsqrt(variance + epsilon)
