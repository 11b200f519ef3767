"""Searches for the cell of a network that learns new tasks well, as Auto-Meta does.

    python -m maml_tf.commands.search_cell --datasource=omniglot --logdir=logs/cells --minutes=50

The same command goes on with a search that was interrupted or killed. What it finds is trained by

    python run_maml.py --network=cell --cell=logs/cells/best_cell.json ...

Data, tasks and Reptile have run_maml.py's flags; see cell_search/search.py for the method.
"""

from maml_tf.terminal import quiet

quiet.import_tensorflow()

import tensorflow as tf  # noqa: E402  (it is to be started quietly first)
from absl import app, flags, logging  # noqa: E402

from maml_tf.commands import command_line  # noqa: E402
from maml_tf.commands.cell_search import flags as own  # noqa: E402
from maml_tf.commands.cell_search import program  # noqa: E402
from maml_tf.terminal.exit import errors_as_one_line  # noqa: E402


@errors_as_one_line(
    command_line.FLAG_OF,
    file='--logdir',
    interrupted='interrupted: the same command goes on from the last child',
)
def main(argv: list[str]) -> None:
    """Searches as the flags say."""
    if len(argv) > 1:
        raise app.UsageError(
            f'unknown argument {argv[1]!r}: every option has the form --name=value'
        )
    logging.set_verbosity(logging.WARNING)
    # It warns of programs that are traced again and again: here each child is a new one.
    tf.get_logger().setLevel('ERROR')
    program.run(flags.FLAGS)


if __name__ == '__main__':
    own.define_flags(flags)
    app.run(main)
