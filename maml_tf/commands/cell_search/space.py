"""The cells that a search can come to: those of one block, extensions by a block, random ones."""

import itertools

import numpy as np

from maml_tf.networks.cells.cell import OPERATIONS, OUTSIDE, Block, Cell


def cells_of_one_block() -> list[Cell]:
    """Returns every cell of one block, each in its canonical form."""
    return _distinct(Cell((block,)) for block in _blocks(OUTSIDE))


def extensions(cell: Cell) -> list[Cell]:
    """Returns every cell that this one becomes by one more block, each in its canonical form."""
    blocks = _blocks(OUTSIDE + cell.size)
    return _distinct(Cell((*cell.blocks, block)) for block in blocks)


def random_cell(size: int, rng: np.random.Generator) -> Cell:
    """Returns a canonical cell whose inputs and operations are drawn uniformly, block by block."""
    blocks = []
    for number in range(size):
        inputs = rng.integers(OUTSIDE + number, size=2)
        operations = rng.integers(len(OPERATIONS), size=2)
        (a, b), (of_a, of_b) = inputs, (OPERATIONS[i] for i in operations)
        blocks.append((int(a), of_a, int(b), of_b))
    return Cell(tuple(blocks)).canonical()


def _blocks(inputs: int) -> list[Block]:
    """Returns every block of so many inputs, each with its smaller side first."""
    sides = sorted(itertools.product(range(inputs), OPERATIONS))
    return [(*a, *b) for a, b in itertools.combinations_with_replacement(sides, 2)]


def _distinct(cells) -> list[Cell]:
    return list(dict.fromkeys(cell.canonical() for cell in cells))
