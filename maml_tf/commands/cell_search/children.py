"""Children: networks of one cell each, trained for a moment and scored."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from maml_tf.commands.cell_search.looped_reptile import LoopedReptile
from maml_tf.commands.experiment import problem_of
from maml_tf.datasets.sources import SOURCES
from maml_tf.errors import UserError
from maml_tf.evaluation import evaluate
from maml_tf.networks.cells.cell import Cell
from maml_tf.networks.cells.flags import cell_net
from maml_tf.training.iterate import iterate
from maml_tf.training.memory import free_programs
from maml_tf.training.operations import op_of
from maml_tf.training.phases import OuterLoop

AT_A_TIME = 10  # Iterations between two looks at the keyboard.


class Score(NamedTuple):
    """Accuracies [tasks] of a trained child, its weights, and the seconds that it took."""

    accuracies: np.ndarray
    parameters: int
    seconds: float


class Children:
    """Trains and scores networks of cells as a command line describes.

    Args:
      flags: of the data, the tasks, Reptile and the sizes of the network.
      leave_off: called now and then; what it raises ends the training.
    Raises: UserError for data that no cell can be searched on.
    """

    def __init__(self, flags, leave_off: Callable[[], None] = lambda: None):
        self._flags, self._leave_off = flags, leave_off
        row = SOURCES[flags.datasource]
        shape = row.input_shape(flags)
        if not row.classification or len(shape) != 3:
            raise UserError(f'--datasource={flags.datasource}: no classes of images, as cells need')
        self._source = row.load(flags)
        for split in ('train', 'val', 'test'):
            if split not in self._source.splits:
                raise UserError(f'--datasource={flags.datasource}: has no {split} classes')
        self._problem = problem_of(flags, self._source)
        cell_net(flags, self._problem.input_shape, 2, Cell(((0, 'identity', 1, 'identity'),)))
        # What the data cannot give is said now, not when the first child is scored.
        self._source.tasks('train', self._problem.training, flags.seed)
        for split in ('val', 'test'):
            self._source.tasks(split, self._problem.evaluation, evaluate.TASK_SEED)

    def score(self, cell: Cell, iterations: int, seed: int, split: str, tasks: int) -> Score:
        """Trains a network of a cell on the training classes, and scores it on others.

        Args:
          seed: of the initial weights and of the training tasks.
          split: 'val' or 'test'. tasks: how many of it; always the same ones.
        """
        start, problem = time.monotonic(), self._problem
        network = functools.partial(
            cell_net, self._flags, problem.input_shape, problem.output_dim, cell
        )
        flags = _Seeded(self._flags, seed)
        learner = LoopedReptile.from_flags(flags, dataclasses.replace(problem, network=network))
        (phase,) = learner.phases(OuterLoop(0, iterations, None, problem.training))
        draw = self._source.tasks('train', phase.draws, seed)
        count = self._flags.meta_batch_size
        run = iterate(op_of(learner, phase), draw, count, count)
        for first in range(0, iterations, AT_A_TIME):
            run(first, min(AT_A_TIME, iterations - first))
            self._leave_off()
        # Compiling would take longer than it saves on so few tasks (measured on two cores).
        learner.xla = False
        draw = self._source.tasks(split, problem.evaluation, evaluate.TASK_SEED)
        chunk = evaluate.chunk(problem.evaluation)
        scores = evaluate.evaluator(learner, draw, None, chunk, chunk)(tasks)
        parameters = learner.count_params()
        del learner, phase, run, draw
        free_programs()
        return Score(scores[:, -1], int(parameters), time.monotonic() - start)


class _Seeded:
    """Flags with another seed."""

    def __init__(self, flags, seed):
        self._flags, self.seed = flags, seed

    def __getattr__(self, name):
        return getattr(self._flags, name)
