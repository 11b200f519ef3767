"""Runs `python -m maml_tf.contact_sheet`, see commands/contact_sheet.py."""

from maml_tf.commands.contact_sheet import main

if __name__ == '__main__':
    main()
