"""The row of land-cover tiles."""

from maml_tf.datasets.flags import episode_specs
from maml_tf.datasets.rows.images import images
from maml_tf.datasets.source import Source


def _landcover(flags):
    from maml_tf.datasets.landcover.tiles import SIDE, landcover

    training, evaluation = episode_specs(flags, ROWS['landcover'])
    by_split = lambda trained, evaluated: {
        'train': trained,
        # Some methods choose by validation tasks of the training's sizes.
        'val': max(trained, evaluated),
        'test': evaluated,
    }
    fewest = flags.fewest_patches or 0
    least = by_split(training.shot + training.query, evaluation.shot + evaluation.query)
    return landcover(
        flags.data_dir,
        flags.image_size or SIDE,
        flags.split_file,
        way=by_split(training.way, evaluation.way),
        least={split: max(fewest, number) for split, number in least.items()},
    )


ROWS: dict[str, Source] = {
    'landcover': images(
        _landcover,
        64,
        licence="your own folder's; tiles of beat-the-maml: CC BY-NC-SA 4.0",
        iterations_per_call=1,
        reads=('image_size', 'split_file', 'fewest_patches'),
    ),
}
