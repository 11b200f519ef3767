"""Every task's own random bits: where they come from, and what is made of them."""

import re

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.datasets.functions.function_families import DecisionTree
from maml_tf.datasets.functions.gaussian_process import GaussianProcess
from maml_tf.datasets.functions.sinusoid import Sinusoid
from maml_tf.episodes import manifest
from maml_tf.episodes.image_completion import ImageCompletion
from maml_tf.episodes.images import ClassImages, ImageClasses
from maml_tf.episodes.random_bits import KEYS, Stream, _threefry, keyed_bits
from maml_tf.episodes.task import EpisodeSpec, Task

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 5, 1), np.uint8)
SPLITS = {'train': [0, 1, 2, 3], 'test': [2, 3]}
KEY = Stream(0, 'train', KEYS).bits(0, 3000, 2)


def streamed(path):
    np.save(path, IMAGES.reshape(-1, 5, 5, 1))
    pixels = np.load(path, mmap_mode='r')
    return ImageClasses(lambda split: ClassImages(pixels, np.full(4, 6)), (5, 5, 1), ('train',))


@pytest.mark.parametrize(
    'case', ['images', 'sizes', 'streamed', 'pixels', 'sinusoid', 'process', 'tree', 'curves']
)
def test_every_source_gives_keys(case, tmp_path):
    images = ImageClasses.from_arrays(IMAGES, SPLITS, 'per_class')
    source, spec = {
        'images': (images, EpisodeSpec(2, 1, 2)),
        'sizes': (images, EpisodeSpec(2, 2, 2, least_shot=1)),
        'streamed': (streamed(tmp_path / 'pixels.npy'), EpisodeSpec(2, 1, 2)),
        'pixels': (ImageCompletion(images), EpisodeSpec(1, 3, 4, least_shot=1)),
        'sinusoid': (Sinusoid(), EpisodeSpec(1, 3, 4)),
        'process': (GaussianProcess(True, 2), EpisodeSpec(1, 3, 4)),
        'tree': (DecisionTree(3), EpisodeSpec(1, 3, 4)),
        'curves': (Sinusoid(), EpisodeSpec(1, 3, 4)),
    }[case]
    if case == 'curves':
        start, key = 0, source.curves('train', spec, 3, 4, 50).key
    else:
        start, key = 5, source.tasks('train', spec, 3)(5, 4).key
    assert key.dtype == tf.uint32 and key.shape == (4, 2)
    np.testing.assert_array_equal(key, Stream(3, 'train', KEYS).bits(start, 4, 2))


def test_tasks_of_a_list_have_the_keys_they_had(tmp_path):
    source, spec = ImageClasses.from_arrays(IMAGES, SPLITS), EpisodeSpec(2, 1, 2)
    tasks = source.tasks('test', spec, 1)
    manifest.write(tmp_path / 'tasks.jsonl', tasks, 6, {})
    again, _ = manifest.read(tmp_path / 'tasks.jsonl', source, 'test', spec)
    np.testing.assert_array_equal(again(4, 4).key, tf.gather(tasks(0, 6).key, [4, 5, 0, 1]))
    other, _ = manifest.read(tmp_path / 'tasks.jsonl', source, 'test', spec, seed=2)
    assert np.all(other(0, 6).key != tasks(0, 6).key)


@pytest.mark.parametrize('case', ['images', 'sinusoid'])
def test_a_program_without_the_key_does_not_draw_it(case):
    draw = {
        'images': ImageClasses.from_arrays(IMAGES, SPLITS).tasks('train', EpisodeSpec(2, 1, 2), 0),
        'sinusoid': Sinusoid().tasks('train', EpisodeSpec(1, 3, 4), 0),
    }[case]

    def program(fields):
        """What XLA makes of the sums of some fields of a task."""
        compiled = tf.function(
            lambda start: [tf.reduce_sum(tf.cast(x, 'float64')) for x in fields(draw(start, 3))],
            jit_compile=True,
            autograph=False,
        )
        text = compiled.experimental_get_compiler_ir(tf.constant(0, tf.int64))('optimized_hlo')
        return re.sub(r'_lambda__\d+', '', text)  # A running number of TensorFlow's.

    ignored = program(lambda task: task[:4])
    assert ignored == program(lambda task: task._replace(key=None)[:4])
    assert len(program(lambda task: [*task[:4], task.key])) > len(ignored) + 500


@pytest.mark.parametrize(
    'counter, key, expected',
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((2**32 - 1, 2**32 - 1), (2**32 - 1, 2**32 - 1), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_of_its_authors(counter, key, expected):
    """The known answers that Random123 is distributed with."""
    words = _threefry(*(tf.constant(word, tf.uint32) for word in (*key, *counter)))
    assert tuple(int(word) for word in words) == expected


def test_words_depend_on_the_key_and_the_stream_alone():
    words = keyed_bits(KEY, 7).numpy()
    assert words.shape == (3000, 7) and words.dtype == np.uint32
    np.testing.assert_array_equal(keyed_bits(KEY[40:43], 7), words[40:43])
    np.testing.assert_array_equal(keyed_bits(KEY, 4), words[:, :4])
    compiled = tf.function(lambda key: keyed_bits(key, 7), jit_compile=True)
    np.testing.assert_array_equal(compiled(KEY), words)
    assert np.mean(keyed_bits(KEY, 7, stream=1).numpy() == words) < 1e-3


def test_known_words():
    """These stay the same in every version: results depend on them."""
    assert keyed_bits(tf.constant([[1, 2]], tf.uint32), 3, 4).numpy().tolist() == [
        [1226884191, 508220933, 3504730591]
    ]


def test_words_are_random():
    """Every bit is as often 0 as 1, and independent of the same bit in the task's next word."""
    bits = keyed_bits(KEY, 6).numpy()[..., None] >> np.arange(32, dtype=np.uint32)
    bits = (bits & 1).astype(int)
    assert np.abs(bits.sum(0) - 1500).max() < 5 * 27.4
    assert np.abs((bits[:, 1:] ^ bits[:, :-1]).sum(0) - 1500).max() < 5 * 27.4
    # Neighbouring keys: one bit changes half of the words' bits.
    key = np.array([[5, 9], [4, 9]], np.uint32)
    changed = np.bitwise_xor(*keyed_bits(tf.constant(key), 1000).numpy())
    ones = np.unpackbits(changed.view(np.uint8)).sum(dtype=int)
    assert abs(ones - 16000) < 5 * 89.4


def test_a_task_in_another_dtype_keeps_its_keys():
    task = Sinusoid().tasks('train', EpisodeSpec(1, 3, 4, least_shot=2), 0)(0, 2).cast('float64')
    assert {x.dtype for x in task[:6]} == {tf.float64} and task.key.dtype == tf.uint32
    assert Task(*task[:4]).cast('float32').key is None
