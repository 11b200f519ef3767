"""The end of a search: the cell that it found against its own random cells, on test tasks.

All are trained alike, anew, from seeds that the search has not seen.
"""

import statistics
from collections.abc import Callable

from maml_tf.commands.cell_search.records import (
    CHILDREN,
    FINAL,
    RANDOM,
    Row,
    SearchDirectory,
    cell_of,
)
from maml_tf.commands.cell_search.search import found
from maml_tf.networks.cells.cell import Cell

FOUND = 'found'


def finalists(rows: list[Row], count: int) -> list[Row]:
    """Returns the row of the cell that was found, and those of random cells, at most `count`.

    Random cells of the same number of blocks come first, then those nearest to it, in the order in
    which they were drawn: their scores play no part.
    """
    best = found(rows)
    controls = {}
    for row in rows:
        if row['origin'] == RANDOM:
            controls.setdefault(cell_of(row).canonical(), row)
    controls.pop(cell_of(best).canonical(), None)
    order = sorted(
        controls.values(), key=lambda row: (abs(row['size'] - best['size']), row['number'])
    )
    return [best, *order[:count]]


def run(
    directory: SearchDirectory,
    count: int,
    seeds: list[int],
    score: Callable[[Cell, int], Row],
    tell: Callable[[Row], None],
) -> dict:
    """Trains the finalists from each seed, from where the directory's rows end.

    Args:
      count: random cells. seeds: of each. score: (cell, seed) -> the fields of its row.
      tell: called with each new row.
    Returns: what results.json holds.
    """
    entrants = finalists(directory.rows[CHILDREN], count)
    done = {(cell_of(row), row['seed']) for row in directory.rows[FINAL]}
    for seed in seeds:
        for number, entrant in enumerate(entrants):
            if (cell_of(entrant), seed) in done:
                continue
            row = {
                'cell': entrant['cell'],
                'size': entrant['size'],
                'origin': RANDOM if number else FOUND,
                'seed': seed,
                **score(cell_of(entrant), seed),
            }
            directory.append(FINAL, row)
            tell(row)
    return results(entrants, directory.rows[FINAL], seeds)


def results(entrants: list[Row], rows: list[Row], seeds: list[int]) -> dict:
    """Returns the means over the seeds, of each entrant and of the random ones together."""
    cells = []
    for number, entrant in enumerate(entrants):
        own = [
            row['accuracy']
            for row in rows
            if row['cell'] == entrant['cell'] and row['seed'] in seeds
        ]
        cells.append(
            {
                'cell': entrant['cell'],
                'origin': RANDOM if number else FOUND,
                'size': entrant['size'],
                'parameters': entrant['parameters'],
                'validation': entrant['accuracy'],
                'test': own,
                'mean': statistics.fmean(own),
                'deviation': statistics.stdev(own) if len(own) > 1 else None,
            }
        )
    means = [cell['mean'] for cell in cells[1:]]
    return {
        'metric': 'accuracy',
        'seeds': seeds,
        'found': cells[0]['mean'],
        'median_of_random': statistics.median(means) if means else None,
        'best_of_random': max(means) if means else None,
        'better_than': sum(cells[0]['mean'] > mean for mean in means),
        'random_cells': len(means),
        'cells': cells,
    }


def table(results: dict) -> str:
    """Returns the results as lines of text."""
    lines = [f'{"":8}{"blocks":>7}{"weights":>9}{"val %":>8}{"test %":>8}{"±":>6}  cell']
    for cell in results['cells']:
        from_seeds = '' if cell['deviation'] is None else f'{100 * cell["deviation"]:.1f}'
        lines.append(
            f'{cell["origin"]:8}{cell["size"]:7}{cell["parameters"]:9,}'
            f'{100 * cell["validation"]:8.1f}{100 * cell["mean"]:8.1f}{from_seeds:>6}  '
            f'{cell_of(cell)}'
        )
    if results['random_cells']:
        lines.append(
            f'found {100 * results["found"]:.1f}%, the median of {results["random_cells"]} random '
            f'cells {100 * results["median_of_random"]:.1f}%, the best of them '
            f'{100 * results["best_of_random"]:.1f}%; found is better than '
            f'{results["better_than"]} of them'
        )
    lines.append(
        f'Each trained anew from {len(results["seeds"])} seeds; ± is the deviation over them.'
    )
    return '\n'.join(lines)
