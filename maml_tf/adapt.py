"""Runs `python -m maml_tf.adapt`, see commands/folders/adapt.py."""

from maml_tf.commands.folders.adapt import main

if __name__ == '__main__':
    main()
