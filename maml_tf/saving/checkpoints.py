"""Checkpoints of a run: all variables of its learner and optimizers, at some iterations."""

import json
import os
import pathlib
import shutil
from collections.abc import Mapping

import tensorflow as tf

from maml_tf.errors import ArgumentError, UserError
from maml_tf.saving import records
from maml_tf.saving.checkpoint_files import (
    ENDINGS,
    cannot_be_read,
    checkpoints,
    damage,
    remove_all_but,
    set_aside,
)
from maml_tf.serialisation.files import write_atomically
from maml_tf.serialisation.tensorflow_errors import reason

KEPT = 10  # as the reference
WRITING = '.writing'  # directory of a checkpoint that is being written
ENSEMBLE = 'ensemble'  # directory of the best ones in validation, where several are kept
# A checkpoint knows a weight as learner/<name>/.ATTRIBUTES/VARIABLE_VALUE.
LEARNER, VALUE = 'learner', '/.ATTRIBUTES/VARIABLE_VALUE'


class Checkpoints:
    """Saves and restores variables in one directory, the last ones and the best.

    Args:
      path: the directory; it is made when something is first written.
      variables: {group: {name: variable}}, what a checkpoint holds besides the iteration; the group
        LEARNER holds the learner's weights, which another run can start from.
    """

    def __init__(
        self, path: pathlib.Path | str, variables: Mapping[str, Mapping[str, tf.Variable]]
    ):
        self.path, self._variables = pathlib.Path(path), variables
        self._iteration = tf.Variable(0, dtype=tf.int64, name='iteration', trainable=False)
        groups = {group: tf.train.Checkpoint(**named) for group, named in variables.items()}
        self._checkpoint = tf.train.Checkpoint(iteration=self._iteration, **groups)
        self._floats = {
            f'{group}/{name}': variable
            for group, named in variables.items()
            for name, variable in named.items()
            if variable.dtype.is_floating
        }
        self._are_finite = tf.function(self._check_each, autograph=False)

    def variables(self) -> list[tf.Variable]:
        """Returns what a checkpoint holds besides the iteration, in an order that is always the
        same."""
        return [
            self._variables[group][name]
            for group in sorted(self._variables)
            for name in sorted(self._variables[group])
        ]

    def checkpoints(self) -> dict[int, str]:
        """Returns {iteration: checkpoint prefix}, ascending."""
        return checkpoints(self.path)

    def last_checkpoint(self) -> str:
        """Returns, in words for the end of a message, which checkpoint there is to go back to."""
        prefixes = self.checkpoints()
        if not prefixes:
            return 'there is no checkpoint yet'
        return f'the last checkpoint stays: {prefixes[max(prefixes)]}'

    def restore(self, iteration: int = -1) -> int:
        """Reads a checkpoint and returns its iteration.

        Args:
          iteration: of the checkpoint; -1: the latest.
        Raises:
          UserError: there is no checkpoint, or it holds other variables.
          ArgumentError: there are checkpoints, but none of this iteration, or it is damaged.
        """
        prefixes = self._prefixes()
        iteration = max(prefixes) if iteration == -1 else iteration
        if iteration not in prefixes:
            there = ', '.join(map(str, prefixes))
            raise ArgumentError(
                'iteration', iteration, f'{self.path} has checkpoints of iterations {there}'
            )
        if why := cannot_be_read(prefixes[iteration]):
            raise ArgumentError('iteration', None, f'{prefixes[iteration]} {why}')
        return self._read(prefixes[iteration])

    def restore_to_go_on(self) -> int:
        """Reads the latest checkpoint that is whole, and returns its iteration.

        Later ones, which are damaged, are kept as damaged-model-<iteration>, and a line says so.

        Raises: UserError where none is whole, or it holds other variables.
        """
        damaged = {}
        for iteration, prefix in sorted(self._prefixes().items(), reverse=True):
            if why := damage(prefix):
                damaged[iteration] = f'{prefix} cannot be read ({why})'
                continue
            self._read(prefix)
            for later, what in damaged.items():
                kept = set_aside(self.path, later).name
                print(f'{what}: kept as {kept}, going on from iteration {iteration}')
            return iteration
        raise UserError(
            f'{next(iter(damaged.values()))}, and no other checkpoint there is whole; start anew, '
            'and do not resume'
        )

    def _prefixes(self) -> dict[int, str]:
        prefixes = self.checkpoints()
        if not prefixes:
            raise UserError(
                f'no checkpoint in {self.path}: train first, with the same settings, or start from '
                'the weights of another run'
            )
        return prefixes

    def _read(self, prefix: str) -> int:
        try:
            # What does not match is said below, not in TensorFlow's log.
            status = self._checkpoint.read(prefix).expect_partial()
            status.assert_existing_objects_matched().assert_consumed()
        except (AssertionError, ValueError) as error:
            raise UserError(
                f'{prefix}: holds other variables than this learner and its optimizers have. It '
                'was written by another version of this package, or by another learner'
            ) from error
        return int(self._iteration)

    def save(self, iteration: int) -> None:
        """Writes a checkpoint of everything, and removes the oldest beyond KEPT.

        Raises:
          UserError: a variable is not finite, or the files cannot be written. The checkpoints
            before stay.
        """
        self._write(self.path / f'model-{iteration}', iteration)
        remove_all_but(self.path, list(self.checkpoints())[-KEPT:])

    def save_best(self, iteration: int, score: float) -> None:
        """Writes best/model-<iteration> in place of the one before, and its validation score.

        Raises UserError as `save` does.
        """
        best = self.path / 'best'
        self._write(best / f'model-{iteration}', iteration)
        content = json.dumps({'iteration': iteration, 'score': score})
        write_atomically(best / 'score.json', content + '\n')
        remove_all_but(best, [iteration])

    def best_score(self, iteration: int) -> float | None:
        """Returns the best validation score up to `iteration`; None where there is none.

        Raises: UserError where best/score.json is damaged.
        """
        best = records.best(self.path / 'best' / 'score.json')
        return best[1] if best and best[0] <= iteration else None

    def save_among_best(
        self, iteration: int, score: float, kept: int, higher_is_better: bool
    ) -> None:
        """Writes ensemble/model-<iteration> where its score is among the `kept` best so far.

        Raises UserError as `save` does.
        """
        # Of equal scores the earlier one stays.
        sign = -1 if higher_is_better else 1
        scores = self.among_best() | {iteration: score}
        best = sorted(scores, key=lambda number: (sign * scores[number], number))[:kept]
        directory = self.path / ENSEMBLE
        if iteration in best:
            self._write(directory / f'model-{iteration}', iteration)
            content = json.dumps({number: scores[number] for number in sorted(best)})
            write_atomically(directory / 'scores.json', content + '\n')
            remove_all_but(directory, best)

    def among_best(self) -> dict[int, float]:
        """Returns {iteration: validation score} of the checkpoints that `save_among_best` kept.

        Raises: UserError where ensemble/scores.json is damaged.
        """
        there = checkpoints(self.path / ENSEMBLE)
        scores = records.scores(self.path / ENSEMBLE / 'scores.json')
        return {number: score for number, score in scores.items() if number in there}

    def restore_among_best(self, iteration: int) -> int:
        """Reads one of the checkpoints `among_best`, and returns its iteration. Raises UserError as
        `restore` does."""
        prefix = self.path / ENSEMBLE / f'model-{iteration}'
        if why := damage(prefix):
            raise UserError(f'{prefix}: cannot be read ({why}); ask for a smaller ensemble')
        return self._read(str(prefix))

    def _write(self, prefix: pathlib.Path, iteration: int) -> None:
        """Writes under another name first: a checkpoint is two files, and a run may end between."""
        self._check_finite(iteration)
        self._iteration.assign(iteration)
        scratch = prefix.parent / WRITING
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            prefix.parent.mkdir(parents=True, exist_ok=True)
            self._checkpoint.write(str(scratch / 'model'))
            for ending in reversed(ENDINGS):
                os.replace(scratch / f'model.{ending}', f'{prefix}.{ending}')
        except (tf.errors.OpError, OSError) as error:
            raise UserError(
                f'{prefix}: the checkpoint could not be written ({reason(error)}); mend that, and '
                f'give the same command again; {self.last_checkpoint()}'
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _check_each(self) -> tf.Tensor:
        return tf.stack([tf.reduce_all(tf.math.is_finite(v)) for v in self._floats.values()])

    def _check_finite(self, iteration: int) -> None:
        """Raises UserError where a variable is not finite: a run cannot go on from there."""
        if not self._floats:
            return
        wrong = [name for name, fine in zip(self._floats, self._are_finite().numpy()) if not fine]
        if wrong:
            others = f' and {len(wrong) - 1} more variables hold' if wrong[1:] else ' holds'
            raise UserError(
                f'{wrong[0]}{others} NaN or infinity at iteration {iteration}: nothing was saved, '
                f'{self.last_checkpoint()}. Smaller learning rates, inner and outer, may help'
            )
