"""A search from its command line to what it leaves."""

import pathlib
from typing import Any

import numpy as np

from maml_tf.commands.cell_search import comparison, pictures, search
from maml_tf.commands.cell_search import flags as own
from maml_tf.commands.cell_search.children import Children
from maml_tf.commands.cell_search.records import (
    AGAIN,
    CHILDREN,
    FINAL,
    Row,
    SearchDirectory,
    cell_of,
)
from maml_tf.evaluation.intervals import summarise
from maml_tf.networks.cells.cell import Cell
from maml_tf.serialisation import lock
from maml_tf.terminal import progress
from maml_tf.terminal.interrupts import Interrupts, interruption


def run(flags) -> None:
    """Searches, or goes on with a search, and compares what it finds with random cells.

    Raises: UserError for what cannot be searched; KeyboardInterrupt after a signal.
    """
    own.check(flags)
    path = pathlib.Path(flags.logdir)
    directory = SearchDirectory(path)
    with lock.held(path, 'searches in it'), Interrupts() as interrupts:
        directory.open(own.texts(flags), own.FREE)

        def leave_off():
            if interrupts.asked:
                done = len(directory.rows[CHILDREN]) + len(directory.rows[FINAL])
                message = f'interrupted after {done} children: the same command goes on from there'
                raise type(interruption(interrupts.asked))(message)

        _Program(flags, directory, Children(flags, leave_off)).run()


class _Program:
    def __init__(self, flags, directory: SearchDirectory, children: Children):
        self.flags, self.directory, self.children = flags, directory, children
        self.seeds = [flags.seed + 2 + i for i in range(flags.final_seeds)]
        self.final_iterations = flags.final_iterations or flags.child_iterations
        self.settings = self._settings()
        self.warned = False

    def run(self):
        flags, rows = self.flags, self.directory.rows
        before = len(rows[CHILDREN]) + len(rows[FINAL])
        if before:
            print(f'Going on after {before} children in {self.directory.path}')
        most = flags.blocks * flags.children + flags.keep
        most += (1 + flags.finalists) * flags.final_seeds
        with progress.bar(
            total=most, initial=before, description='searching', unit='child'
        ) as self.bar:
            search.run(self.directory, self.settings, self._child, self._tell)
            self._draw()
            self.bar.set_description('comparing')
            results = comparison.run(
                self.directory, flags.finalists, self.seeds, self._finalist, self._tell
            )
        self._finish(results)

    def _settings(self):
        flags = self.flags
        # Half of a child's time is compiling, which is the same for the networks of the end.
        of_one = max(0.5 * (1 + self.final_iterations / flags.child_iterations), 1)
        return search.Settings(
            flags.blocks,
            flags.children,
            flags.keep,
            flags.random_every,
            flags.seed,
            seconds=None if flags.minutes is None else 60 * flags.minutes,
            end=(1 + flags.finalists) * flags.final_seeds * of_one + flags.keep,
        )

    def _child(self, cell: Cell, seed: int) -> Row:
        flags = self.flags
        return self._scored(cell, flags.child_iterations, seed, 'val', flags.child_tasks)

    def _finalist(self, cell: Cell, seed: int) -> Row:
        return self._scored(cell, self.final_iterations, seed, 'test', self.flags.test_tasks)

    def _scored(self, cell, iterations, seed, split, tasks) -> dict[str, Any]:
        score = self.children.score(cell, iterations, seed, split, tasks)
        means, _, ci95 = summarise(score.accuracies[:, np.newaxis])
        return {
            'accuracy': float(means[0]),
            'ci95': float(ci95[0]),
            'parameters': score.parameters,
            'seconds': round(score.seconds, 2),
        }

    def _tell(self, row: Row) -> None:
        self.bar.update()
        rows = self.directory.rows[CHILDREN]
        best = (
            f'best {100 * search.best_of(rows, 1)[0]["accuracy"]:.1f}%' if 'number' in row else ''
        )
        self.bar.write(
            f'{row["origin"]:9} {100 * row["accuracy"]:5.1f}% ±{100 * row["ci95"]:.1f} '
            f'{row["seconds"]:5.0f} s  {best:11} {cell_of(row)}'
        )
        if 'number' in row and row['origin'] != AGAIN:
            self._warn()

    def _warn(self):
        """Says, once, that the time cannot be kept, while there is time to ask for less."""
        if self.warned or not search.cannot_be_kept(self.directory, self.settings):
            return
        self.warned = True
        minutes = search.end_seconds(self.directory.rows[CHILDREN], self.settings) / 60
        self.bar.write(
            f'--minutes={self.flags.minutes:g} cannot be kept: second looks and comparison alone '
            f'take about {minutes:.1f} minutes; give fewer --finalists or --final_seeds'
        )

    def _draw(self):
        flags, rows = self.flags, self.directory.rows[CHILDREN]
        task = f'{flags.datasource} {flags.num_classes}-way {flags.update_batch_size}-shot'
        title = f'Search for a cell: {task}, {len(rows)} children'
        pictures.draw_search(self.directory.path / 'search.png', rows, title)

    def _finish(self, results):
        path, rows = self.directory.path, self.directory.rows
        best = search.found(rows[CHILDREN])
        flags = self.flags
        task = f'{flags.datasource} {flags.num_classes}-way {flags.update_batch_size}-shot'
        note = f'found on {task}, validation accuracy {best["accuracy"]:.4f}'
        self.directory.write('best_cell.json', {**best['cell'], 'note': note})
        pictures.draw_cell(path / 'cell.png', cell_of(best), f'The cell found on {task}')
        results |= {
            'children': len(rows[CHILDREN]),
            'seconds': round(self.directory.seconds(*rows), 1),
            'iterations': self.final_iterations,
            'test_tasks': flags.test_tasks,
        }
        self.directory.write('results.json', results)
        print(comparison.table(results))
        print(f'best_cell.json, cell.png, search.png and results.json: {path}')
        print(f'Train it: run_maml.py --network=cell --cell={path / "best_cell.json"} ...')
