"""Relation Network without examples: a class is told by its attributes (Sung et al. 2018, section
3.4).

Images are given as features of a trained network (theirs: ResNet-101, 2048 numbers). On CUB a class
has 312 attributes.
"""

import keras
import numpy as np
import tensorflow as tf

from maml_tf.networks.encoders import torch_default
from maml_tf.training.outer_optimizers import adam

LEARNING_RATE, HALVE_EVERY, WEIGHT_DECAY = 1e-5, 30000, 1e-5


class ZeroShotRelation(keras.Model):
    """Relation scores, 0 to 1, of every pair of an image and a class.

    The attributes are embedded by two ReLU layers, as long as the image's features at last; the
    relation module, one ReLU layer and a sigmoid, sees the two joined, the class's first.

    Args:
      attributes, features: numbers of a class, and of an image.
      hidden: units of both networks' first layers.
    """

    def __init__(self, attributes: int = 312, features: int = 2048, hidden: int = 1200, **kwargs):
        super().__init__(**kwargs)
        dense = lambda fan_in, units, activation, name: keras.layers.Dense(
            units,
            activation,
            name=name,
            kernel_initializer=torch_default(fan_in),
            bias_initializer=torch_default(fan_in),
        )
        self.embedding = keras.Sequential(
            [
                keras.Input([attributes]),
                dense(attributes, hidden, 'relu', 'embedding1'),
                dense(hidden, features, 'relu', 'embedding2'),
            ],
            name='embedding',
        )
        self.first = dense(2 * features, hidden, None, 'relation1')
        self.last = dense(hidden, 1, 'sigmoid', 'relation2')
        self.first.build([None, 2 * features])
        self.last.build([None, hidden])
        self.built = True

    def call(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns scores [n, classes].

        inputs: {'attributes': [classes, attributes], 'features': [n, features]}.
        """
        # A layer of two inputs joined is the sum of what it makes of each.
        of_class, of_image = tf.split(tf.convert_to_tensor(self.first.kernel), 2)
        classes = tf.matmul(self.embedding(inputs['attributes']), of_class)
        images = tf.matmul(inputs['features'], of_image)
        return self.last(tf.nn.relu(images[:, None] + classes + self.first.bias))[..., 0]

    def loss_of(self, attributes: tf.Tensor, features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Returns the mean squared error over the pairs of each image with each class of the batch.

        attributes: [classes, attributes] of all classes; features: [n, features]; labels: int [n],
          rows of attributes.
        """
        present, column = tf.unique(labels)
        scores = self({'attributes': tf.gather(attributes, present), 'features': features})
        return tf.reduce_mean(
            tf.square(scores - tf.one_hot(column, tf.size(present), dtype=scores.dtype))
        )

    def scores(self, attributes: np.ndarray, features: np.ndarray, batch: int = 256) -> np.ndarray:
        """Returns what `call` does, of NumPy arrays, `batch` images at a time."""
        score = tf.function(
            lambda part: self({'attributes': attributes, 'features': part}), reduce_retracing=True
        )
        return np.concatenate(
            [score(features[i : i + batch]).numpy() for i in range(0, len(features), batch)]
        )


def train(
    model: ZeroShotRelation,
    attributes: np.ndarray,
    features: np.ndarray,
    labels: np.ndarray,
    steps: int = 200_000,
    batch: int = 32,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
) -> list[float]:
    """Trains on images of the seen classes; returns the loss of every step.

    The arrays are as in `loss_of`. Adam, halved every 30,000 steps; a penalty, half of WEIGHT_DECAY
    times the squared weights, on the embedding.
    """
    optimizer, rng = adam(learning_rate, HALVE_EVERY), np.random.default_rng(seed)
    optimizer.build(model.trainable_variables)
    attributes, features, labels = (
        tf.constant(values) for values in (attributes, features, labels)
    )

    @tf.function(autograph=False)
    def step(chosen):
        with tf.GradientTape() as tape:
            loss = model.loss_of(attributes, tf.gather(features, chosen), tf.gather(labels, chosen))
            squares = tf.add_n(
                [tf.reduce_sum(tf.square(v)) for v in model.embedding.trainable_variables]
            )
            total = loss + WEIGHT_DECAY / 2 * squares
        optimizer.apply(tape.gradient(total, model.trainable_variables), model.trainable_variables)
        return loss

    return [float(step(rng.choice(len(labels), batch, replace=False))) for _ in range(steps)]


def class_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean over the classes of their images' accuracy.

    scores: [n, classes]; labels: int [n].
    """
    right = scores.argmax(1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def harmonic_mean(seen: float, unseen: float) -> float:
    """Returns the figure of generalised zero-shot learning, of the accuracies on seen and on unseen
    classes, each among all classes."""
    return 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0
