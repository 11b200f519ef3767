"""Lake's twenty one-shot tasks within an alphabet, as a list of tasks that --tasks_file takes.

    python -m maml_tf.commands.lake_runs all_runs.zip --output=lake_runs.jsonl
    python run_maml.py --datasource=omniglot --class_split=lake --tasks_file=lake_runs.jsonl ...

`all_runs.zip` is in the repository of Omniglot's authors, below python/one-shot-classification. Its
images are copies of the data set's, and are told by their pixels.
"""

import argparse
import io
import json
import pathlib
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from maml_tf.errors import ArgumentError, UserError
from maml_tf.serialisation.files import write_atomically
from maml_tf.terminal.exit import errors_as_one_line

LABELS = 'class_labels.txt'
WAY = 20


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; arguments: None: those of the program. Raises SystemExit."""
    parser = argparse.ArgumentParser(
        prog='python -m maml_tf.commands.lake_runs',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('zip', help='all_runs.zip')
    parser.add_argument('--data_dir', help='of TensorFlow Datasets, which holds Omniglot')
    parser.add_argument('--output', default='lake_runs.jsonl', help='(default: %(default)s)')
    given = parser.parse_args(arguments)
    with errors_as_one_line({}):
        from maml_tf.datasets.omniglot import Convention, omniglot

        convention = Convention(class_split='lake', image_size=105, resize='box')
        classes = omniglot(given.data_dir, convention).split('test')
        tasks = runs(given.zip, named(classes.images, classes.sizes, classes.class_names))
        header = {'split': 'test', 'source': "Lake's one-shot runs", 'tasks': len(tasks)}
        text = ''.join(json.dumps(line, ensure_ascii=False) + '\n' for line in (header, *tasks))
        write_atomically(pathlib.Path(given.output), text)
        print(f'{given.output}: {len(tasks)} tasks')


def named(
    images: np.typing.ArrayLike, sizes: Sequence[int], class_names: Sequence[str]
) -> dict[bytes, list[str]]:
    """Returns {pixels: the names of the drawings that have them}.

    Args:
      images: uint8 [drawings, side, side, 1], ink bright, class by class.
      sizes: drawings of each class.
      class_names: Alphabet/characterNN.
    """
    names = [f'{name}/{n}' for name, size in zip(class_names, sizes) for n in range(size)]
    found = {}
    for image, name in zip(np.asarray(images), names, strict=True):
        found.setdefault(_pixels(image[..., 0] > 127), []).append(name)
    return found


def runs(path: str | pathlib.Path, names: Mapping[bytes, Sequence[str]]) -> list[dict[str, list]]:
    """Returns the tasks of an all_runs.zip, as episodes/manifest.py writes them, in its order.

    Args:
      names: as `named` returns them.
    Raises:
      ArgumentError: it is no such file.
      UserError: a drawing is none of the data set's.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            lists = sorted(name for name in archive.namelist() if name.endswith(f'/{LABELS}'))
            found = [_run(path, archive, name, names) for name in lists]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ArgumentError('zip', path, f"not Lake's all_runs.zip ({error})") from error
    if not found:
        raise ArgumentError('zip', path, f"not Lake's all_runs.zip: it holds no run01/{LABELS}")
    return found


def _run(path, archive, listed, names):
    # `run01/test/item01.png run01/training/class17.png`; the runs may lie in a folder.
    folder = listed.removesuffix(LABELS).rstrip('/').rpartition('/')[0]
    inside = lambda name: f'{folder}/{name}' if folder else name
    pairs = [line.split() for line in archive.read(listed).decode().splitlines() if line.strip()]
    by_class = {shown: item for item, shown in pairs}
    if len(by_class) != WAY or len(pairs) != WAY:
        raise ValueError(f'{listed} does not list {WAY} pairs of a drawing and its class')
    support, query = [], []
    for shown in sorted(by_class):
        drawings = [_names_of(path, archive, inside(n), names) for n in (shown, by_class[shown])]
        # Two drawings may look alike; those of a class are of one character.
        alike = [
            (one, other)
            for one in drawings[0]
            for other in drawings[1]
            if one.rpartition('/')[0] == other.rpartition('/')[0]
        ]
        if not alike:
            raise UserError(
                f'{path}: {shown} is {drawings[0][0]}, and {by_class[shown]}, of the same class, '
                f'is {drawings[1][0]}'
            )
        support.append([alike[0][0]])
        query.append([alike[0][1]])
    classes = [one[0].rpartition('/')[0] for one in support]
    return {'classes': classes, 'turns': [], 'support': support, 'query': query}


def _names_of(path, archive, name, names):
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(archive.read(name))).convert('L'))
    found = names.get(_pixels(pixels <= 127))
    if found is None:
        raise UserError(f"{path}: {name} is no drawing of Omniglot's evaluation alphabets")
    return found


def _pixels(ink):
    """Returns what tells drawings apart; ink: bool [side, side]."""
    return np.packbits(ink).tobytes()


if __name__ == '__main__':
    main()
