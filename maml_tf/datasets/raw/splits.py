"""Published class splits: plain lists, one class name per line, in data/ and in the wheel."""

import importlib.resources
import importlib.resources.abc
import pathlib


def data_directory() -> importlib.resources.abc.Traversable:
    """Returns where the lists lie: inside an installed package, or beside it in a checkout."""
    installed = importlib.resources.files('maml_tf') / 'data'
    return installed if installed.is_dir() else pathlib.Path(__file__).parents[3] / 'data'


def class_names(name: str) -> dict[str, list[str]]:
    """Returns {'train', 'val', 'test': [class names]} of a published split.

    A split without validation classes (omniglot_lake) has no 'val'.

    Args:
      name: a folder of data/, for example 'omniglot_cbfinn'.
    """
    files = {split: data_directory() / name / f'{split}.txt' for split in ('train', 'val', 'test')}
    return {
        split: file.read_text('utf-8').split('\n')[:-1]
        for split, file in files.items()
        if file.is_file()
    }
