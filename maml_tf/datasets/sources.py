"""The table of data sources: how each is loaded, and what it needs where a flag leaves it open."""

from maml_tf.datasets.rows import (
    functions,
    images,
    label_images,
    landcover,
    molecules,
    objects,
    simulations,
    videos,
)
from maml_tf.datasets.source import Source

_KINDS = (
    functions,
    images,
    label_images,
    landcover,
    molecules,
    objects,
    simulations,
    videos,
)
SOURCES: dict[str, Source] = {name: row for kind in _KINDS for name, row in kind.ROWS.items()}
