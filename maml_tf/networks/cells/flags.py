"""The flags of networks and encoders of cells."""

from maml_tf.errors import UserError
from maml_tf.networks.cells.cell import Cell, read_cell
from maml_tf.networks.cells.cell_net import CellNet

CELLS = 2
# What makes another network besides --network and --encoder.
CELL_FLAGS = ('cell', 'cells')


def of_cells(flags) -> bool:
    """Says whether the command line asks for a network or an encoder of cells."""
    return 'cell' in (flags.network, flags.encoder)


def cell_of(flags) -> Cell:
    """Returns the cell of --cell. Raises ArgumentError where its file is none."""
    return read_cell(flags.cell)


def cell_net(
    flags, input_shape: tuple[int, ...], output_dim: int, cell: Cell | None = None, **changes
) -> CellNet:
    """Returns the network of cells that the command line asks for.

    Args:
      cell: None: that of --cell.
      changes: of constructor arguments; those of other networks are passed over.
    """
    of_others = ('head', 'pool_padding', 'film')
    return CellNet(
        input_shape,
        output_dim,
        cell or cell_of(flags),
        flags.num_filters,
        flags.cells or CELLS,
        flags.norm,
        product_dtype='bfloat16' if flags.bfloat16 else None,
        **{name: value for name, value in changes.items() if name not in of_others},
    )


def check_flags(flags) -> None:
    """Raises UserError for a flag of cells that is missing, or means nothing."""
    if of_cells(flags):
        if flags.cell is None:
            asks = '--network=cell' if flags.network == 'cell' else '--encoder=cell'
            raise UserError(f'{asks}: name the file of the cell, --cell=my_cell.json')
        if flags.network == 'cell':
            for name in ('max_pool', 'conv'):
                if flags[name].value != flags[name].default:
                    raise UserError(
                        f'--{name}={flags[name].value}: means nothing with --network=cell'
                    )
        return
    for name in CELL_FLAGS:
        if flags[name].value is not None:
            raise UserError(
                f'--{name}={flags[name].value}: only with --network=cell or --encoder=cell'
            )


def define_flags(flags) -> None:
    """Defines the flags of cells."""
    flags.DEFINE_enum(
        'network',
        'reference',
        ['reference', 'cell'],
        "network of images that methods adapt: MAML's, or copies of the cell in --cell",
    )
    flags.DEFINE_string(
        'cell',
        None,
        'file of the cell that --network=cell or --encoder=cell repeats, as `python -m '
        'maml_tf.commands.search_cell` writes it',
    )
    flags.DEFINE_integer(
        'cells', None, f'copies of the cell, each on half the size (default {CELLS})', lower_bound=1
    )
