"""A labelled set beside the tasks: the training classes of a second data source."""

import re
from typing import Any

from maml_tf.datasets.sources import SOURCES
from maml_tf.episodes.images import ImageClasses
from maml_tf.episodes.source import EpisodeSource
from maml_tf.errors import ArgumentError, UserError
from maml_tf.terminal.text import listed

FLAGS = ('external', 'external_dir', 'external_labels')
# Flags that would mean another thing to the second source than to the first.
_OF_DIRECTORY = {'num_classes': 2, 'update_batch_size': 1}
_PLACES = ('data_dir', 'manual_dir')
# Both are of ImageNet's classes, whose ids they know each other by; not every file has ids.
_OF_IMAGENET, _WORDNET = {'miniimagenet', 'tieredimagenet'}, re.compile(r'n\d{8}')


def beside_external(flags, source: EpisodeSource) -> EpisodeSource:
    """Returns the source with what `--external` names beside its tasks; without, the source itself.

    What is drawn beside tasks are training classes alone, so those of one and the same source are
    none of its validation or test classes. Of two sources the names of the classes are compared,
    in small letters, without punctuation and numbers before them. A class that has two names goes
    unnoticed.

    Raises: UserError where the second source cannot be loaded, has images of another shape, or
      shares a class with those that this run is validated or tested on.
    """
    if flags.external is None:
        return source
    own = flags.external == flags.datasource and flags.external_dir in (None, flags.data_dir)
    external = source if own else _load(flags, source)
    try:
        beside = source.beside(external, flags.external_labels == 'groups')
    except ArgumentError as error:
        value = flags.external if error.value is None else error.value
        raise ArgumentError(error.argument, value, error.reason) from error
    if not own:
        _check_apart(flags, source, external)
    return beside


def _load(flags, source: ImageClasses) -> ImageClasses:
    """Loads the second source as if it were alone, in the first one's size."""
    row = SOURCES[flags.external]
    instead = {name: flags[name].value for name in _PLACES} | _OF_DIRECTORY
    if flags.external_dir:
        instead['data_dir'] = flags.external_dir
    if 'image_size' in row.reads:
        instead['image_size'] = source.input_shape[0]
    try:
        return row.load(_Instead(flags, instead))
    except ArgumentError as error:
        if error.argument in ('data_dir', 'way', 'least'):
            where = 'external_dir' if flags.external_dir else 'data_dir'
            raise ArgumentError('external', flags.external, f'--{where}: {error.reason}') from error
        raise ArgumentError('external', flags.external, error.reason) from error


class _Instead:
    """Flags at their defaults, but for a few."""

    def __init__(self, flags, values: dict[str, Any]):
        self._flags, self._values = flags, values

    def __getattr__(self, name):
        return self._values[name] if name in self._values else self._flags[name].default


def _check_apart(flags, source: ImageClasses, external: ImageClasses) -> None:
    """Raises UserError where a class of the second source is one that is evaluated on."""
    theirs = _names(flags.external, external, 'train')
    of_imagenet = {flags.external, flags.datasource} <= _OF_IMAGENET
    for split in ('val', 'test'):
        trained_on = split == 'val' and flags.train_on == 'trainval'
        if trained_on or split not in source.splits:
            continue
        ours = _names(flags.datasource, source, split)
        if of_imagenet and not all(map(_WORDNET.fullmatch, [*theirs.values(), *ours.values()])):
            raise UserError(
                f'--external={flags.external}: shares classes with {flags.datasource}, and which '
                'they are only WordNet ids would tell; prepare both from files that have them'
            )
        if both := sorted(theirs.keys() & ours.keys()):
            raise UserError(
                f'--external={flags.external}: its training classes hold {len(both)} of the '
                f'{len(ours)} {split} classes of --datasource={flags.datasource} '
                f'({listed([ours[name] for name in both])}), which are to stay unseen'
            )


def _names(name: str, source: ImageClasses, split: str) -> dict[str, str]:
    """Returns {name without punctuation: name} of the classes."""
    names = source.split(split).class_names
    if names is None or all(one.isdecimal() for one in names):
        raise UserError(
            f'--external: the classes of {name} have no names, so nobody can tell whether two '
            'sources share one'
        )
    return {_plain(one): one for one in names}


def _plain(name):
    words = re.sub(r'[\W_]+', ' ', name).strip().casefold()
    return re.sub(r'^\d+ ', '', words)  # CUB's '001.Black_footed_Albatross'.


def define_flags(flags) -> None:
    """Defines the flags of the second source."""
    of_images = [name for name, row in SOURCES.items() if row.preparation]
    flags.DEFINE_enum(
        'external',
        None,
        of_images,
        'data source whose training classes, labelled, are drawn beside the tasks; --datasource '
        'itself, too',
    )
    flags.DEFINE_string(
        'external_dir', None, '--data_dir of the external source (default: --data_dir)'
    )
    flags.DEFINE_enum(
        'external_labels',
        'classes',
        ['classes', 'groups'],
        'what the labels of the external images tell; groups: super-classes, alphabets',
    )
