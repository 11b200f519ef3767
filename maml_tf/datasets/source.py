"""What the command line knows of a data source: a row of the table of sources."""

import dataclasses
from collections.abc import Callable
from typing import Any

from maml_tf.datasets.raw.image_files import Preparation
from maml_tf.episodes.source import EpisodeSource
from maml_tf.networks.network import Network
from maml_tf.objectives.objective import Objective


@dataclasses.dataclass(frozen=True)
class Source:
    """Describes a data source to the command line; the defaults are the reference's.

    load: flags -> the source itself.
    input_shape: flags -> the shape of one input, known without any data.
    network: (flags, input_shape, output_dim, **changes) -> the network; changes are of single
      constructor arguments, those that the network does not have are passed over.
    objective: of its labels.
    print_every: iterations between lines on the screen.
    iterations_per_call: small enough for a lively progress bar, large enough to hide Python.
    output_dim: of regression; None: classification, where it is the way.
    validate_every: iterations between validations; None: endless tasks, nothing to overfit.
    way: classes of every task; None: as --num_classes says.
    train_query: query examples per class in training; None: as many as support examples.
    test_query: the same of validation and test.
    clip: bound of every entry of the meta-gradient.
    licence: of the data, in words.
    inputs: flags -> what an exported model is to be fed, in words.
    preparation: flags -> how an image file becomes an input; None: inputs are no images of classes.
    background: flags -> the value of pixels where nothing is drawn.
    reads: which flags that mean something to some sources only it heeds.
    save_every: iterations between checkpoints.
    inner_lr, evaluation_steps: of the inner loop; None: the method's.
    algorithms: the methods that can learn its tasks; None: all.
    foreign: flags that mean something to its methods elsewhere, and nothing here.
    """

    load: Callable[[Any], EpisodeSource]
    input_shape: Callable[[Any], tuple[int, ...]]
    network: Callable[..., Network]
    objective: Objective
    print_every: int
    iterations_per_call: int
    output_dim: int | None = None
    validate_every: int | None = None
    way: int | None = None
    train_query: int | None = None
    test_query: int | None = None
    clip: float | None = None
    licence: str = 'none: they are computed'
    inputs: Callable[[Any], str] = lambda flags: 'images, pixels from 0 to 1'
    preparation: Callable[[Any], Preparation] | None = None
    background: Callable[[Any], float] = lambda flags: 0.0
    reads: tuple[str, ...] = ()
    save_every: int = 1000
    inner_lr: float | None = None
    evaluation_steps: int | None = None
    algorithms: tuple[str, ...] | None = None
    foreign: tuple[str, ...] = ()

    @property
    def classification(self) -> bool:
        """Says whether its labels are classes."""
        return self.objective.classification
