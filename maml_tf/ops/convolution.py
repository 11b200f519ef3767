"""Convolutions with a kernel for every task, computed as batched matrix products.

TensorFlow has no convolution with per-example kernels. There are three ways to lower it to
products, chosen by size; which is best, and in which order the factors of a product come, was
measured under XLA on a CPU.
"""

import abc
from collections.abc import Callable, Sequence

import tensorflow as tf

from maml_tf.ops.bilinear import Bilinear
from maml_tf.ops.shapes import sizes

# Up to so many channels, neighbours are gathered plane by plane: to copy a few numbers at a time is
# slow.
PLANES = 4


def convolve(
    x: tf.Tensor, kernel: tf.Tensor, stride: int, dtype: tf.DType | None = None
) -> tf.Tensor:
    """Convolves each task's images with its own kernel, SAME padding.

    Args:
      x: [tasks, n, height, width, in].
      kernel: [tasks, 3, 3, in, out]; with stride 1 any odd size, [tasks, size, size, in, out].
      stride: 1 or 2.
      dtype: in which to multiply, see Bilinear.
    Returns: [tasks, n, ceil(height / stride), ceil(width / stride), out].
    """
    if kernel.shape[1] != 3:
        convolution = Columns.of(tuple(x.shape[2:4]), stride, dtype, kernel.shape[1])
        return convolution.product(x, convolution.arrange(kernel))
    if x.shape[-1] <= PLANES:
        lowering = Planes
    elif stride == 1:
        lowering = Columns
    else:
        lowering = Patches
    convolution = lowering.of(tuple(x.shape[2:4]), stride, dtype)
    return convolution.product(x, convolution.arrange(kernel))


