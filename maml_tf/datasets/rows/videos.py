"""The rows of objects in videos."""

from maml_tf.datasets.rows.images import images
from maml_tf.datasets.source import Source


def _orbit(flags):
    from maml_tf.datasets.objects.orbit import orbit

    return orbit(flags.data_dir, flags.image_size or 84, flags.frame_every)


VIDEO_FLAGS = ('all_objects', 'video_tasks', 'video_frames')

ROWS: dict[str, Source] = {
    'orbit': images(
        _orbit,
        84,
        licence='as https://doi.org/10.25383/city.14294597 says; cite Massiceti et al. 2021',
        square='whole',
        iterations_per_call=1,
        train_query=15,
        reads=('image_size', 'frame_every', *VIDEO_FLAGS),
    ),
}
