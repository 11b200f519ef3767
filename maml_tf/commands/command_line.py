"""The flags as a whole: asked of each module, shown by --help, checked, written to be replayed."""

import functools
import math
import sys
from collections.abc import Mapping
from typing import Any

import absl.flags

from maml_tf import algorithms, inner_loop
from maml_tf.datasets import external
from maml_tf.datasets import flags as data
from maml_tf.datasets.sources import SOURCES
from maml_tf.errors import UserError
from maml_tf.evaluation import evaluate
from maml_tf.networks import flags as networks
from maml_tf.rl import flags as rl
from maml_tf.saving import run_directory
from maml_tf.saving.exports import export
from maml_tf.training import outer_optimizers, shares, train
from maml_tf.training.distribution import distribute

OWNERS = (train, run_directory, evaluate, export, distribute, rl)
# Modules whose flags mean something to some methods only; see Learner.heeds.
OF_SOME_METHODS = (inner_loop, networks, outer_optimizers, shares, external)
HEEDED_BY_SOME = ('pretrain_iterations', 'baseline')
# The flag of an argument, where they have different names.
FLAG_OF = {
    'way': 'num_classes',
    'shot': 'update_batch_size',
    'query': 'test_query',
    'least_way': 'train_way_from',
    'least_shot': 'train_shot_from',
    'least_query': 'train_query_from',
    'inner_lr': 'update_lr',
    'inner_steps': 'num_updates',
    'filters': 'num_filters',
    'path': 'export_dir',
    'split': 'test_set',
    'head': 'metaoptnet_head',
    'smoothing': 'metaoptnet_label_smoothing',
    'iteration': 'test_iter',
    'l2': 'siamese_l2',
    'joined': 'bias_transformation_size',
    'film': 'cavia_context',
    'tail_shots': 'reptile_tail_shots',
    'max_kl': 'rl_max_kl',
    'shrink': 'rl_shrink',
    'on': 'mr_maml_on',
    'beta': 'mr_maml_beta',
    'raw_scale': 'mr_maml_scale_from',
    'objects': 'task_count',
    'messages': 'channel_messages',
    'rates': 'meta_sgd_rate_from, --meta_sgd_rate_to',
    'meta_learner': 'deml_learner',
    'weight': 'deml_weight',
}
LARGEST = 2**31 - 1  # whole number; products of two of them are counted in 64 bits
PATHS = (
    *('data_dir', 'manual_dir', 'external_dir', 'split_file', 'cell', 'logdir', 'init_from'),
    *('export_dir', 'export_embedding_dir', 'write_tasks', 'tasks_file'),
)


def define_flags(flags) -> None:
    """Defines every flag of this program.

    Importing the package defines none: the names are common words.
    """
    before = set(flags.FLAGS)
    flags.DEFINE_enum('algorithm', 'maml', sorted(algorithms.registry()), 'which learner to train')
    flags.DEFINE_integer(
        'seed',
        0,
        'seed of the initial weights and of the training tasks',
        lower_bound=0,
        upper_bound=2**32 - 1,  # Keras'.
    )
    data.define_flags(flags, SOURCES)
    for module in OWNERS:
        module.define_flags(flags)
    _OF_SOME[:] = HEEDED_BY_SOME
    for module in OF_SOME_METHODS:
        known = set(flags.FLAGS)
        module.define_flags(flags)
        _OF_SOME.extend(sorted(set(flags.FLAGS) - known))
    for method, module in algorithms.modules().items():
        known = set(flags.FLAGS)
        if define := vars(module).get('define_flags'):  # A method may have none of its own.
            define(flags)
        _OF_METHOD[method] = sorted(set(flags.FLAGS) - known)
    _OURS[:] = sorted(set(flags.FLAGS) - before)
    # --help shows the key flags of the program that runs, whatever module defined them.
    for name in _OURS:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


_OURS: list[str] = []
_OF_SOME: list[str] = []
_OF_METHOD: dict[str, list[str]] = {}


class _Apart:
    """absl.flags with values of its own."""

    def __init__(self):
        self.FLAGS = absl.flags.FlagValues()

    def __getattr__(self, name):
        return functools.partial(getattr(absl.flags, name), flag_values=self.FLAGS)


def parsed(*arguments: str) -> absl.flags.FlagValues:
    """Returns the values of a command line, apart from the flags of the program that asks.

    Raises: absl.flags.Error.
    """
    flags = _Apart()
    define_flags(flags)
    flags.FLAGS(['run_maml.py', *arguments])
    return flags.FLAGS


def as_dict(flags) -> dict[str, Any]:
    """Returns {name: value} of this program's flags."""
    return {name: flags[name].value for name in _OURS}


