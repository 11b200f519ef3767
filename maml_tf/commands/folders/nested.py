"""Folders inside class folders that look like the classes themselves, and how to train on them."""

import collections
import pathlib
import shlex
from collections.abc import Iterator, Mapping

from maml_tf.commands.folders.rows import row
from maml_tf.datasets.raw.listing import Listing
from maml_tf.terminal.text import counted, listed, shown


def likely_classes(listings: Mapping[str, Listing]) -> list[pathlib.Path]:
    """Returns the folders inside class folders that look like classes, sorted; [] where none do.

    They are all folders that hold images themselves. They look like classes where none of them is
    in another, they are more than the folders that count as classes, and no two are named alike
    (photos/cat/2023 and photos/dog/2023 are parts of classes).
    """
    holders = set()
    outer = 0
    for listing in listings.values():
        filled = [paths for paths in listing.classes.values() if paths]
        outer += len(filled)
        holders |= {path.parent for paths in filled for path in paths}
    names = {holder.name for holder in holders}
    apart = not any(set(holder.parents) & holders for holder in holders)
    if apart and len(holders) > outer and len(names) == len(holders):
        return sorted(holders)
    return []


def proposal(folder: pathlib.Path, listings: Mapping[str, Listing]) -> Iterator[str]:
    """Yields which inner folders look like the classes, and the commands that take them as such.

    listings: what listing.list_splits found in the folder.
    """
    inner = likely_classes(listings)
    if not inner:
        return
    names = listed([path.name for path in inner])
    yield row('classes?', f'{counted(len(inner), "folder")} inside look like the classes: {names}')
    yield ''
    yield 'To train on these as classes:'
    yield ''
    parents = {path.parent for path in inner}
    if len(parents) == 1 and '' in listings:
        yield f'    python -m maml_tf.inspect_folder {_quoted(*parents)}'
    else:
        made = pathlib.Path(f'{folder.resolve().name}-classes')
        for part in listings:
            own = [path for path in inner if not part or folder / part in path.parents]
            links = ' '.join(_patterns(own))
            target = _quoted(made / part)
            yield f'    mkdir -p {target} && ln -s {links} {target}/'
        yield f'    python -m maml_tf.inspect_folder {_quoted(made)}'
    yield ''


def _patterns(inner: list[pathlib.Path]) -> Iterator[str]:
    """Yields what a shell expands to these folders: parent/*/ where that is all of them."""
    by_parent = collections.defaultdict(list)
    for path in inner:
        by_parent[path.parent.resolve()].append(path)
    for parent, paths in sorted(by_parent.items()):
        visible = [one for one in parent.iterdir() if one.is_dir() and one.name[0] != '.']
        if len(visible) == len(paths):
            yield f'{_quoted(parent)}/*/'
        else:
            yield from (_quoted(path.resolve()) for path in paths)


def _quoted(path: pathlib.Path) -> str:
    return shown(shlex.quote(str(path)))
