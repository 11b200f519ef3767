"""The table of data sources: how each is loaded, and what it needs where a flag leaves it open."""

from maml_tf.datasets.rows import functions, images, landcover, simulations
from maml_tf.datasets.source import Source

SOURCES: dict[str, Source] = functions.ROWS | images.ROWS | landcover.ROWS | simulations.ROWS
