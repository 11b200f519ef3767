"""Time of one meta-training step, against other ways to compute it and against this machine's
matrix products.

    python tests/benchmarks/step_time.py [--workloads=sinusoid,...]
    [--sides=ours,map_fn,torch_loop,torch_vmap]

A step is the forward pass, the inner loop, the meta-gradient and Adam, on meta-batches that lie in
memory. Sides:
  ours        the package's training, maml_tf.training.iterate
  map_fn      the authors' form in TensorFlow: one task after another (tf.map_fn), ordinary
              convolutions; without XLA, but for the sinusoid: XLA's convolutions in a loop are many
              times slower on a CPU
  torch_loop  PyTorch, a Python loop over tasks
  torch_vmap  PyTorch, torch.func.vmap over tasks
  all_at_once, rematerialise, bfloat16
              the package with --tasks_at_once=all of them, --rematerialise, --bfloat16
Each side is a process of its own, and one computes at a time: after a first step and a warm-up,
  they take turns, round after round. Before that their losses and gradient norms in the first step
  are compared. Run it on an idle machine; README.md says how to read the table.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from maml_tf.terminal import quiet  # noqa: E402

quiet.import_tensorflow()

import tensorflow as tf  # noqa: E402
from workloads import BLOCKS, WORKLOADS, Workload, serve  # noqa: E402

from maml_tf.algorithms.optimisation.maml import MAML  # noqa: E402
from maml_tf.episodes.task import Task  # noqa: E402
from maml_tf.networks.conv_net import ConvNet  # noqa: E402
from maml_tf.networks.fully_connected import FullyConnected  # noqa: E402
from maml_tf.objectives.classification import Classification  # noqa: E402
from maml_tf.objectives.regression import Regression  # noqa: E402
from maml_tf.training.iterate import iterate  # noqa: E402
from maml_tf.training.operations import TrainingOp  # noqa: E402
from maml_tf.training.outer_optimizers import adam  # noqa: E402
from maml_tf.training.phases import Update  # noqa: E402

HERE = pathlib.Path(__file__).parent
SIDES = ('ours', 'map_fn', 'torch_loop', 'torch_vmap')
# The package with an option of its command line; measured when asked for.
VARIANTS = ('all_at_once', 'rematerialise', 'bfloat16')
# Relative differences from `ours` in the first step that float32 explains: five inner steps magnify
# rounding.
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-3, 1e-2
MATMUL = 2048
# Load over a minute up to which a machine counts as idle.
IDLE = 0.5


def build_learner(workload, variant=None):
    """The package's learner of a Workload, with its weights."""
    product_dtype = tf.bfloat16 if variant == 'bfloat16' else None
    if workload.hidden:
        network = FullyConnected(
            workload.input_shape, 1, workload.hidden, product_dtype=product_dtype
        )
        objective = Regression()
    else:
        network = ConvNet(
            workload.input_shape,
            workload.way,
            workload.filters,
            max_pool=workload.max_pool,
            head='flatten' if workload.max_pool else 'mean',
            product_dtype=product_dtype,
        )
        objective = Classification()
    learner = MAML(
        network,
        objective,
        workload.inner_lr,
        workload.inner_steps,
        stop_grad=workload.first_order,
        tasks_at_once=workload.tasks if variant == 'all_at_once' else None,
        rematerialise=variant == 'rematerialise',
    )
    for name, value in workload.weights().items():
        learner.meta_weights[name].assign(value)
    return learner


def draw(workload):
    """(start, count) -> Task, as a source's `tasks`; the workload's batches in turn."""
    arrays = [tf.constant(array) for array in workload.batches()]
    # Not array[start:...]: XLA compiles a slice anew for every place.
    flat = [tf.reshape(array, [-1, *array.shape[2:]]) for array in arrays]
    return lambda start, count: Task(
        *(
            tf.gather(array, (start + tf.range(count, dtype=tf.int64)) % len(array))
            for array in flat
        )
    )


