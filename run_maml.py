#!/usr/bin/env python3
"""Meta-trains and evaluates a few-shot learner, with the command line of the MAML reference.

    python run_maml.py --datasource=sinusoid --metatrain_iterations=70000 --norm=None \
        --update_batch_size=10
    python run_maml.py ... (the same) --train=False --test_set=True

The files under flags/ hold the papers' settings:

    python run_maml.py --flagfile=flags/maml/omniglot_5way_1shot.flags
"""

from maml_tf.terminal import quiet

quiet.import_tensorflow()

from absl import app, flags, logging  # noqa: E402  (TensorFlow is to be started quietly first)

from maml_tf.commands import command_line  # noqa: E402
from maml_tf.commands.experiment import build  # noqa: E402
from maml_tf.commands.policies.evaluation import run_policy_evaluation, simulates  # noqa: E402
from maml_tf.commands.run_evaluation import run_evaluation  # noqa: E402
from maml_tf.commands.run_training import run_training  # noqa: E402
from maml_tf.terminal.exit import errors_as_one_line  # noqa: E402
from maml_tf.training.distribution.together import one_of_several  # noqa: E402


@errors_as_one_line(
    command_line.FLAG_OF,
    file='--logdir',
    interrupted='interrupted: the same command goes on from the last checkpoint',
)
def main(argv: list[str]) -> None:
    """Trains and evaluates what the flags describe."""
    if len(argv) > 1:
        raise app.UsageError(
            f'unknown argument {argv[1]!r}: every option has the form --name=value'
        )
    logging.set_verbosity(logging.WARNING)
    with one_of_several(flags.FLAGS.strategy):
        experiment = build(flags.FLAGS)
        evaluate = run_policy_evaluation if simulates(experiment) else run_evaluation
        if not flags.FLAGS.train:
            evaluate(experiment)
            return
        with experiment.directory.held():
            run_training(experiment)
            evaluate(experiment)


def run() -> None:
    """Runs the program, as the entry point of an installed package."""
    command_line.define_flags(flags)
    app.run(main)


if __name__ == '__main__':
    run()
