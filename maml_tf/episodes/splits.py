"""Class splits: plain lists, one class name per line, in the project's data/ directory and in its wheel."""
import importlib.resources
import pathlib


def data_directory():
    """Where the lists lie: inside an installed package, or beside it in a checkout."""
    installed = importlib.resources.files('maml_tf') / 'data'
    return installed if installed.is_dir() else pathlib.Path(__file__).parents[2] / 'data'


def class_names(name):
    """{'train', 'val', 'test': [class names]} of the published split `name`, for example 'omniglot_cbfinn'."""
    folder = data_directory() / name
    return {split: (folder / f'{split}.txt').read_text('utf-8').split('\n')[:-1] for split in ('train', 'val', 'test')}
