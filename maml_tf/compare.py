"""Runs `python -m maml_tf.compare`, see commands/compare.py."""

from maml_tf.commands.compare import main

if __name__ == '__main__':
    main()
