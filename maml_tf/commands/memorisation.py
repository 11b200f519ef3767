"""Runs `python -m maml_tf.commands.memorisation`, see views/memorisation.py."""

from maml_tf.terminal import quiet

if __name__ == '__main__':
    quiet.import_tensorflow()  # Quietly, before anything else imports it.
    from maml_tf.commands.views.memorisation import main

    main()
