#!/usr/bin/env python3
"""Meta-trains and evaluates a few-shot learner, with the command line of the MAML reference.

    python run_maml.py --datasource=sinusoid --metatrain_iterations=70000 --norm=None
    --update_batch_size=10 python run_maml.py ... (the same) --train=False --test_set=True

The files under flags/ hold the papers' settings:

    python run_maml.py --flagfile=flags/maml/omniglot_5way_1shot.flags
"""

import sys

from maml_tf.terminal import quiet

quiet.import_tensorflow()

from absl import app, flags, logging  # noqa: E402  (TensorFlow is to be started quietly before anything imports it)

from maml_tf.commands import command_line  # noqa: E402
from maml_tf.commands.experiment import Experiment  # noqa: E402
from maml_tf.errors import UserError  # noqa: E402


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(
            f'unknown argument {argv[1]!r}: every option has the form --name=value'
        )
    logging.set_verbosity(logging.WARNING)
    try:
        command_line.check_spelling(flags.FLAGS)
        experiment = Experiment(flags.FLAGS)
        if flags.FLAGS.train:
            experiment.train()
        experiment.evaluate()
    except UserError as error:
        sys.exit(f'error: {error}')
    except OSError as error:  # a full disk, a directory that may not be written
        sys.exit(f'error: {error.filename or "--logdir"}: {error.strerror or error}')
    except KeyboardInterrupt:
        sys.exit('interrupted: the same command goes on from the last checkpoint')


def run():
    """The entry point of an installed package."""
    command_line.define_flags(flags)
    app.run(main)


if __name__ == '__main__':
    run()
