"""The run directory <logdir>/<name of the run>: checkpoints, flags, metrics and the clock."""

import contextlib
import json
import os
import pathlib
import platform
import shutil
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from maml_tf.errors import UserError
from maml_tf.saving import records
from maml_tf.saving.checkpoint_files import remove_all_but
from maml_tf.saving.checkpoints import ENSEMBLE, KEPT, WRITING, Checkpoints
from maml_tf.serialisation import lock
from maml_tf.serialisation.files import naming, remove_unfinished, write_atomically


class RunDirectory(Checkpoints):
    """The files of one run: its checkpoints, and beside them what a person reads.

    flags.txt: replayable flags. metrics.csv: what was logged. clock.json: seconds of training.
    Where flags.txt was written, nothing is written into a directory that has lost it: what would
    come of it had no beginning.
    """

    _begun = False

    @property
    def of_chief(self) -> 'RunDirectory':
        """Returns this, see SharedRunDirectory."""
        return self

    def set_aside(self) -> pathlib.Path | None:
        """Renames an earlier run that is not to be resumed.

        Returns its new path; None where there is no earlier run.
        """
        if not self.checkpoints():
            return None
        number = 1
        while (old := self.path.with_name(f'{self.path.name}.old{number}')).exists():
            number += 1
        self._begun = False
        return self.path.rename(old)

    def make(self) -> None:
        """Makes the directory, where it is not there yet."""
        self.path.mkdir(parents=True, exist_ok=True)

    def write_flags(self, text: str) -> None:
        """Writes flags.txt, which --flagfile replays."""
        self.make()
        write_atomically(self.path / 'flags.txt', text)
        self._begun = True

    def flags(self) -> dict[str, str]:
        """Returns {name: text} of flags.txt, {} where there is none. Raises UserError where it
        holds something else."""
        return records.flags(self.path / 'flags.txt')

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Adds {column: value} to metrics.csv, whose columns are those of all its rows.

        A phase may log what an earlier one did not: these columns are empty in the rows before.
        """
        self._check_is_there()
        path = self.path / 'metrics.csv'
        columns = records.columns_of_metrics(path)
        new = [name for name in row if name not in columns]
        if new:
            rows = [*self.metrics(), row]
            text = records.metrics_lines(rows, [*columns, *new], header=True)
            write_atomically(path, text)
            return
        with naming(path), open(path, 'a', encoding='utf-8') as file:
            file.write(records.metrics_lines([row], columns, header=False))

    def metrics(self, up_to: int | None = None) -> list[dict[str, str]]:
        """Returns the rows of metrics.csv, as {column: text}; `up_to`: those up to an iteration.

        Raises: UserError where it holds something else.
        """
        _, rows = records.metrics(self.path / 'metrics.csv')
        return [row for row in rows if up_to is None or int(row['iteration']) <= up_to]

    def is_empty(self, iteration: int, column: str) -> bool:
        """Says whether metrics.csv has a row of an iteration, with nothing in a column."""
        rows = [row for row in self.metrics() if int(row['iteration']) == iteration]
        return bool(rows) and not rows[-1].get(column)

    def forget_metrics_after(self, iteration: int) -> None:
        """Removes rows that a resumed run will write again."""
        path = self.path / 'metrics.csv'
        columns, rows = records.metrics(path)
        if rows := [row for row in rows if int(row['iteration']) <= iteration]:
            write_atomically(path, records.metrics_lines(rows, columns, header=True))
        else:
            path.unlink(missing_ok=True)

    def seconds(self) -> float:
        """Returns the seconds of training up to the last checkpoint, over all sessions. Raises
        UserError where clock.json is damaged."""
        path = self.path / 'clock.json'
        return records.clock(path)['training_seconds'] if path.exists() else 0.0

    def check(self) -> None:
        """Raises UserError where a file that is read later, in training or after it, is damaged."""
        self.flags()
        self.metrics()
        self.seconds()
        self.best_score(0)
        self.among_best()

    def tidy(self) -> None:
        """Removes what a run left that was killed while it wrote."""
        for directory in (self.path, self.path / 'best', self.path / ENSEMBLE):
            shutil.rmtree(directory / WRITING, ignore_errors=True)
            remove_unfinished(directory)
        remove_all_but(self.path, list(self.checkpoints())[-KEPT:])

    def _write(self, prefix: pathlib.Path, iteration: int) -> None:
        self._check_is_there()
        super()._write(prefix, iteration)

    def _check_is_there(self) -> None:
        """Raises UserError where the directory of a run that has begun is gone."""
        if self._begun and not (self.path / 'flags.txt').exists():
            raise UserError(
                f'{self.path}: was removed or renamed under the run (it has no flags.txt any '
                'more), nothing more is written; put it back, and the same command goes on from '
                'what it holds, or without it begins anew'
            )

    def held(self) -> contextlib.AbstractContextManager[bool]:
        """Returns a context in which no other process trains here, see lock.py."""
        return lock.held(self.path)

    def write_seconds(self, seconds: float) -> None:
        """Writes the seconds of training so far, and on what kind of machine."""
        self._check_is_there()
        self.make()
        kinds = [device.device_type for device in tf.config.list_logical_devices()]
        cores = f'{os.cpu_count()} CPU cores ({platform.machine()})'
        machine = ', '.join([cores, *(kind for kind in kinds if kind != 'CPU')])
        content = json.dumps({'training_seconds': round(seconds, 1), 'machine': machine})
        write_atomically(self.path / 'clock.json', content + '\n')


def define_flags(flags) -> None:
    """Defines the flags of the run directory."""
    flags.DEFINE_string('logdir', '/tmp/data', 'directory for summaries, checkpoints and results')
    flags.DEFINE_bool('log', True, 'False: write no TensorBoard summaries and no metrics.csv')
    flags.DEFINE_bool(
        'resume',
        True,
        'resume training if there is a checkpoint; False: start anew, the earlier run is renamed',
    )
    flags.DEFINE_integer(
        'test_iter', -1, 'iteration of the checkpoint to load (-1: the latest)', lower_bound=-1
    )
    flags.DEFINE_string(
        'init_from',
        None,
        'start from, or with --train=False evaluate, the weights of this '
        'checkpoint: a run directory, a checkpoint prefix, or a TF1 checkpoint of the reference',
    )