class Convolution(Bilinear):
    """Multiplies images [tasks, n, height, width, in] by kernels in the form that `arrange` gives.

    Args:
      sides: (height, width) of the images.
      stride: 1 or 2.
      dtype: see Bilinear.
    """

    def __init__(self, sides: tuple[int, int], stride: int, dtype: tf.DType | None = None):
        super().__init__(dtype)
        self.sides, self.stride = sides, stride
        self.out_sides = tuple(-(-side // stride) for side in self.sides)
        # TensorFlow puts the odd pixel of SAME padding at the end.
        self.before = tuple(
            max((out - 1) * stride + 3 - side, 0) // 2
            for side, out in zip(self.sides, self.out_sides)
        )

    @abc.abstractmethod
    def arrange(self, kernel: tf.Tensor) -> tf.Tensor:
        """Brings a kernel [tasks, 3, 3, in, out] into the form that the products take."""

    def views(self, x: tf.Tensor, height_axis: int) -> list[tf.Tensor]:
        """Returns the nine inputs of every output: of padded x, [..., i::stride, j::stride, ...].

        height_axis: that of the images' rows; the columns' follows it. i and j run from 0 to 2.
        """
        padding = [
            [before, self.stride * (out - 1) + 3 - side - before]
            for before, out, side in zip(self.before, self.out_sides, self.sides)
        ]
        around = [[0, 0]] * height_axis
        x = tf.pad(x, around + padding + [[0, 0]] * (x.shape.rank - height_axis - 2))
        window = lambda start, out: slice(start, start + self.stride * (out - 1) + 1, self.stride)
        return [
            x[
                (slice(None),) * height_axis
                + (window(i, self.out_sides[0]), window(j, self.out_sides[1]))
            ]
            for i in range(3)
            for j in range(3)
        ]

    def fold(self, pieces: tf.Tensor) -> tf.Tensor:
        """Adds up what each output gives to its nine inputs.

        Pixels of one parity at a time: pixel i takes from output o by tap t where
        stride * o + t = i + before.

        pieces: [tasks, n, h, w, 9 * in] -> [tasks, n, height, width, in].
        """
        channels = pieces.shape[-1] // 9
        # Pixels of a parity; of odd sides maybe one too many.
        counts = [-(-side // self.stride) for side in self.sides]
        images = []
        for y in range(self.stride):
            for x in range(self.stride):
                terms = []
                for i, top in self._taps(y, self.before[0]):
                    for j, left in self._taps(x, self.before[1]):
                        start = (3 * i + j) * channels
                        terms.append(
                            window(pieces[..., start : start + channels], (top, left), counts)
                        )
                images.append(tf.add_n(terms))
        return _interleave(images, self.stride)[:, :, : self.sides[0], : self.sides[1]]

    def _taps(self, parity, before):
        """Returns [(tap, the output that the first pixel of this parity takes from)]."""
        return [
            (tap, (parity + before - tap) // self.stride)
            for tap in range(3)
            if (parity + before - tap) % self.stride == 0
        ]


def window(
    x: tf.Tensor, starts: tuple[int, int], counts: Sequence[int], filling: float = 0.0
) -> tf.Tensor:
    """Cuts `count` pixels from `start` on out of an image's two axes; what lies outside is filled.

    x: [tasks, n, height, width, c]. starts: may be negative, and beyond the end.
    """
    cut, padding = [slice(None)] * 2, [[0, 0]] * 2
    for start, count, size in zip(starts, counts, x.shape[2:4]):
        first = min(max(start, 0), size)
        last = max(min(start + count, size), first)
        before = min(max(-start, 0), count)
        cut.append(slice(first, last))
        padding.append([before, count - before - (last - first)])
    return tf.pad(x[tuple(cut)], [*padding, [0, 0]], constant_values=filling)


def _interleave(images, stride):
    """Joins stride**2 images of the pixels (y, x), (y, x + stride) ..., given row by row."""
    if stride == 1:
        return images[0]
    tasks, n, height, width, channels = sizes(images[0])
    rows = [tf.stack(images[i : i + stride], 4) for i in range(0, stride**2, stride)]
    return tf.reshape(tf.stack(rows, 3), [tasks, n, stride * height, stride * width, channels])


class Patches(Convolution):
    """Multiplies patches [tasks, pixels, 9 * in] by kernels [tasks, out, 9 * in]."""

    def arrange(self, kernel: tf.Tensor) -> tf.Tensor:
        tasks, _, _, channels, out = sizes(kernel)
        # In this order: XLA would fold the transposition of a product's very result into the
        # product, a slower one.
        return tf.reshape(tf.transpose(kernel, [0, 4, 1, 2, 3]), [tasks, out, 9 * channels])

    def _patches(self, x):
        tasks, *_, channels = sizes(x)
        return tf.reshape(tf.concat(self.views(x, 2), -1), [tasks, -1, 9 * channels])

    def _product(self, x, kernel):
        tasks, n, *_ = sizes(x)
        y = tf.matmul(self._patches(x), kernel, transpose_b=True)
        return tf.reshape(y, [tasks, n, *self.out_sides, kernel.shape[1]])

    def _to_input(self, dy, kernel):
        return self.fold(_by_pixel(dy, lambda flat: tf.matmul(flat, kernel), kernel.shape[-1]))

    def _to_weight(self, x, dy):
        return tf.matmul(_flat(dy), self._patches(x), transpose_a=True)


class Planes(Convolution):
    """Multiplies planes [tasks, 9 * in, pixels] by kernels [tasks, 9 * in, out].

    For few channels, which would be slow to copy pixel by pixel.
    """

    def arrange(self, kernel: tf.Tensor) -> tf.Tensor:
        tasks, _, _, channels, out = sizes(kernel)
        return tf.reshape(kernel, [tasks, 9 * channels, out])

    def _planes(self, x):
        tasks, *_, channels = sizes(x)
        return tf.reshape(
            tf.stack(self.views(tf.transpose(x, [0, 4, 1, 2, 3]), 3), 1), [tasks, 9 * channels, -1]
        )

    def _product(self, x, kernel):
        tasks, n, *_ = sizes(x)
        y = tf.matmul(self._planes(x), kernel, transpose_a=True)
        return tf.reshape(y, [tasks, n, *self.out_sides, kernel.shape[-1]])

    def _to_input(self, dy, kernel):
        return self.fold(
            _by_pixel(dy, lambda flat: tf.matmul(flat, kernel, transpose_b=True), kernel.shape[1])
        )

    def _to_weight(self, x, dy):
        return tf.matmul(self._planes(x), _flat(dy))


class Columns(Convolution):
    """Gathers three columns, multiplies, and adds up three rows of the product: for stride 1.

    Columns [tasks, pixels, 3 * in] are multiplied by kernels [tasks, 3 * in, 3 * out], in which
    columns and rows have changed places. It takes a third of the patches' copies, and products that
    are nearer to square.

    Args: Convolution's, and
      size: of the kernel, odd, in place of three.
    """

    def __init__(
        self,
        sides: tuple[int, int],
        stride: int = 1,
        dtype: tf.DType | None = None,
        size: int = 3,
    ):
        if stride != 1:
            raise ValueError(f'a {size}x{size} kernel has stride 1, not {stride}')
        super().__init__(sides, stride, dtype)
        self.size, self.reach = size, size // 2

    def arrange(self, kernel: tf.Tensor) -> tf.Tensor:
        tasks, _, _, channels, out = sizes(kernel)
        return tf.reshape(
            tf.transpose(kernel, [0, 2, 3, 1, 4]), [tasks, self.size * channels, self.size * out]
        )

    def _columns(self, x):
        shifted = [window(x, (0, j - self.reach), self.sides) for j in range(self.size)]
        return tf.concat(shifted, -1)

    def _product(self, x, kernel):
        channels = kernel.shape[-1] // self.size
        z = _by_pixel(self._columns(x), lambda flat: tf.matmul(flat, kernel), kernel.shape[-1])
        return tf.add_n(
            [
                window(z[..., i * channels : (i + 1) * channels], (i - self.reach, 0), self.sides)
                for i in range(self.size)
            ]
        )

    def _to_input(self, dy, kernel):
        tasks, rows, columns = sizes(kernel)
        size = self.size
        # A convolution with the kernel turned half around, its channels exchanged.
        kernel = tf.reshape(kernel, [tasks, size, rows // size, size, columns // size])
        kernel = kernel[:, ::-1, :, ::-1]
        return self._product(
            dy, tf.reshape(tf.transpose(kernel, [0, 1, 4, 3, 2]), [tasks, columns, rows])
        )

    def _to_weight(self, x, dy):
        shifts = [(self.reach - i, 0) for i in range(self.size)]
        rows = tf.concat([window(dy, shift, self.sides) for shift in shifts], -1)
        return tf.matmul(_flat(self._columns(x)), _flat(rows), transpose_a=True)


def _flat(x):
    """Reshapes [tasks, n, height, width, c] to [tasks, pixels, c]."""
    tasks, *_, channels = sizes(x)
    return tf.reshape(x, [tasks, -1, channels])


def _by_pixel(x, function: Callable, channels):
    """Applies a function of [tasks, pixels, c] to images -> [tasks, n, height, width, channels]."""
    tasks, n, height, width, _ = sizes(x)
    return tf.reshape(function(_flat(x)), [tasks, n, height, width, channels])
