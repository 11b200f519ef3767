"""Runs `python -m maml_tf.results`, see commands/results.py."""

from maml_tf.commands.results import main

if __name__ == '__main__':
    main()
