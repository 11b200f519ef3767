"""What every side of the step-time benchmark shares: workloads, their weights and data, their
arithmetic, a protocol.

NumPy only, so that a PyTorch without TensorFlow can read it too.
"""

import dataclasses
import json
import math
import resource
import sys
import time

import numpy as np

# Meta-batches that a side takes in turn: with a single one a compiler could keep from step to step
# what depends on it.
BATCHES = 2
BLOCKS = 4


@dataclasses.dataclass(frozen=True)
class Workload:
    """A training step of MAML (Finn et al. 2017) and the number of steps to time at once.

    Attributes:
      tasks: in a meta-batch; inner_lr: as --update_lr; input_shape: (height, width, channels) or
        (1,).
      way, shot, query: query is per class; regression: way 1, and shot and query count points.
      hidden: layer sizes of the fully connected regression; (): four convolutions of `filters` with
        batch norm, which pool by 2 and are flattened (`max_pool`) or stride by 2 and are averaged.
    """

    tasks: int
    way: int
    shot: int
    query: int
    inner_steps: int
    inner_lr: float
    input_shape: tuple
    steps: int
    filters: int = 0
    max_pool: bool = False
    hidden: tuple = ()
    first_order: bool = False

    @classmethod
    def from_json(cls, text):
        """The Workload whose `to_json` this is."""
        fields = json.loads(text)
        return cls(**fields | {name: tuple(fields[name]) for name in ('input_shape', 'hidden')})

    def to_json(self):
        return json.dumps(dataclasses.asdict(self))

    @property
    def loss_scale(self):
        """The package's query loss over the mean one: classification sums over examples and divides
        by the shots."""
        return 1 if self.hidden else self.way * self.query / self.shot

    @property
    def mean_inner_lr(self):
        """The step on the mean support loss that equals `inner_lr` on the package's."""
        return self.inner_lr if self.hidden else self.inner_lr * self.way

    def sides(self):
        """[height, width] of the image before the first block and after every block."""
        sides = [self.input_shape[:2]]
        for _ in range(BLOCKS):
            sides.append([n // 2 if self.max_pool else -(-n // 2) for n in sides[-1]])
        return sides

    def weight_shapes(self):
        """{the package's name: shape}"""
        shapes, channels = {}, self.input_shape[-1]
        if self.hidden:
            for i, size in enumerate([*self.hidden, 1], start=1):
                shapes |= {f'w{i}': (channels, size), f'b{i}': (size,)}
                channels = size
            return shapes
        for i in range(BLOCKS):
            shapes |= {
                f'conv{i + 1}': (3, 3, channels, self.filters),
                f'b{i + 1}': (self.filters,),
                f'norm{i}_beta': (self.filters,),
            }
            channels = self.filters
        features = self.filters * (math.prod(self.sides()[-1]) if self.max_pool else 1)
        return shapes | {'w5': (features, self.way), 'b5': (self.way,)}

    def weights(self):
        """{name: float32 array}: no entry zero, so that an offset which is left out shows."""
        rng, weights = np.random.default_rng(0), {}
        for name, shape in self.weight_shapes().items():
            deviation = (
                0.1 if len(shape) == 1 else math.sqrt(2 / (math.prod(shape[:-2]) * sum(shape[-2:])))
            )
            weights[name] = (deviation * rng.standard_normal(shape)).astype(np.float32)
        return weights

    def batches(self):
        """(support_x, support_y, query_x, query_y), each [BATCHES, tasks, examples, ...] float32,
        labels one-hot.

        Sinusoids, or random images that resemble others of their class.
        """
        rng = np.random.default_rng(1)
        return self._sinusoids(rng) if self.hidden else self._images(rng)

    def _sinusoids(self, rng):
        amplitude, phase = (
            rng.uniform(*ends, (BATCHES, self.tasks, 1, 1)) for ends in [(0.1, 5), (0, math.pi)]
        )
        arrays = []
        for points in (self.shot, self.query):
            x = rng.uniform(-5, 5, (BATCHES, self.tasks, points, 1))
            arrays += [x.astype(np.float32), (amplitude * np.sin(x - phase)).astype(np.float32)]
        return arrays

    def _images(self, rng):
        draw = lambda examples: rng.random(
            (BATCHES, self.tasks, examples, *self.input_shape), np.float32
        )
        classes, arrays = draw(self.way), []
        for each in (self.shot, self.query):
            labels = np.repeat(np.eye(self.way, dtype=np.float32), each, axis=0)
            arrays += [
                (np.repeat(classes, each, axis=2) + draw(self.way * each)) / 2,
                np.broadcast_to(labels, (BATCHES, self.tasks, *labels.shape)).copy(),
            ]
        return arrays

    def multiply_adds(self):
        """Of one example's way forwards, by layer; at the rim a convolution counts as
        everywhere."""
        kernels = [
            shape for name, shape in self.weight_shapes().items() if name.startswith(('conv', 'w'))
        ]
        sides = self.sides()[:-1] if self.max_pool else [] if self.hidden else self.sides()[1:]
        positions = [math.prod(side) for side in sides] + [1] * (len(kernels) - len(sides))
        return [math.prod(kernel) * count for kernel, count in zip(kernels, positions)]

    def flops(self):
        """Floating-point operations of all convolutions and matrix products in a step, 2 for a
        multiply-add.

        With F multiply-adds for a set of examples forwards, F1 of them in the first layer (no
        gradient goes to the images), a gradient takes 3 F - F1: forwards, to the weights, to the
        layer below. Going back through that gradient, which second order does in every inner step,
        takes 6 F - 4 F1: both factors of the products with the weights, of the gradients to the
        weights, and of the gradients to the layer below.
        """
        by_layer = self.multiply_adds()
        total, first = sum(by_layer), by_layer[0]
        gradient = 3 * total - first
        back_through_it = 0 if self.first_order else 6 * total - 4 * first
        inner = self.inner_steps * self.way * self.shot * (gradient + back_through_it)
        return 2 * self.tasks * (inner + self.way * self.query * gradient)


# Five steps are taken with a tenth of the authors' rate: at the start of training theirs overshoots
# and so magnifies rounding, and sides could not be compared. The time does not depend on it.
WORKLOADS = {
    'sinusoid': Workload(25, 1, 10, 10, 1, 0.001, (1,), steps=200, hidden=(40, 40)),
    'omniglot_5way1shot': Workload(32, 5, 1, 1, 1, 0.4, (28, 28, 1), steps=5, filters=64),
    'omniglot_20way1shot': Workload(16, 20, 1, 1, 5, 0.01, (28, 28, 1), steps=2, filters=64),
    'miniimagenet_5way1shot': Workload(
        4, 5, 1, 15, 5, 0.001, (84, 84, 3), steps=1, filters=32, max_pool=True
    ),
}


def serve(build):
    """A worker: takes the first step, then as many as each line on stdin says; one JSON line on
    stdout after each.

    build: () -> an object with first_step() -> {name: number to report}, and run(first, count),
      which takes the steps `first` onwards and returns when they are done.
    """

    def say(**values):
        print(json.dumps(values), flush=True)

    start = time.perf_counter()
    side = build()
    report = side.first_step()
    say(seconds=time.perf_counter() - start, **report)
    done = 1
    for line in sys.stdin:
        count = int(line)
        start = time.perf_counter()
        side.run(done, count)
        say(ms=1e3 * (time.perf_counter() - start) / count, peak_mb=_peak_bytes() / 1e6)
        done += count


def _peak_bytes():
    """Peak resident memory. Linux: not getrusage's, which starts at the peak of the process that
    started this one."""
    if sys.platform == 'linux':
        with open('/proc/self/status') as lines:
            return 1024 * next(int(line.split()[1]) for line in lines if line.startswith('VmHWM'))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == 'darwin' else 1024
    )