class TaskByTask:
    """The same step as MAML's authors wrote it: (Task, step) -> Update, with nothing of the
    package's mathematics.

    Args:
      learner: whose variables are to be learnt.
    """

    def __init__(self, workload, learner):
        self._workload, self._learner = workload, learner

    def __call__(self, task, step):
        with tf.GradientTape() as tape:
            weights = {
                name: tf.convert_to_tensor(w) for name, w in self._learner.meta_weights.items()
            }
            losses = tf.map_fn(
                lambda one: self._query_loss(weights, *one),
                tuple(task[:4]),
                fn_output_signature=tf.float32,
            )
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, self._learner.trainable_variables)
        return Update(gradients, {'post_loss': loss})

    def _query_loss(self, weights, support_x, support_y, query_x, query_y):
        shared = {name: w for name, w in weights.items() if name.startswith('norm')}
        adapted = {name: w for name, w in weights.items() if name not in shared}
        for _ in range(self._workload.inner_steps):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(adapted)
                loss = self._loss(adapted | shared, support_x, support_y)
            gradients = tape.gradient(loss, adapted)
            if self._workload.first_order:
                gradients = {name: tf.stop_gradient(g) for name, g in gradients.items()}
            adapted = {
                name: w - self._workload.inner_lr * gradients[name] for name, w in adapted.items()
            }
        return self._loss(adapted | shared, query_x, query_y)

    def _loss(self, weights, x, y):
        if self._workload.hidden:
            return tf.reduce_mean(tf.square(self._fully_connected(weights, x) - y))
        cross_entropies = tf.nn.softmax_cross_entropy_with_logits(
            y, self._convolutional(weights, x)
        )
        return tf.reduce_sum(cross_entropies) / self._workload.shot

    def _fully_connected(self, weights, x):
        last = len(self._workload.hidden) + 1
        for i in range(1, last):
            x = tf.nn.relu(tf.matmul(x, weights[f'w{i}']) + weights[f'b{i}'])
        return tf.matmul(x, weights[f'w{last}']) + weights[f'b{last}']

    def _convolutional(self, weights, x):
        for i in range(BLOCKS):
            stride = 1 if self._workload.max_pool else 2
            x = tf.nn.conv2d(x, weights[f'conv{i + 1}'], stride, 'SAME') + weights[f'b{i + 1}']
            x -= tf.reduce_mean(x, (0, 1, 2))
            x *= tf.math.rsqrt(tf.reduce_mean(tf.square(x), (0, 1, 2)) + 1e-3)
            x = tf.nn.relu(x + weights[f'norm{i}_beta'])
            x = tf.nn.max_pool2d(x, 2, 2, 'VALID') if self._workload.max_pool else x
        x = (
            tf.reshape(x, [x.shape[0], -1])
            if self._workload.max_pool
            else tf.reduce_mean(x, (1, 2))
        )
        return tf.matmul(x, weights['w5']) + weights['b5']


class TensorFlowSide:
    """`ours`, a variant or `map_fn`, see workloads.serve."""

    def __init__(self, workload, name):
        learner = build_learner(workload, name)
        if name == 'map_fn' and not workload.hidden:
            learner.xla = False
        self._scale, self._optimizer = workload.loss_scale, adam(1e-3)
        gradients = TaskByTask(workload, learner) if name == 'map_fn' else learner.meta_gradients
        op = TrainingOp(learner, self._optimizer, gradients)
        at_once = None if name == 'map_fn' else learner.share(workload.tasks, workload)
        self._run = iterate(op, draw(workload), workload.tasks, at_once)

    def first_step(self):
        loss = self.run(0, 1)
        # From Adam's first moment, so that nothing is computed, or compiled, beside what is timed.
        moments = [v for v in self._optimizer.variables if v.path.endswith('_momentum')]
        norm = float(tf.linalg.global_norm(moments)) / (1 - self._optimizer.beta_1)
        return {'loss': loss, 'gradient_norm': norm / self._scale}

    def run(self, first, count):
        """Mean query loss of the steps, each before it is taken."""
        return float(self._run(first, count)['post_loss']) / self._scale


