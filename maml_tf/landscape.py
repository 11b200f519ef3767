"""Runs `python -m maml_tf.landscape`, see commands/views/landscape.py."""

from maml_tf.commands.views.landscape import main

if __name__ == '__main__':
    main()
