"""Runs `python -m maml_tf.landscape`, see commands/landscape.py."""

from maml_tf.commands.landscape import main

if __name__ == '__main__':
    main()
