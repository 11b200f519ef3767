"""A cell: a small graph of operations on images, of which a network repeats several copies.

As in progressive neural architecture search (Liu et al. 2018, arXiv 1712.00559), which Auto-Meta
(Kim et al. 2018, arXiv 1806.06927) takes up for few-shot learning, a cell is a list of blocks. A
block applies one operation each to two images and adds the results. There is no official code, and
what Auto-Meta's abstract does not say is a RECONSTRUCTION: the operations are our choice.
"""

import dataclasses
import hashlib
import itertools
import json
import pathlib
from typing import Any

from maml_tf.errors import ArgumentError
from maml_tf.serialisation.configuration import Configured
from maml_tf.serialisation.files import check_is_file
from maml_tf.terminal.text import shortened

# Each keeps the size of the images and the number of their channels.
OPERATIONS = (
    *('conv1x1', 'conv3x3', 'conv5x5', 'separable3x3', 'separable5x5'),
    *('max3x3', 'average3x3', 'identity'),
)
# Images that a block may take besides those of earlier blocks: 0 is what the cell before the
# previous one gave, 1 what the previous one gave.
OUTSIDE = 2
MOST_BLOCKS = 7  # Papers have 5; all orders of those at one depth are tried.

# (input, operation, input, operation)
Block = tuple[int, str, int, str]


@dataclasses.dataclass(frozen=True)
class Cell(Configured):
    """Blocks in the order in which they are computed.

    blocks: (input a, operation a, input b, operation b) of each. Input 0 is the output of the cell
      before the previous one, 1 that of the previous one, and 2 + i that of block i, an earlier
      one. The outputs of the blocks that no other block takes are the cell's.
    Raises: ArgumentError where it is none.
    """

    blocks: tuple[Block, ...]

    def __post_init__(self):
        if not 1 <= len(self.blocks) <= MOST_BLOCKS:
            _refuse(f'has {len(self.blocks)} blocks; 1 to {MOST_BLOCKS}')
        for number, (input_a, operation_a, input_b, operation_b) in enumerate(self.blocks):
            for taken in (input_a, input_b):
                if type(taken) is not int or not 0 <= taken < OUTSIDE + number:
                    _refuse(
                        f'block {number} takes input {shortened(repr(taken))}; a number from 0 to '
                        f'{OUTSIDE + number - 1}, of which {OUTSIDE} is block 0'
                    )
            for operation in (operation_a, operation_b):
                if operation not in OPERATIONS:
                    _refuse(
                        f'block {number} has operation {shortened(repr(operation))}; one of '
                        f'{", ".join(OPERATIONS)}'
                    )

    @property
    def size(self) -> int:
        """Returns the number of blocks."""
        return len(self.blocks)

    @property
    def ends(self) -> list[int]:
        """Returns the blocks whose output no other block takes, as inputs are numbered."""
        taken = {block[place] for block in self.blocks for place in (0, 2)}
        return [OUTSIDE + i for i in range(self.size) if OUTSIDE + i not in taken]

    def canonical(self) -> 'Cell':
        """Returns the one cell that stands for all which compute the same by symmetry.

        The two sides of a block may change places, and so may blocks of which neither takes the
        other.
        """
        # Depth by depth the smallest form; of blocks of one depth every order is tried.
        depths, found = self._depths(), []
        groups = [
            [i for i in range(self.size) if depths[i] == depth] for depth in range(max(depths) + 1)
        ]
        for orders in itertools.product(*(itertools.permutations(group) for group in groups)):
            found.append(self._in_order(list(itertools.chain(*orders))))
        return Cell(min(found))

    def to_json(self) -> dict[str, Any]:
        """Returns what a cell's file holds."""
        blocks = [
            {'inputs': [input_a, input_b], 'operations': [operation_a, operation_b]}
            for input_a, operation_a, input_b, operation_b in self.blocks
        ]
        return {'blocks': blocks}

    def fingerprint(self) -> str:
        """Returns eight hexadecimal digits that tell cells apart, alike for symmetric ones."""
        return hashlib.sha256(str(self.canonical()).encode()).hexdigest()[:8]

    def __str__(self) -> str:
        """Returns '0 conv3x3 + 1 identity | 2 max3x3 + 0 conv1x1'."""
        return ' | '.join(f'{a} {of_a} + {b} {of_b}' for a, of_a, b, of_b in self.blocks)

    def _depths(self):
        """Returns of each block how many blocks lie at most between it and the outside."""
        depths = []
        for block in self.blocks:
            inner = [depths[block[place] - OUTSIDE] for place in (0, 2) if block[place] >= OUTSIDE]
            depths.append(1 + max(inner, default=-1))
        return depths

    def _in_order(self, order):
        """Returns the blocks in another order, each with its smaller side first."""
        new = {0: 0, 1: 1} | {OUTSIDE + old: OUTSIDE + i for i, old in enumerate(order)}
        blocks = []
        for old in order:
            input_a, operation_a, input_b, operation_b = self.blocks[old]
            a, b = sorted([(new[input_a], operation_a), (new[input_b], operation_b)])
            blocks.append((*a, *b))
        return tuple(blocks)


def from_json(content: Any) -> Cell:
    """Returns the cell of what `to_json` returned; a text under 'note' is passed over.

    Raises: ArgumentError where it is none.
    """
    if not isinstance(content, dict) or not isinstance(content.get('blocks'), list):
        _refuse('holds no list of "blocks"')
    if unknown := sorted(content.keys() - {'blocks', 'note'}):
        _refuse(f'has an entry {shortened(repr(unknown[0]))}; "blocks" and maybe "note" alone')
    blocks = []
    for number, block in enumerate(content['blocks']):
        pairs = [block.get(name) if isinstance(block, dict) else None for name in _OF_A_BLOCK]
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            _refuse(f'block {number} has not two "inputs" and two "operations"')
        if unknown := sorted(block.keys() - {*_OF_A_BLOCK}):
            _refuse(f'block {number} has an entry {shortened(repr(unknown[0]))}')
        (input_a, input_b), (operation_a, operation_b) = pairs
        blocks.append((input_a, operation_a, input_b, operation_b))
    return Cell(tuple(blocks))


def read_cell(path: pathlib.Path | str) -> Cell:
    """Returns the cell of a JSON file, such as

        {"blocks": [{"inputs": [0, 1], "operations": ["conv3x3", "identity"]}]}

    Raises: ArgumentError where it is none.
    """
    path = pathlib.Path(path)
    try:
        check_is_file(path)
        return from_json(json.loads(path.read_text('utf-8')))
    except OSError as error:
        reason = f'cannot be read ({error.strerror or error})'
    except ArgumentError as error:
        reason = error.reason
    except (ValueError, RecursionError) as error:  # Of the encoding, and of JSON.
        reason = f'no JSON ({shortened(error)})'
    raise ArgumentError('cell', path, reason)


_OF_A_BLOCK = ('inputs', 'operations')


def _refuse(reason):
    raise ArgumentError('cell', None, reason)
