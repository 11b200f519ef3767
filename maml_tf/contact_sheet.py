"""Runs `python -m maml_tf.contact_sheet`, see commands/views/contact_sheet.py."""

from maml_tf.terminal import quiet

if __name__ == '__main__':
    quiet.import_tensorflow()  # Quietly, before anything else imports it.
    from maml_tf.commands.views import contact_sheet

    __doc__ = contact_sheet.__doc__  # absl's --help prints it.
    contact_sheet.main()
