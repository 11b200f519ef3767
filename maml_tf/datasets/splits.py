"""Class splits: plain lists, one class name per line, in the project's data/ directory and in its
wheel."""

import importlib.resources
import pathlib


def data_directory():
    """Where the lists lie: inside an installed package, or beside it in a checkout."""
    installed = importlib.resources.files('maml_tf') / 'data'
    return installed if installed.is_dir() else pathlib.Path(__file__).parents[2] / 'data'


def class_names(name):
    """{'train', 'val', 'test': [class names]} of the published split `name`, for example
    'omniglot_cbfinn'.

    A split without validation classes (omniglot_lake) has no 'val'.
    """
    files = {split: data_directory() / name / f'{split}.txt' for split in ('train', 'val', 'test')}
    return {
        split: file.read_text('utf-8').split('\n')[:-1]
        for split, file in files.items()
        if file.is_file()
    }
