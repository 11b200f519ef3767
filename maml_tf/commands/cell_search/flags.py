"""The flags of a search, and those of run_maml.py that mean nothing to it."""

import sys

from maml_tf.commands import command_line
from maml_tf.datasets import flags as data
from maml_tf.datasets.sources import SOURCES
from maml_tf.errors import UserError

# For children that live for seconds; Auto-Meta's own are not known to us.
DEFAULTS = {
    'algorithm': 'reptile',
    'datasource': 'omniglot',
    'logdir': 'logs/cell_search',
    'num_filters': 8,
    'meta_batch_size': 5,
    'update_batch_size': 1,
    'train_update_batch_size': 10,
    'train_query': 1,
    'test_query': 3,
    'num_updates': 5,
    'test_num_updates': 10,
    'test_tasks': 300,
}
# What is given by other flags here, or not done at all.
FOREIGN = (
    *('train', 'test_set', 'test_iter', 'resume', 'init_from', 'log', 'ensemble'),
    *('export_dir', 'export_embedding_dir', 'write_tasks', 'tasks_file'),
    *('metatrain_iterations', 'pretrain_iterations', 'iterations_per_call', 'strategy'),
    *('network', 'cell', 'conv', 'max_pool', 'train_on', 'tasks_at_once'),
    *('reptile_gradients', 'reptile_tail_shots', 'train_num_classes'),
)
OWN = (
    *('blocks', 'children', 'keep', 'child_iterations', 'child_tasks', 'random_every', 'minutes'),
    *('finalists', 'final_seeds', 'final_iterations'),
)
# What a search that goes on may have otherwise than it began.
FREE = ('logdir', 'data_dir', 'manual_dir', 'minutes', 'blocks', 'finalists', 'final_seeds')


def define_flags(flags) -> None:
    """Defines run_maml.py's flags, with defaults for children, and those of the search."""
    command_line.define_flags(flags)
    for name, value in DEFAULTS.items():
        flags.FLAGS.set_default(name, value)
    flags.DEFINE_integer('blocks', 3, 'blocks of the largest cells', 1, upper_bound=7)
    flags.DEFINE_integer(
        'children', 24, 'cells of each size that are tried, random ones among them', 2
    )
    flags.DEFINE_integer(
        'keep', 5, 'best cells of a size, which are extended; and best of all, tried twice', 1
    )
    flags.DEFINE_integer('child_iterations', 150, 'iterations of Reptile for each child', 1)
    flags.DEFINE_integer('child_tasks', 200, 'validation tasks that score a child', 2)
    flags.DEFINE_integer(
        'random_every', 4, 'one child in so many is a random cell, as a control', 2
    )
    flags.DEFINE_float(
        'minutes',
        None,
        'end after about so many minutes, the comparison at the end among them; the sizes share '
        'the time (default: when all children are tried)',
        lower_bound=0,
    )
    flags.DEFINE_integer(
        'finalists', 5, 'random cells that the best one is compared with at the end', 0
    )
    flags.DEFINE_integer('final_seeds', 3, 'seeds that each is trained from for this', 1)
    flags.DEFINE_integer(
        'final_iterations', None, 'iterations of this (default: --child_iterations)', 1
    )
    for name in OWN:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


def check(flags) -> None:
    """Raises UserError for a flag that is unusable, or means nothing to a search."""
    for name in FOREIGN:
        if flags[name].present:
            raise UserError(f'--{name}={flags[name].value}: means nothing to a search for a cell')
    if flags.algorithm != 'reptile':
        raise UserError(
            f'--algorithm={flags.algorithm}: the children of a search are trained by reptile'
        )
    command_line.check_values(flags)
    data.check_flags(flags, SOURCES)
    command_line.check_heeded(flags)


def texts(flags) -> dict[str, str]:
    """Returns {name: text} of all flags that are set, to be written and compared."""
    values = command_line.as_dict(flags) | {name: flags[name].value for name in OWN}
    return {name: str(value) for name, value in values.items() if value is not None}
