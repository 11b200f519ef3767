"""Sources as tf.data: the same meta-batches, in the same order, and Keras' fit takes them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from maml_tf.datasets.functions.function_families import Linear
from maml_tf.datasets.functions.gaussian_process import GaussianProcess
from maml_tf.datasets.functions.sinusoid import Sinusoid
from maml_tf.episodes.image_completion import ImageCompletion
from maml_tf.episodes.images import ClassImages, ImageClasses
from maml_tf.episodes.source import EpisodeSource
from maml_tf.episodes.streaming import streams
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 5, 1), np.uint8)
IN_MEMORY = ImageClasses.from_arrays(IMAGES, {'train': [0, 1, 2, 3]}, 'per_class')


def streamed(path):
    np.save(path, IMAGES.reshape(-1, 5, 5, 1))
    pixels = np.load(path, mmap_mode='r')
    return ImageClasses(lambda split: ClassImages(pixels, np.full(4, 6)), (5, 5, 1), ('train',))


@pytest.mark.parametrize('case', ['images', 'streamed', 'pixels', 'sinusoid', 'process'])
def test_the_dataset_is_what_is_drawn(case, tmp_path):
    source, spec = {
        'images': (IN_MEMORY, EpisodeSpec(2, 2, 3, least_shot=1)),
        'streamed': (streamed(tmp_path / 'pixels.npy'), EpisodeSpec(2, 2, 3)),
        'pixels': (ImageCompletion(IN_MEMORY), EpisodeSpec(1, 3, 4, least_shot=1)),
        'sinusoid': (Sinusoid(), EpisodeSpec(1, 3, 4)),
        'process': (GaussianProcess(True, 2), EpisodeSpec(1, 3, 4)),
    }[case]
    dataset = source.dataset(spec, 3, split='train', seed=5)
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    draw = source.tasks('train', spec, 5)
    if not streams(draw):
        draw = tf.function(draw, jit_compile=True)  # As training does.
    for i, task in enumerate(dataset.take(4)):
        assert isinstance(task, Task)
        for name, ours, drawn in zip(Task._fields, task, draw(tf.constant(3 * i, tf.int64), 3)):
            if drawn is None:
                assert ours is None and 'mask' in name
            else:
                np.testing.assert_array_equal(ours, drawn)
                assert ours.shape.is_fully_defined()


class Line(keras.Model):
    """A model that is fed whole tasks."""

    def __init__(self):
        super().__init__()
        self.line, self.losses_seen = keras.layers.Dense(1), []
        self.mean = keras.metrics.Mean('squares')

    def train_step(self, task):
        assert isinstance(task, Task) and task.support_mask is None
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self.line(task.query_x) - task.query_y) ** 2)
        variables = self.line.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        self.mean.update_state(loss)
        return {'squares': self.mean.result()}


def test_keras_fits_it():
    """A weight for each coordinate learns nothing of random w, but overfits: only that it runs."""
    model = Line()
    model.compile(keras.optimizers.Adam(0.05))
    dataset = Linear(2).dataset(EpisodeSpec(1, 3, 4), 8)
    history = model.fit(dataset, steps_per_epoch=10, epochs=2, verbose=0)
    assert len(history.history['squares']) == 2 and np.isfinite(history.history['squares']).all()
    assert model.optimizer.iterations == 20


def test_no_tasks_at_all():
    with pytest.raises(UserError, match='meta_batch_size=0: at least 1'):
        Sinusoid().dataset(EpisodeSpec(1, 3, 4), 0)


@pytest.mark.parametrize(
    'source', [Sinusoid(True), GaussianProcess(), Linear(3), IN_MEMORY, ImageCompletion(IN_MEMORY)]
)
def test_what_every_source_says(source):
    assert isinstance(source, EpisodeSource)
    spec = EpisodeSpec(2 if source.objective.classification else 1, 2, 2)
    for split in source.splits:
        assert source.tasks(split, spec, 0)(0, 3).query_x.shape[2:] == source.input_shape


def test_a_source_that_draws_nothing():
    with pytest.raises(TypeError, match='tasks'):
        EpisodeSource()
