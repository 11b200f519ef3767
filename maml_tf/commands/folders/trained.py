"""A trained learner of image tasks, loaded from a run directory or a SavedModel."""

import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import absl.flags
import tensorflow as tf

from maml_tf import algorithms
from maml_tf.commands import command_line
from maml_tf.commands.experiment import problem_of
from maml_tf.datasets.raw.image_files import Preparation
from maml_tf.datasets.sources import SOURCES
from maml_tf.errors import ArgumentError, UserError
from maml_tf.objectives.pixels import Segmentation
from maml_tf.saving import records
from maml_tf.saving.checkpoint_files import flagfile_of
from maml_tf.saving.checkpoints import checkpoints
from maml_tf.saving.exports import model_card
from maml_tf.saving.exports.saved_model import read_description
from maml_tf.saving.init_from import load_weights
from maml_tf.terminal.text import described, shortened, shown

LABEL_IMAGES = 5  # axes of a task's labels where they are images


class Trained(NamedTuple):
    """A trained learner of image tasks, whatever it was loaded from.

    adapt: (support_x [1, n, side, side, channels], support_y [1, n, way]) -> the task state.
    predict_query: (state, query_x [1, m, side, side, channels]) -> {'outputs', 'probabilities':
      [1, m, way]}.
    way: the number of outputs, where the learner fixes it; None: any number of classes.
    steps: inner steps of `adapt`; None: it takes none.
    transductive: whether a prediction depends on the other images of the call.
    xla: whether `predict_query` is faster compiled.
    preparation: how an image file becomes what it was trained on; None: it labels pixels.
    inputs: in words, what the pixels are.
    about: {name: JSON value}, what the model card says of it (method, data, results ...).
    """

    adapt: Callable[..., dict[str, tf.Tensor]]
    predict_query: Callable[..., dict[str, tf.Tensor]]
    input_shape: tuple[int, ...]
    way: int | None
    steps: int | None
    transductive: bool
    xla: bool
    preparation: Preparation | None
    inputs: str
    about: dict[str, Any]


def load(path: pathlib.Path | str, steps: int | None = None, pixels: bool = False) -> Trained:
    """Loads the learner in `path`: a SavedModel that --export_dir wrote, or a run directory.

    A run directory is enough by itself: no data is looked for. Its learner is not transductive,
    whatever it was evaluated as: each image is classified beside the support set alone.

    Args:
      steps: inner steps; None: as many as the evaluation takes. In a SavedModel they are fixed.
      pixels: whether a learner is wanted that labels every pixel: its labels are label images, its
        inputs need be no square, and it has no preparation.
    Raises: ArgumentError where it is neither, or not a learner of image classes (or of pixels).
    """
    path = pathlib.Path(path)
    if (path / 'saved_model.pb').is_file():
        return _from_saved_model(path, steps, pixels)
    if flagfile := flagfile_of(path):
        return _from_run(path, flagfile, steps, pixels)
    reason = (
        'neither a SavedModel of --export_dir (no saved_model.pb in it) nor a run directory (no '
        'flags.txt)'
    )
    raise ArgumentError('init_from', path, reason)


def _from_saved_model(path: pathlib.Path, steps: int | None, pixels: bool) -> Trained:
    try:
        description = read_description(path)
        input_shape, its_steps = tuple(description['input_shape']), description.get('inner_steps')
        model = tf.saved_model.load(str(path))
        adapt, predict = (model.signatures[name] for name in ('adapt', 'predict_query'))
        # Models of earlier versions have none.
        predict_one = dict(model.signatures).get('predict_one', predict)
        _check_description(description, adapt)
    except Exception as error:  # TensorFlow raises many types on damaged files.
        reason = (
            'no learner that --export_dir of run_maml.py wrote, with maml_tf.json and signatures '
            f'adapt and predict_query ({described(error)})'
        )
        raise ArgumentError('init_from', path, reason) from error
    if 'probabilities' not in predict.structured_outputs:
        reason = 'a regression learner; images are classified by one trained on images'
        raise ArgumentError('init_from', path, reason)
    label = adapt.structured_input_signature[1]['support_y'].shape
    _check_kind(label.rank == LABEL_IMAGES, pixels, path)
    if steps not in (None, its_steps):
        takes, other = 'no inner steps', 'leave it out'
        if its_steps is not None:
            takes, other = its_steps, 'name the run directory for another number'
        raise ArgumentError(
            'steps', steps, f'the SavedModel in --init_from={path} takes {takes}; {other}'
        )
    if not pixels:
        _check_shape(input_shape, path)

    # The default value keeps the model alive, and so its variables: signatures do not.
    def predict_query(state, query_x, model=model):
        signature = predict_one if query_x.shape[:2] == (1, 1) else predict
        return signature(query_x=query_x, **state)

    return Trained(
        adapt=lambda support_x, support_y: adapt(support_x=support_x, support_y=support_y),
        predict_query=predict_query,
        input_shape=input_shape,
        way=label[-1],
        steps=its_steps,
        transductive=description.get('transductive', True),
        xla=False,
        preparation=None if pixels else _preparation(description, path),
        inputs=description.get('inputs', 'pixels from 0 to 1'),
        about={name: description[name] for name in model_card.ABOUT if name in description},
    )


