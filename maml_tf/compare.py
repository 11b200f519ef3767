"""Runs `python -m maml_tf.compare`, see commands/views/compare.py."""

from maml_tf.commands.views.compare import main

if __name__ == '__main__':
    main()
