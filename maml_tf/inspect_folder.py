"""Runs `python -m maml_tf.inspect_folder`, see commands/folders/inspect_folder.py."""

from maml_tf.commands.folders.inspect_folder import main

if __name__ == '__main__':
    main()
