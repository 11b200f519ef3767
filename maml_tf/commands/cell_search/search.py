"""Progressive search: cells of one block, then of one more, those that a surrogate ranks highest.

Liu et al. 2018 (arXiv 1712.00559, algorithm 1) with the children of Auto-Meta (Kim et al. 2018,
arXiv 1806.06927), which first-order Reptile trains on few-shot tasks. There is no official code:
this is a RECONSTRUCTION. Ours are the numbers, the share of explored extensions, the second look at
the best children, and the random cells of the same size as a control, each as costly as a child.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from maml_tf.commands.cell_search import space
from maml_tf.commands.cell_search.records import (
    AGAIN,
    CHILDREN,
    EXPLORED,
    PLAN,
    PREDICTED,
    RANDOM,
    START,
    Row,
    SearchDirectory,
    cell_of,
)
from maml_tf.commands.cell_search.surrogate import Surrogate
from maml_tf.networks.cells.cell import Cell
from maml_tf.training.memory import free_programs

BEYOND = 1.1  # What a search may take of its time before it is said that it cannot be kept.
LEAST = 3  # Children of each size are tried, whatever the time, and more up to a random one.
EXPLORE_EVERY = 5  # Of the children that are not random, every fifth is not what is ranked highest.


class Settings(NamedTuple):
    """What a search does.

    blocks: of the largest cells. children: that are tried of each size, random ones among them.
    keep: best cells of a size that are extended, and that are looked at a second time.
    random_every: one child in so many is a random cell. seed: of all that is drawn.
    seconds: when all is to end; None: when all children are tried. end: trainings that follow, by
      what they take as many as so many children; for these time is kept.
    """

    blocks: int
    children: int
    keep: int
    random_every: int
    seed: int
    seconds: float | None = None
    end: float = 0.0


# (cell, seed) -> the fields of its row: accuracy, ci95, parameters, seconds.
Score = Callable[[Cell, int], Row]


def run(
    directory: SearchDirectory, settings: Settings, score: Score, tell: Callable[[Row], None]
) -> None:
    """Tries children size by size, from where the directory's rows end.

    Args:
      score: trains and scores a child.
      tell: called with each new row.
    """
    for size in range(1, settings.blocks + 1):
        plans = {plan['size']: plan for plan in directory.rows[PLAN]}
        if size not in plans:
            started = time.monotonic()
            children = list(planned(directory.rows[CHILDREN], size, settings))
            plan = {'size': size, 'children': children, 'seconds': time.monotonic() - started}
            directory.append(PLAN, plan)
            plans[size] = plan
        if size + 1 in plans:  # Time was over for this size.
            continue
        first_looks = [row for row in directory.rows[CHILDREN] if row['origin'] != AGAIN]
        done = sum(row['size'] == size for row in first_looks)
        for number, child in enumerate(plans[size]['children'][done:], start=done):
            if number >= max(LEAST, settings.random_every) and _over(directory, settings, size):
                break
            _try(directory, child, size, settings.seed, score, tell)
    look_again(directory, settings, score, tell)


def look_again(
    directory: SearchDirectory, settings: Settings, score: Score, tell: Callable[[Row], None]
) -> None:
    """Trains the best children from another seed: the best of many has been lucky, too."""
    rows = directory.rows[CHILDREN]
    done = {cell_of(row) for row in rows if row['origin'] == AGAIN}
    for row in best_of([row for row in rows if row['origin'] != AGAIN], settings.keep):
        if cell_of(row) not in done:
            child = {'cell': row['cell'], 'origin': AGAIN, 'predicted': None}
            _try(directory, child, row['size'], settings.seed + 1, score, tell)


def found(rows: list[Row]) -> Row:
    """Returns the row of the best child, by the mean of both looks, which is its accuracy here.

    Random ones do not count.
    """
    again = {cell_of(row): row['accuracy'] for row in rows if row['origin'] == AGAIN}
    first = {cell_of(row): row for row in searched(rows)}
    means = {cell: (first[cell]['accuracy'] + value) / 2 for cell, value in again.items()}
    if not means:
        return best_of(rows, 1)[0]
    best = max(means, key=means.get)
    return {**first[best], 'accuracy': means[best]}


def end_seconds(rows: list[Row], settings: Settings) -> float:
    """Returns what the end will take, by the mean of the largest children so far.

    Larger cells take longer, and what is found is likely to be one.
    """
    largest = max(row['size'] for row in rows)
    return settings.end * statistics.fmean(r['seconds'] for r in rows if r['size'] == largest)


def cannot_be_kept(directory: SearchDirectory, settings: Settings) -> bool:
    """Says whether a search that stopped now would clearly take longer than its time.

    By a few children of the largest size, since those before were cheaper.
    """
    rows = directory.rows[CHILDREN]
    sizes = [row['size'] for row in rows]
    if settings.seconds is None or sizes.count(max(sizes)) < LEAST:
        return False
    taken = directory.seconds(CHILDREN, PLAN) + end_seconds(rows, settings)
    return taken > BEYOND * settings.seconds


def searched(rows: list[Row]) -> list[Row]:
    """Returns the rows of children that the search chose, in their first look."""
    return [row for row in rows if row['origin'] not in (RANDOM, AGAIN)]


def best_of(rows: list[Row], count: int) -> list[Row]:
    """Returns the rows of the best children that the search chose, the best first."""
    ranked = sorted(searched(rows), key=lambda row: (-row['accuracy'], row['number']))
    return ranked[:count]


def planned(rows: list[Row], size: int, settings: Settings) -> Iterator[Row]:
    """Yields {'cell', 'origin', 'predicted'} of the children of a size.

    rows: of all children that are smaller.
    """
    rng = np.random.default_rng([settings.seed, size])
    count = settings.children
    controls = [i for i in range(count) if (i + 1) % settings.random_every == 0]
    chosen = iter(_chosen(rows, size, count - len(controls), settings, rng))
    for i in range(count):
        if i in controls:
            cell, origin, predicted = space.random_cell(size, rng), RANDOM, None
        else:
            cell, origin, predicted = next(chosen, (None, None, None))
        if cell is not None:
            yield {'cell': cell.to_json(), 'origin': origin, 'predicted': predicted}


def _chosen(rows, size, count, settings, rng):
    """Returns [(cell, origin, predicted accuracy)], at most `count`, in the order to try them."""
    if size == 1:
        cells = space.cells_of_one_block()
        order = rng.permutation(len(cells))[:count]
        return [(cells[i], START, None) for i in order]
    before = [row for row in rows if row['size'] == size - 1]
    parents = [cell_of(row) for row in best_of(before, settings.keep)]
    candidates = list(dict.fromkeys(c for parent in parents for c in space.extensions(parent)))
    known = searched(rows)
    surrogate = Surrogate(
        [cell_of(row) for row in known], [row['accuracy'] for row in known], settings.seed
    )
    predicted = surrogate.predict(candidates)
    del surrogate
    free_programs()
    ranked = [int(i) for i in np.argsort(-predicted, kind='stable')]
    chosen = []
    while ranked and len(chosen) < count:
        explores = (len(chosen) + 1) % EXPLORE_EVERY == 0
        i = ranked.pop(int(rng.integers(len(ranked))) if explores else 0)
        origin = EXPLORED if explores else PREDICTED
        chosen.append((candidates[i], origin, float(predicted[i])))
    return chosen


def _try(directory, child, size, seed, score, tell):
    row = {
        'number': len(directory.rows[CHILDREN]),
        'size': size,
        **child,
        **score(cell_of(child), seed),
    }
    directory.append(CHILDREN, row)
    tell(row)


def _over(directory, settings, size):
    """Says whether the time of the sizes up to this one is over, an equal share for each."""
    if settings.seconds is None:
        return False
    left = settings.seconds - end_seconds(directory.rows[CHILDREN], settings)
    return directory.seconds(CHILDREN, PLAN) >= size / settings.blocks * left