class Worker:
    """A process that computes when told to; it ends with the `with` block.

    Args:
      command: runs workloads.serve.
    Attributes:
      first: what it said of the first step, and its 'seconds'.
    Raises:
      SystemExit: the process ended.
    """

    def __init__(self, command):
        self._command = command
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.first = self._answer()

    def steps(self, count):
        """Takes steps -> {'ms': of one, 'peak_mb': resident memory since the process began}."""
        print(count, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self):
        if line := self._process.stdout.readline():
            return json.loads(line)
        sys.exit(
            f'{" ".join(map(str, self._command))} ended with exit status {self._process.wait()}'
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


def command(side, workload, torch_python=sys.executable):
    """What starts a side's Worker."""
    tool, _, style = side.partition('_')
    worker = (
        [torch_python, HERE / 'torch_step.py', style]
        if tool == 'torch'
        else [sys.executable, HERE / 'step_time.py', '--worker', side]
    )
    return [*worker, workload.to_json()]


def matmul_gflops():
    """GFLOP/s of TensorFlow's product of two large float32 matrices, now."""
    x = tf.random.stateless_normal([MATMUL, MATMUL], [0, 0])
    tf.matmul(x, x).numpy()
    start = time.perf_counter()
    tf.matmul(x, x).numpy()
    return 2 * MATMUL**3 / (time.perf_counter() - start) / 1e9


def say(text):
    """Progress; the tables alone go to stdout."""
    print(text, file=sys.stderr, flush=True)


def measure(workload, sides, rounds, steps, torch_python):
    """Runs the sides of one workload in turns.

    Returns: {'gflop': of a step, 'matmul_gflops': one a round, 'sides': {side: {'loss',
      'gradient_norm', 'seconds' (of the first step), 'ms': one a round, 'peak_mb'}}}
    Raises:
      SystemExit: the sides do not compute the same.
    """
    result = {'gflop': workload.flops() / 1e9, 'matmul_gflops': [], 'sides': {}}
    with contextlib.ExitStack() as stack:
        workers = {}
        for side in sides:
            workers[side] = stack.enter_context(Worker(command(side, workload, torch_python)))
            first = workers[side].first
            say(
                f'  {side:<12}first step {first["seconds"]:.1f} s, loss {first["loss"]:.6f}, '
                'gradient norm '
                f'{first["gradient_norm"]:.6f}'
            )
            result['sides'][side] = first | {'ms': []}
        check_equal(result['sides'])
        for worker in workers.values():
            worker.steps(steps)
        for i in range(rounds):
            result['matmul_gflops'].append(matmul_gflops())
            for side, worker in workers.items():
                answer = worker.steps(steps)
                result['sides'][side]['ms'].append(answer['ms'])
                result['sides'][side]['peak_mb'] = answer['peak_mb']
            say(
                f'  round {i + 1}/{rounds}: '
                + ', '.join(
                    f'{side} {values["ms"][-1]:.4g} ms' for side, values in result['sides'].items()
                )
            )
    return result


def check_equal(sides):
    """Raises SystemExit unless all sides found the same loss and gradient norm in their first
    step."""
    reference_side, *others = [side for side in sides if side != 'bfloat16'] or sides
    for side in others:
        for key, tolerance in (('loss', LOSS_TOLERANCE), ('gradient_norm', GRADIENT_TOLERANCE)):
            value, expected = sides[side][key], sides[reference_side][key]
            if not abs(value - expected) <= tolerance * abs(expected):
                sys.exit(
                    f'{side} and {reference_side} do not compute the same: {key} {value} and '
                    f'{expected}'
                )


def table(name, workload, result):
    """A measurement as text."""
    rate = statistics.median(result['matmul_gflops'])
    limit = result['gflop'] / rate * 1e3
    order = 'first' if workload.first_order else 'second'
    lines = [
        f'{name}, {order} order: {workload.tasks} tasks, {result["gflop"]:.4g} GFLOP; matrix '
        'products run at '
        f'{rate:.0f} GFLOP/s, so at least {limit:.4g} ms',
        f'{"side":<12}{"median ms":>11}{"quartiles":>19}{"min":>9}{"tasks/s":>9}'
        f'{"to ours":>9}{"to limit":>10}'
        f'{"peak GB":>9}{"first step s":>14}',
    ]
    ours = result['sides'].get('ours')
    for side, values in result['sides'].items():
        ms = values['ms']
        median = statistics.median(ms)
        low, _, high = statistics.quantiles(ms, method='inclusive') if len(ms) > 1 else ms * 3
        to_ours = f'{median / statistics.median(ours["ms"]):.2f}' if ours else ''
        lines.append(
            f'{side:<12}{median:>11.4g}{f"{low:.4g} - {high:.4g}":>19}{min(ms):>9.4g}'
            f'{1e3 * workload.tasks / median:>9.0f}{to_ours:>9}{median / limit:>10.2f}'
            f'{values["peak_mb"] / 1e3:>9.2f}{values["seconds"]:>14.1f}'
        )
    return '\n'.join(lines) + '\n'


def machine():
    """What the numbers hold for."""
    model = platform.processor() or platform.machine()
    if sys.platform == 'linux':
        models = [
            line.split(':')[1].strip()
            for line in open('/proc/cpuinfo')
            if line.startswith('model name')
        ]
        model = models[0] if models else model
    return {
        'processor': model,
        'cores': os.cpu_count(),
        'system': platform.platform(),
        'python': platform.python_version(),
        'tensorflow': tf.__version__,
        'load': [round(load, 2) for load in os.getloadavg()],
    }


def say_machine(described):
    """Says what `machine` found, and warns if it is not idle."""
    say(', '.join(f'{key} {value}' for key, value in described.items()))
    if described['load'][0] > IDLE:
        say(
            'warning: this machine is not idle; threads that wait for each other then take many '
            'times as long'
        )


def torch_version(python):
    """The version of PyTorch that an interpreter has. Raises SystemExit: none."""
    process = subprocess.run(
        [python, '-c', 'import torch; print(torch.__version__)'], capture_output=True, text=True
    )
    if process.returncode:
        sys.exit(
            f'{python} has no PyTorch: pip install torch there, name another with --torch_python, '
            'or leave the '
            'torch sides out with --sides=ours,map_fn'
        )
    return process.stdout.strip()


def write_json(path, content):
    """Writes beside, then renames."""
    path = pathlib.Path(path)
    beside = path.with_name(path.name + '.part')
    beside.write_text(json.dumps(content, indent=1) + '\n')
    beside.replace(path)


def names(choices):
    """An argparse type: names among `choices`, separated by commas."""

    def parse(text):
        found = text.split(',')
        if unknown := [name for name in found if name not in choices]:
            raise argparse.ArgumentTypeError(
                f'{", ".join(unknown)}: names are {", ".join(choices)}'
            )
        return found

    return parse


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--workloads', type=names(WORKLOADS), default=list(WORKLOADS), help='separated by commas'
    )
    parser.add_argument(
        '--sides',
        type=names(SIDES + VARIANTS),
        default=list(SIDES),
        help=f'separated by commas; beside the default ones {", ".join(VARIANTS)}',
    )
    parser.add_argument(
        '--rounds', type=int, default=9, help='turns of every side (default: %(default)s)'
    )
    parser.add_argument('--steps', type=int, help='steps in a turn (default: by workload)')
    parser.add_argument(
        '--first_order',
        action=argparse.BooleanOptionalAction,
        help='first order only; --no-first_order: second order only (default: both)',
    )
    parser.add_argument(
        '--torch_python', default=sys.executable, help='Python that has PyTorch (default: this one)'
    )
    parser.add_argument(
        '--output', default='step_time.json', help='JSON file of every turn (default: %(default)s)'
    )
    parser.add_argument('--worker', nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args(arguments)
    if arguments.worker:
        side, workload = arguments.worker
        serve(lambda: TensorFlowSide(Workload.from_json(workload), side))
        return
    report = {'machine': machine(), 'measurements': []}
    if any(side.startswith('torch') for side in arguments.sides):
        report['machine']['torch'] = torch_version(arguments.torch_python)
    say_machine(report['machine'])
    for name in arguments.workloads:
        for first_order in (
            [False, True] if arguments.first_order is None else [arguments.first_order]
        ):
            workload = dataclasses.replace(WORKLOADS[name], first_order=first_order)
            say(f'{name}, {"first" if first_order else "second"} order')
            result = measure(
                workload,
                arguments.sides,
                arguments.rounds,
                arguments.steps or workload.steps,
                arguments.torch_python,
            )
            print(table(name, workload, result), flush=True)
            report['measurements'].append(
                {'workload': name, 'first_order': first_order, 'tasks': workload.tasks, **result}
            )
            write_json(arguments.output, report)


if __name__ == '__main__':
    main()
