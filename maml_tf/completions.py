"""Runs `python -m maml_tf.completions`, see commands/views/completions.py."""

from maml_tf.terminal import quiet

if __name__ == '__main__':
    quiet.import_tensorflow()  # Quietly, before anything else imports it.
    from maml_tf.commands.views.completions import main

    main()
