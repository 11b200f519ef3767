"""How long the training takes that is proposed for a folder, by a few of its steps, here."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maml_tf.learner import Learner
    from maml_tf.training.iterate import Run

STEPS = 5  # that are timed, after one that compiles
Clock = Callable[[], float]


def seconds_per_iteration(arguments: list[str], clock: Clock = time.perf_counter) -> float:
    """Times `training_step` of a command line, and returns its seconds.

    Starts TensorFlow and compiles the step, which takes longer than the steps.

    Args:
      clock: () -> seconds, asked before and after the steps.
    """
    _, run = training_step(arguments)
    finished(run(0, 1))
    start = clock()
    for number in range(1, 1 + STEPS):
        finished(run(number, 1))
    return (clock() - start) / STEPS


def training_step(arguments: list[str]) -> tuple['Learner', 'Run']:
    """Returns the learner of a command line, and the step that trains it on random images.

    What the images show does not matter to the time that a step takes.

    Args:
      arguments: of run_maml.py, of a method that trains on tasks of images.
    """
    from maml_tf.terminal import quiet

    quiet.import_tensorflow()
    import numpy as np

    from maml_tf import algorithms
    from maml_tf.commands import command_line
    from maml_tf.commands.experiment import problem_of
    from maml_tf.episodes.images import ImageClasses
    from maml_tf.training.iterate import iterate
    from maml_tf.training.operations import metatrain_op

    flags = command_line.parsed(*arguments)
    problem = problem_of(flags)
    spec = problem.training
    shape = spec.way, spec.shot + spec.query, *problem.input_shape
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    source = ImageClasses.from_arrays(images, {'train': range(spec.way)})
    learner = algorithms.registry()[flags.algorithm].from_flags(flags, problem)
    op, tasks = metatrain_op(learner, learner.outer_optimizer()), flags.meta_batch_size
    draw = source.tasks('train', spec, 0)
    return learner, iterate(op, draw, tasks, learner.share(tasks, spec))


def finished(log: Mapping[str, Any]) -> None:
    """Waits for the numbers of a step."""
    for value in log.values():
        float(value)
