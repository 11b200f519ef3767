"""Zero-shot Prototypical Networks: classes known by attributes alone (Snell et al. 2017)."""

import keras
import tensorflow as tf

from maml_tf.algorithms.metric.prototypical import squared_euclidean
from maml_tf.learner import Learner, State
from maml_tf.objectives.classification import MeanClassification


class ZeroShotPrototypical(Learner):
    """Embeds a class's attributes linearly, to unit length, as its prototype; queries are features.

    The query's embedding is linear too, of features that a given network computed (arXiv
    1703.05175). The settings that the paper is said to have for CUB are not verified against it:
    1024 GoogLeNet features and 312 attributes, both embedded into 1024 dimensions, 50-way with 10
    queries per class, Adam at 1e-4, 54.6 % among the 50 test classes. Its weight decay of 1e-5 is
    the caller's to add to the loss.

    A task has one support row for each class, its attributes [tasks, way, attributes], in the order
    of the labels (or in any other, with one-hot labels that say so); queries are [tasks, n,
    features].

    Args:
      attributes, features: sizes of a class's and of an image's vector.
      size: of the common space.
    """

    def __init__(self, attributes: int, features: int, size: int = 1024, **kwargs):
        super().__init__(MeanClassification(), **kwargs)
        self.of_class, self.of_image = (
            keras.layers.Dense(size, name=name) for name in ('of_class', 'of_image')
        )
        self.of_class.build((None, None, attributes))
        self.of_image.build((None, None, features))

    def adapt(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        steps: int | None = None,
        mask: tf.Tensor | None = None,
        key: tf.Tensor | None = None,
    ) -> State:
        """Returns {'prototypes': [tasks, way, size]}."""
        del steps, mask, key
        unit = tf.math.l2_normalize(self.of_class(support_x), axis=-1)
        return {'prototypes': tf.matmul(support_y, unit, transpose_a=True)}

    def predict_query(self, state: State, query_x: tf.Tensor) -> tf.Tensor:
        return squared_euclidean(self.of_image(query_x), state['prototypes'])