def of_all_workers(flags) -> dict[str, Any]:
    """Returns {name: value} of the flags that are the same for all workers of a cluster.

    Of places on their disks it is whether there is one; whether to resume is the chief's choice.
    """
    values = {name: value for name, value in as_dict(flags).items() if name != 'resume'}
    return {name: value and '...' if name in PATHS else value for name, value in values.items()}


def as_flagfile(flags) -> str:
    """Returns this program's flags, one per line, to be replayed by --flagfile.

    Those of TensorFlow and absl are not among them.
    """
    set_ones = {name: value for name, value in as_dict(flags).items() if value is not None}
    return ''.join(f'--{name}={value}\n' for name, value in set_ones.items())


def flagfile_of(arguments: list[str]) -> str | None:
    """Returns the path that a command line's --flagfile names; None: there is none."""
    for number, argument in enumerate(arguments):
        name, _, value = argument.lstrip('-').partition('=')
        if name == 'flagfile' and argument.startswith('-'):
            return value or ''.join(arguments[number + 1 : number + 2])
    return None


def check(flags) -> None:
    """Raises UserError for a flag that is misspelt, unusable, or means nothing here."""
    check_values(flags)
    data.check_flags(flags, SOURCES)
    networks.check_flags(
        flags,
        algorithms.registry()[flags.algorithm].own_encoder,
        SOURCES[flags.datasource].input_shape(flags),
    )
    outer_optimizers.check_flags(flags)
    check_heeded(flags)


def check_values(flags) -> None:
    """Raises UserError for a flag whose value nothing could be made of."""
    # absl's own would swallow a mistyped --logdir in silence.
    if 'log_dir' in flags and flags['log_dir'].present:
        raise UserError(f'--log_dir={flags.log_dir}: the run directory is named by --logdir')
    for name, value in as_dict(flags).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f'--{name}={value}: a finite number')
        if type(value) is int and value > LARGEST and name != 'seed':  # It has its own bound.
            raise UserError(f'--{name}={value}: at most {LARGEST}')
        if name in PATHS and value == '':
            raise UserError(f'--{name}=: an empty path; name one, or leave the flag out')
    for name, least in (('train_update_batch_size', 1), ('train_update_lr', 0)):
        value = flags[name].value
        if value < least and value != -1:
            raise UserError(f'--{name}={value}: at least {least}, or -1 for that of evaluation')


def check_heeded(flags) -> None:
    """Raises UserError for a flag that is set and means nothing to the method."""
    learner = algorithms.registry()[flags.algorithm]
    learner.for_objective(SOURCES[flags.datasource].objective).check_flags(flags)
    heeds = learner.heeds
    unheeded = [name for name in _OF_SOME if name not in heeds]
    for method, names in _OF_METHOD.items():
        if method != flags.algorithm:
            unheeded += names
    for name in unheeded:
        if flags[name].value != flags[name].default:
            raise UserError(
                f'--{name}={flags[name].value}: means nothing to --algorithm={flags.algorithm}'
            )


def _value(flag: absl.flags.Flag, text: str) -> Any:
    """Returns what a text says, .1 or 0.1; the text itself where it says nothing to the flag."""
    try:
        return flag.parser.parse(text)
    except ValueError:
        return text


def of_other_methods(algorithm: str) -> set[str]:
    """Returns the names of the flags that belong to other methods, one each."""
    return {name for method, names in _OF_METHOD.items() if method != algorithm for name in names}


def of_the_run(flags) -> list[str]:
    """Returns the names of the flags that belong to the chosen method alone and act in training."""
    acts_later = algorithms.registry()[flags.algorithm].evaluation_flags
    return [name for name in _OF_METHOD.get(flags.algorithm, ()) if name not in acts_later]


def check_same_model(flags, recorded: Mapping[str, str]) -> None:
    """Raises UserError, naming the flag, where a run's flags describe another network.

    recorded: {name: text} of the run's flags.txt; {} where there is none.
    """
    learner = algorithms.registry()[flags.algorithm]
    fixed = ['num_classes'] if learner.fixed_way else []
    for name in (
        *('algorithm', 'datasource', *fixed, 'baseline', 'norm', 'num_filters', 'conv'),
        *('max_pool', 'image_size', 'bands', 'encoder', 'dropout', 'network', 'cells'),
        *('featurise', 'most_atoms', 'external', 'external_labels'),
        *of_the_run(flags),
    ):
        now = flags[name].value
        # A run may be older than a flag; then it did what the default does.
        then = flags[name].default
        if name in recorded:
            then = _value(flags[name], recorded[name])
        if recorded and then != now:
            raise UserError(
                f'--{name}={now}: the run in --logdir={flags.logdir} has '
                f'--{name}={then}. '
                'Name another --logdir, or give the flag as it was'
            )
