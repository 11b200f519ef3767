"""Files that are made of a folder's files once, and made anew when those change.

The name of such a file holds what it was made of, so one that is out of date is never read.
"""

import contextlib
import hashlib
import json
import os
import pathlib
from typing import Any

FOLDER = '.maml_tf'  # in the folder that a cache is of
ENDINGS = ('.npy', '.json', '.counts')  # of a cached file, and of what lies beside it


def digest(content: Any) -> str:
    """Returns twelve letters and digits that tell JSON values apart."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def state(path: pathlib.Path) -> tuple[int, ...]:
    """Returns what changes when a file does; a link that leads nowhere has nothing."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_size, found.st_mtime_ns


def cached(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the path of a cached file: in the folder, else in the user's cache directory."""
    own = folder / FOLDER
    with contextlib.suppress(OSError):
        if (own / name).exists():
            return own / name
        own.mkdir(exist_ok=True)
        if os.access(own, os.W_OK):
            return own / name
    user = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser()
    place = f'{folder.resolve().name}-{digest(os.fspath(folder.resolve()))}'
    return user / 'maml_tf' / place / name


def remove_outdated(path: pathlib.Path, made_of: str) -> None:
    """Removes other cached files beside `path` whose names begin with `made_of` and a dash."""
    for old in path.parent.glob(f'{made_of}-*'):
        # Another process may be writing a file of another ending.
        if old.stem != path.stem and old.suffix in ENDINGS:
            old.unlink(missing_ok=True)
