"""Runs `python -m maml_tf.adapt`, see commands/adapt.py."""

from maml_tf.commands.adapt import main

if __name__ == '__main__':
    main()
