"""The flags of the data: their definitions, and what they say of the tasks."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from maml_tf.datasets import omniglot
from maml_tf.datasets.functions import channel_coding, prompt_shifts
from maml_tf.datasets.landcover import bands
from maml_tf.datasets.molecules import flags as molecules
from maml_tf.episodes import manifest
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import ArgumentError, UserError

if TYPE_CHECKING:  # The table of sources imports this module.
    from maml_tf.datasets.source import Source


def check_flags(flags, sources: 'Mapping[str, Source]') -> None:
    """Raises UserError for a flag that is set and means nothing to the data source."""
    chosen = sources[flags.datasource]
    if chosen.algorithms and flags.algorithm not in chosen.algorithms:
        raise UserError(
            f'--algorithm={flags.algorithm}: --datasource={flags.datasource} is learnt by '
            f'{", ".join(chosen.algorithms)}'
        )
    for name in chosen.foreign:
        if flags[name].value != flags[name].default:
            raise UserError(
                f'--{name}={flags[name].value}: means nothing to --datasource={flags.datasource}'
            )
    for name in sorted({name for source in sources.values() for name in source.reads}):
        if flags[name].value == flags[name].default or name in chosen.reads:
            continue
        those = ', '.join(key for key, source in sources.items() if name in source.reads)
        raise UserError(
            f'--{name}={flags[name].value}: means nothing to --datasource={flags.datasource}, '
            f'only to {those}'
        )
    _set_way(flags, chosen)
    if flags.all_objects and (flags.tasks_file or flags.write_tasks):
        raise UserError(
            '--all_objects: its tasks differ in their way, and a list of tasks has one way; leave '
            'out --tasks_file and --write_tasks'
        )
    if flags.leave_to_query and flags.train_shot_from is None:
        raise UserError(
            '--leave_to_query: only with --train_shot_from, where tasks differ in their shots'
        )


def _set_way(flags, source: 'Source') -> None:
    """Lets --num_classes say the way of a source that has one of its own, so that names and files
    of the run do. Raises UserError where it says another."""
    if source.way is None:
        return
    if flags['num_classes'].present and flags.num_classes != source.way:
        raise UserError(
            f'--num_classes={flags.num_classes}: a task of --datasource={flags.datasource} has '
            f'{source.way} classes; leave the flag out'
        )
    flags.num_classes = source.way


def episode_specs(flags, source: 'Source') -> tuple[EpisodeSpec, EpisodeSpec]:
    """Returns (the spec of training, the spec of evaluation) that the command line asks for.

    The reference queries as many examples as it adapts to, also where training uses more (15 on
    miniImageNet). The tasks of --tasks_file know their own sizes.

    Raises: ArgumentError where --tasks_file is no list of tasks, or not of what --test_query says.
    """
    way, train_way = 1, 1
    if source.classification:
        way = source.way or flags.num_classes
        train_way = flags.train_num_classes or way
    shot, train_shot = flags.update_batch_size, train_update_batch_size(flags)
    training = EpisodeSpec(
        way=train_way,
        shot=train_shot,
        query=flags.train_query or source.train_query or train_shot,
        least_way=flags.train_way_from,
        least_shot=flags.train_shot_from,
        least_query=flags.train_query_from,
        leave_to_query=flags.leave_to_query,
        within_groups=flags.within_groups,
    )
    query = flags.test_query or source.test_query or shot
    if flags.tasks_file:
        way, shot, query, _ = manifest.sizes(flags.tasks_file)
        if flags.test_query not in (None, query):
            reason = f'the tasks of --tasks_file={flags.tasks_file} have {query} of each class'
            raise ArgumentError('query', flags.test_query, reason)
    least_way = 2 if flags.all_objects else None
    return training, EpisodeSpec(
        way, shot, query, least_way=least_way, within_groups=flags.within_groups
    )


def train_update_batch_size(flags) -> int:
    """Returns the shots in training, where evaluation may differ."""
    own = flags.train_update_batch_size
    return flags.update_batch_size if own == -1 else own


def define_flags(flags, sources: Iterable[str]) -> None:
    """Defines the flags of the data.

    sources: names of the data sources.
    """
    flags.DEFINE_enum('datasource', 'sinusoid', list(sources), 'where the tasks come from')
    flags.DEFINE_string(
        'data_dir',
        None,
        'TensorFlow Datasets directory with the prepared data (default: '
        "TFDS's own, where what can be downloaded is); --datasource=directory: your folder of "
        'class '
        'folders; landcover: of regions',
    )
    flags.DEFINE_string(
        'split_file',
        None,
        'directory: csv file with the columns class and split (train, val, test); landcover: with '
        'region and split; tox21, sider, molecules: with assay and split (default: by the names of '
        'the classes or regions, always alike; assays as published, or in their order)',
    )
    flags.DEFINE_integer(
        'fewest_patches',
        None,
        'landcover: leave out a class of a region that has fewer patches (default: fewer than a '
        'task takes); the same number for all shots keeps their tasks to the same classes',
        lower_bound=2,
    )
    flags.DEFINE_string(
        'manual_dir',
        None,
        'folder with the raw files of a set that cannot be downloaded, prepared '
        'once into --data_dir (default: downloads/manual in it)',
    )
    flags.DEFINE_integer(
        'image_size', None, 'side of the images in pixels (default: by data source)', lower_bound=1
    )
    flags.DEFINE_string(
        'class_split',
        None,
        'which published split into classes: omniglot cbfinn, vinyals or lake '
        '(default cbfinn); cub cub or cub_meta_dataset (default cub)',
    )
    flags.DEFINE_integer(
        'num_classes', 5, 'number of classes in classification (5 for 5-way)', lower_bound=2
    )
    flags.DEFINE_integer(
        'update_batch_size',
        5,
        'number of examples per class in the inner gradient update (K for K-shot learning)',
        lower_bound=1,
    )
    flags.DEFINE_integer(
        'test_query',
        None,
        'queries per class in validation and test (default: as many as '
        '--update_batch_size, as the reference)',
        lower_bound=1,
    )
    flags.DEFINE_integer(
        'train_num_classes',
        None,
        'number of classes in training, where evaluation differs',
        lower_bound=2,
    )
    flags.DEFINE_integer(
        'train_query',
        None,
        'queries per class in training (default: by data source; sinusoid and '
        'omniglot: as many as the shots)',
        lower_bound=1,
    )
    flags.DEFINE_enum(
        'train_on',
        'train',
        ['train', 'trainval'],
        'trainval: the validation classes too, for a '
        'last run whose settings are chosen (Snell et al. 2017)',
    )
    flags.DEFINE_integer(
        'train_way_from',
        None,
        'draw the way of each training task, from this to the way',
        lower_bound=2,
    )
    flags.DEFINE_integer(
        'train_shot_from',
        None,
        'draw the shots of each training task, from this to the shots',
        lower_bound=1,
    )
    flags.DEFINE_integer(
        'train_query_from',
        None,
        'regression: draw the queries of each training task, from this to --train_query',
        lower_bound=1,
    )
    flags.DEFINE_bool(
        'leave_to_query', False, 'a training task that drew fewer shots queries the others'
    )
    flags.DEFINE_bool(
        'within_groups',
        False,
        'all classes of a task from one group: an alphabet, a super-category',
    )
    flags.DEFINE_integer(
        'dimension',
        20,
        'dimension of x in the function families (linear ... two_layer_network)',
        lower_bound=1,
    )
    flags.DEFINE_integer(
        'task_count',
        50,
        'rendered_pose: how many objects there are to train on, always the same; 0: endlessly many',
        lower_bound=0,
    )
    flags.DEFINE_bool(
        'query_contains_support',
        False,
        'gaussian_process, celeba: the support points are queried too',
    )
    flags.DEFINE_bool(
        'test_query_contains_support',
        None,
        'query_contains_support of validation and test, where training differs; False: '
        'only held-out points are scored',
    )
    flags.DEFINE_integer(
        'train_update_batch_size', -1, 'update_batch_size of training, to evaluate with another'
    )
    flags.DEFINE_enum(
        'baseline',
        None,
        ['oracle'],
        "oracle: the sinusoid's amplitude and phase are given as input, "
        'and all iterations are pretraining',
    )
    bands.define_flags(flags)
    _define_flags_of_videos(flags)
    omniglot.define_flags(flags)
    molecules.define_flags(flags)
    prompt_shifts.define_flags(flags)
    channel_coding.define_flags(flags)


def _define_flags_of_videos(flags) -> None:
    flags.DEFINE_integer(
        'frame_every',
        1,
        'orbit: read one of so many frames of a video; neighbours look nearly alike',
        lower_bound=1,
    )
    flags.DEFINE_bool(
        'all_objects',
        False,
        'orbit: tasks of validation and test have all objects of their user, at most '
        '--num_classes, as the benchmark asks',
    )
    flags.DEFINE_integer(
        'video_tasks',
        1,
        'orbit: evaluate whole videos in so many tasks of each user (the benchmark: 50); 0: none',
        lower_bound=0,
    )
    flags.DEFINE_integer(
        'video_frames', 200, 'orbit: frames of each such video, at most', lower_bound=1
    )
