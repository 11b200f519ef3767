"""Runs `python -m maml_tf.memorisation`, see commands/views/memorisation.py."""

from maml_tf.commands.views.memorisation import main

if __name__ == '__main__':
    main()
