"""N-way K-shot tasks from images held in memory by class."""
import tensorflow as tf

from maml_tf.episodes.random_bits import Stream, choose
from maml_tf.episodes.task import Task
from maml_tf.errors import UserError
from maml_tf.objectives import Classification


class ImageClasses:
    """Images in memory once, as uint8; gathered, turned and scaled to [0, 1] in the graph.

    Args:
      images: uint8 [classes, images per class, height, width, channels].
      splits: {'train', 'val', 'test': [class numbers]}.
      rotate: turns each class that a task draws by one of four quarter turns, drawn for the task; two turns of
        one class never meet, and the number of classes stays (the reference on Omniglot, in every split).
    """
    objective = Classification()

    def __init__(self, images, splits, rotate=False):
        self.images_per_class, self.input_shape = images.shape[1], images.shape[2:]
        self._images = tf.constant(images.reshape(-1, *self.input_shape))
        self.splits, self.rotate = splits, rotate

    def tasks(self, split, spec, seed):
        """Returns draw(start, count) -> Task. Raises UserError where the split cannot give such tasks."""
        classes, images_per_class = self.splits[split], self.images_per_class
        if spec.way > len(classes):
            raise UserError(f'--num_classes={spec.way}: the {split} split has {len(classes)} classes')
        examples = spec.shot + spec.query
        if examples > images_per_class:
            raise UserError(f'{spec.shot} support + {spec.query} query images per class: a class has '
                             f'{images_per_class}')
        classes = tf.constant(classes, tf.int32)
        class_bits, turn_bits, image_bits = (Stream(seed, split, i) for i in range(3))

        def draw(start, count):
            chosen = choose(class_bits.bits(start, count, classes.shape[0]), spec.way)
            bits = image_bits.bits(start, count, spec.way * images_per_class)
            picked = choose(tf.reshape(bits, [count, spec.way, images_per_class]), examples)
            first = tf.gather(classes, chosen)[..., None] * images_per_class
            images = tf.gather(self._images, first + picked)
            if self.rotate:
                turns = tf.bitwise.bitwise_and(turn_bits.bits(start, count, spec.way), tf.constant(3, tf.uint32))
                images = _quarter_turns(images, tf.cast(turns, tf.int32))
            images = tf.cast(images, tf.float32) / 255.
            labels = tf.broadcast_to(tf.eye(spec.way)[:, None], [count, spec.way, examples, spec.way])
            support, query = slice(None, spec.shot), slice(spec.shot, None)
            return Task(*(_class_by_class(x[:, :, part]) for part in (support, query) for x in (images, labels)))

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
