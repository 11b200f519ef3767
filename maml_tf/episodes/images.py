"""N-way K-shot tasks from images held in memory by class."""
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.episodes.random_bits import Stream, choose
from maml_tf.episodes.task import Task
from maml_tf.errors import UserError
from maml_tf.objectives import Classification


class ClassImages(NamedTuple):
    """Images of some classes, class after class: images uint8 [all, height, width, channels], sizes [classes]."""
    images: np.ndarray
    sizes: np.ndarray


class ImageClasses:
    """Images in memory once, as uint8; gathered, turned and scaled to [0, 1] in the graph.

    Args:
      load: split -> ClassImages, called for each of 'train', 'val', 'test' when it is first needed.
      input_shape: (height, width, channels).
      rotate: turns each class that a task draws by one of four quarter turns, drawn for the task; two turns of
        one class never meet, and the number of classes stays (the reference on Omniglot, in every split).
    """
    objective = Classification()

    def __init__(self, load, input_shape, rotate=False):
        self._load, self._loaded = load, {}
        self.input_shape, self.rotate = tuple(input_shape), rotate

    @classmethod
    def from_arrays(cls, images, splits, rotate=False):
        """images: uint8 [classes, images per class, height, width, channels]; splits: {split: [class numbers]}."""
        def load(split):
            chosen = images[splits[split]]
            return ClassImages(chosen.reshape(-1, *images.shape[2:]), np.full(len(chosen), images.shape[1]))
        return cls(load, images.shape[2:], rotate)

    def split(self, split):
        """The ClassImages of 'train', 'val' or 'test', its images a tensor."""
        if split not in self._loaded:
            images, sizes = self._load(split)
            self._loaded[split] = ClassImages(tf.constant(images), np.asarray(sizes))
        return self._loaded[split]

    def tasks(self, split, spec, seed):
        """Returns draw(start, count) -> Task. Raises UserError where the split cannot give such tasks."""
        images, sizes = self.split(split)
        classes, examples = len(sizes), spec.shot + spec.query
        if spec.way > classes:
            raise UserError(f'--num_classes={spec.way}: the {split} split has {classes} classes')
        if examples > sizes.min():
            raise UserError(f'--update_batch_size: {spec.shot} support + {spec.query} query images per class are more '
                            f'than the {sizes.min()} of the smallest class of the {split} split')
        largest, sizes = int(sizes.max()), tf.constant(sizes, tf.int32)
        firsts = tf.cumsum(sizes, exclusive=True)
        class_bits, turn_bits, image_bits = (Stream(seed, split, i) for i in range(3))

        def draw(start, count):
            chosen = choose(class_bits.bits(start, count, classes), spec.way)
            bits = tf.reshape(image_bits.bits(start, count, spec.way * largest), [count, spec.way, largest])
            picked = choose(bits, examples, below=tf.gather(sizes, chosen))
            x = tf.gather(images, tf.gather(firsts, chosen)[..., None] + picked)
            if self.rotate:
                turns = tf.bitwise.bitwise_and(turn_bits.bits(start, count, spec.way), tf.constant(3, tf.uint32))
                x = _quarter_turns(x, tf.cast(turns, tf.int32))
            x = tf.cast(x, tf.float32) / 255.
            y = tf.broadcast_to(tf.eye(spec.way)[:, None], [count, spec.way, examples, spec.way])
            support, query = slice(None, spec.shot), slice(spec.shot, None)
            return Task(*(_class_by_class(values[:, :, part]) for part in (support, query) for values in (x, y)))

        return draw


def _class_by_class(x):
    """[tasks, way, examples, ...] -> [tasks, way*examples, ...]"""
    return tf.reshape(x, [x.shape[0], x.shape[1] * x.shape[2], *x.shape[3:]])


def _quarter_turns(images, turns):
    """images [tasks, way, examples, side, side, c], turned counterclockwise by turns [tasks, way] quarters."""
    turns = turns[:, :, None, None, None, None]
    transposed = tf.transpose(images, [0, 1, 2, 4, 3, 5])
    quarters = [images, transposed[:, :, :, ::-1], images[:, :, :, ::-1, ::-1], transposed[:, :, :, :, ::-1]]
    turned = quarters[0]
    for k in (1, 2, 3):
        turned = tf.where(turns == k, quarters[k], turned)
    return turned
