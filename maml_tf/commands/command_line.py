"""The flags as a whole: asked of each module, shown by --help, written down to be replayed."""

import functools
import sys

import absl.flags

from maml_tf import algorithms, inner_loop
from maml_tf.datasets import sources
from maml_tf.errors import UserError
from maml_tf.evaluation import evaluate
from maml_tf.networks import reference as networks
from maml_tf.saving import export, run_directory
from maml_tf.training import distribute, shares, train

OWNERS = (sources, train, inner_loop, networks, run_directory, evaluate, export, distribute, shares)


def define_flags(flags):
    """Defines every flag of this program. Importing the package defines none: the names are common
    words."""
    names = sorted(algorithms.registry())
    before = set(flags.FLAGS)
    flags.DEFINE_enum('algorithm', 'maml', names, 'which learner to train')
    flags.DEFINE_integer(
        'seed', 0, 'seed of the initial weights and of the training tasks', lower_bound=0
    )
    for module in (*OWNERS, *algorithms.modules().values()):
        if hasattr(module, 'define_flags'):
            module.define_flags(flags)
    _OURS[:] = sorted(set(flags.FLAGS) - before)
    for name in (
        _OURS
    ):  # --help shows the key flags of the program that runs, whatever module defined them.
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


class _Apart:
    """absl.flags with values of its own."""

    def __init__(self):
        self.FLAGS = absl.flags.FlagValues()

    def __getattr__(self, name):
        return functools.partial(getattr(absl.flags, name), flag_values=self.FLAGS)


def parsed(*arguments):
    """The values of a command line, apart from the flags of the program that asks. Raises
    absl.flags.Error."""
    flags = _Apart()
    define_flags(flags)
    flags.FLAGS(['run_maml.py', *arguments])
    return flags.FLAGS


_OURS = []


def as_dict(flags):
    """{name: value} of this program's flags."""
    return {name: flags[name].value for name in _OURS}


def as_flagfile(flags):
    """This program's flags, not TensorFlow's or absl's, one per line, to be replayed by
    --flagfile."""
    return ''.join(
        f'--{name}={value}\n' for name, value in as_dict(flags).items() if value is not None
    )


def check_spelling(flags):
    """Raises UserError for absl's --log_dir, which would swallow a mistyped --logdir in silence."""
    if flags['log_dir'].present:
        raise UserError(f'--log_dir={flags.log_dir}: the run directory is named by --logdir')


def check_heeded(flags):
    """Raises UserError for a flag that is set and means nothing to the algorithm."""
    registry = algorithms.registry()
    others = [
        name
        for name in flags
        if name.split('_')[0] in registry and not name.startswith(f'{flags.algorithm}_')
    ]
    for name in (*registry[flags.algorithm].unheeded, *others):
        if flags[name].value != flags[name].default:
            raise UserError(
                f'--{name}={flags[name].value}: means nothing to --algorithm={flags.algorithm}'
            )


def check_same_model(flags, recorded):
    """Raises UserError, naming the flag, where a run's flags.txt ({name: text}) describes another
    network."""
    fixed = ['num_classes'] if algorithms.registry()[flags.algorithm].fixed_way else []
    for name in (
        'algorithm',
        'datasource',
        *fixed,
        'baseline',
        'norm',
        'num_filters',
        'conv',
        'max_pool',
        'image_size',
        *run_directory.private_flags(flags),
    ):
        now = flags[name].value if flags[name].value is None else str(flags[name].value)
        if recorded and recorded.get(name) != now:
            raise UserError(
                f'--{name}={now}: the run in --logdir={flags.logdir} has '
                f'--{name}={recorded.get(name)}. '
                'Name another --logdir, or give the flag as it was'
            )
