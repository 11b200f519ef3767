"""What a run is to write when it is done, checked before hours of training."""

import itertools
import pathlib

from maml_tf.commands.command_line import as_dict
from maml_tf.errors import ArgumentError, UserError
from maml_tf.saving.exports.saved_model import check_new_or_of
from maml_tf.serialisation.files import check_writable

EXPORTS = ('export_dir', 'export_embedding_dir')


def check_outputs(flags) -> None:
    """Raises UserError where the end could not be as asked for."""
    if flags.write_tasks:
        if pathlib.Path(flags.write_tasks).is_dir():
            raise ArgumentError('write_tasks', flags.write_tasks, 'a directory; name a file')
        check_writable(flags.write_tasks, 'write_tasks')
    exports = [name for name in EXPORTS if flags[name].value]
    for name in exports:
        check_new_or_of(as_dict(flags), name)
    check_apart(flags)
    if exports and flags.ensemble > 1:
        raise UserError(
            f'--{exports[0]}={flags[exports[0]].value}: exports one checkpoint; leave out '
            f'--ensemble={flags.ensemble}'
        )
    if flags.ensemble > 1 and flags.test_iter != -1:
        raise UserError(
            f'--test_iter={flags.test_iter}: picks one checkpoint; leave out '
            f'--ensemble={flags.ensemble}'
        )
    if flags.ensemble > 1 and flags.init_from and not flags.train:
        raise UserError(
            f'--init_from={flags.init_from}: names one checkpoint; leave out '
            f'--ensemble={flags.ensemble}'
        )


def check_apart(flags, run: pathlib.Path | None = None) -> None:
    """Raises UserError where one output would be in the way of another.

    run: the run directory, which is there first; None: not known yet.
    """
    outputs = [('logdir', run.absolute())] if run else []
    for name in ('write_tasks', *EXPORTS):  # in the order in which they are written
        if flags[name].value:
            outputs.append((name, pathlib.Path(flags[name].value).absolute()))
    for (first, before), (name, path) in itertools.combinations(outputs, 2):
        # A directory that must be new is there already, where something is in it.
        if path in (before, *before.parents):
            raise UserError(
                f'--{name}={flags[name].value}: is where --{first} writes; name another'
            )
        if first == 'write_tasks' and before in path.parents:
            raise UserError(f'--{name}={flags[name].value}: lies in the file of --write_tasks')