def _from_run(
    path: pathlib.Path, flagfile: pathlib.Path, steps: int | None, pixels: bool
) -> Trained:
    flags = _flags(flagfile)
    source = SOURCES[flags.datasource]
    if not source.classification:
        reason = (
            f'a regression learner ({flags.datasource}); images are classified by one trained on '
            'images'
        )
        raise ArgumentError('init_from', path, reason)
    _check_kind(isinstance(source.objective, Segmentation), pixels, path)
    flags.transductive = False
    flags.tasks_file = None  # What it was scored on may be gone.
    problem = problem_of(flags)
    learner = algorithms.registry()[flags.algorithm].from_flags(flags, problem)
    if not pixels:
        _check_shape(problem.input_shape, path)
    load_weights(learner, path, for_tasks_alone=True)
    if steps is not None and not learner.takes_steps:
        raise ArgumentError(
            'steps', steps, f'means nothing to --algorithm={flags.algorithm}, which takes none'
        )
    if learner.takes_steps and steps is None:
        steps = learner.evaluation_steps
    return Trained(
        adapt=tf.function(lambda x, y: learner.adapt(x, y, steps), autograph=False),
        predict_query=lambda state, query_x: learner.objective.predictions(
            learner.predict_query(state, query_x)
        ),
        input_shape=problem.input_shape,
        way=problem.output_dim if learner.fixed_way else None,
        steps=steps,
        transductive=False,
        xla=learner.xla,
        preparation=None if pixels else source.preparation(flags),
        inputs=source.inputs(flags),
        about=model_card.of_learner(learner)
        | model_card.of_run_directory(flagfile.parent, flags, _iteration(path)),
    )


def _iteration(path: pathlib.Path) -> int | None:
    """The iteration of the checkpoint that a path names; None: its name does not say."""
    if path.is_dir():
        return max(checkpoints(path))
    number = re.search(r'-(\d+)$', path.name)
    return int(number[1]) if number else None


def _check_description(description: Mapping[str, Any], adapt: Any) -> None:
    """Raises ValueError where maml_tf.json is of another model, or says what makes no sense."""
    given = adapt.structured_input_signature[1]['support_x'].shape.as_list()[2:]
    if description['input_shape'] != given:
        raise ValueError(
            f'input_shape is {description["input_shape"]}, and the model takes {given}'
        )
    for name, kind in (
        *(('inner_steps', int | None), ('transductive', bool)),
        *(('inputs', str), ('flags', dict)),
    ):
        if name in description and not isinstance(description[name], kind):
            raise ValueError(f'{name} is {shortened(description[name])}')


def _preparation(description: Mapping[str, Any], path: pathlib.Path) -> Preparation:
    """The Preparation that a SavedModel names; those of earlier versions name none."""
    if 'preparation' in description:
        try:
            preparation = Preparation.of(description['preparation'])
            made = [preparation.side, preparation.side, preparation.channels]
            if made != description['input_shape'] or not isinstance(preparation.drawn, int | None):
                raise ValueError(f'it makes {made}')
            return preparation
        except (TypeError, AttributeError, ValueError) as error:
            reason = f'its maml_tf.json names a preparation that is none ({shown(error)})'
            raise ArgumentError('init_from', path, reason) from error
    side, _, channels = description['input_shape']
    flags = description.get('flags', {})
    drawings = flags.get('datasource', 'omniglot') == 'omniglot'
    return Preparation(side, channels, ink=flags.get('ink', 'bright') if drawings else None)


def _flags(flagfile: pathlib.Path) -> absl.flags.FlagValues:
    """The flag values of a run's flags.txt."""
    records.flags(flagfile)  # What is no flag is said line by line.
    try:
        flags = command_line.parsed(f'--flagfile={flagfile}')
        command_line.check(flags)
        return flags
    except (absl.flags.Error, UserError) as error:
        raise UserError(
            f'{flagfile}: {shortened(error)}; it was written by another version of this package'
        ) from error


def _check_kind(labels_pixels: bool, wanted: bool, path: pathlib.Path) -> None:
    """Raises ArgumentError for a learner of pixels where one of images is wanted, or otherwise."""
    if labels_pixels and not wanted:
        reason = 'labels every pixel of an image; python -m maml_tf.map_region makes maps by it'
        raise ArgumentError('init_from', path, reason)
    if wanted and not labels_pixels:
        reason = 'classifies whole images (python -m maml_tf.adapt); maps need a learner of pixels'
        raise ArgumentError('init_from', path, reason)


def _check_shape(shape: Sequence[int], path: pathlib.Path) -> None:
    if len(shape) != 3 or shape[0] != shape[1] or shape[2] not in (1, 3):
        reason = (
            f'takes inputs of shape {list(shape)}; square images of 1 or 3 channels can be '
            'classified'
        )
        raise ArgumentError('init_from', path, reason)
