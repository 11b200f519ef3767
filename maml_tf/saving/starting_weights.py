"""The weights that --init_from names, and which method learnt them."""

from maml_tf.errors import UserError
from maml_tf.learner import Learner
from maml_tf.saving import records
from maml_tf.saving.checkpoint_files import flagfile_of
from maml_tf.saving.init_from import load_weights


def start_from(flags, learner: Learner) -> str:
    """Loads the weights that training starts from, and returns where they are from, in words.

    Raises: UserError where they cannot be loaded.
    """
    load_weights(learner, flags.init_from)
    others = _of_another_method(flags)
    return f'the weights of {flags.init_from}' + (f', which {others} learnt' if others else '')


def load_to_evaluate(flags, learner: Learner) -> str:
    """Loads the weights that are evaluated, and returns where they are from, in words.

    Raises: UserError where they cannot be loaded, or another method has learnt them: results and
      SavedModels would be called by the wrong one.
    """
    if others := _of_another_method(flags):
        raise UserError(
            f'--init_from={flags.init_from}: a run of {others}, and this is '
            f'--algorithm={flags.algorithm}. Evaluate it as what it is, or train on from it'
        )
    load_weights(learner, flags.init_from, for_tasks_alone=True)
    return f'weights of {flags.init_from}'


def _of_another_method(flags) -> str | None:
    """Returns '--algorithm=reptile' where the weights lie in the directory of such a run."""
    if (flagfile := flagfile_of(flags.init_from)) is None:
        return None
    then = records.flags(flagfile).get('algorithm', flags.algorithm)
    return None if then == flags.algorithm else f'--algorithm={then}'
