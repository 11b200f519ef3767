"""The surrogate: recurrent networks that guess a cell's accuracy from its description.

Liu et al. 2018 (arXiv 1712.00559) rank extensions by an ensemble of LSTMs, each trained on some of
the cells that are known. Auto-Meta (Kim et al. 2018) takes their search over. Sizes and training
are a RECONSTRUCTION of ours, for tens of cells rather than hundreds.
"""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from maml_tf.networks.cells.cell import MOST_BLOCKS, OPERATIONS, OUTSIDE, Cell

MEMBERS, UNITS, EMBEDDING = 5, 24, 12
STEPS, RATE = 200, 0.01
LEFT_OUT = 5  # Each member does not see every fifth cell, another fifth each.
INPUTS = OUTSIDE + MOST_BLOCKS


class Surrogate:
    """Guesses accuracies of cells, of sizes that it has seen and of the next.

    Args:
      cells, accuracies: what is known, at least two cells.
      seed: of the initial weights.
    """

    def __init__(self, cells: Sequence[Cell], accuracies: Sequence[float], seed: int = 0):
        keras.utils.set_random_seed(seed)
        accuracies = np.asarray(accuracies, np.float32)
        self._mean, self._deviation = accuracies.mean(), max(float(accuracies.std()), 1e-6)
        targets = tf.constant((accuracies - self._mean) / self._deviation)
        self._members = [_member() for _ in range(MEMBERS)]
        numbers = np.arange(len(cells))
        order = np.random.default_rng(seed).permutation(len(cells))
        enough = len(cells) >= 2 * LEFT_OUT
        sees = [(order[numbers] % LEFT_OUT != m) | (not enough) for m in range(MEMBERS)]
        self._fit(_tokens(cells), targets, tf.constant(np.array(sees), tf.float32))

    def predict(self, cells: Sequence[Cell]) -> np.ndarray:
        """Returns the guessed accuracies [cells], the mean of the ensemble."""
        tokens = _tokens(cells)
        run = tf.function(lambda t: tf.add_n([m(t) for m in self._members]) / MEMBERS)
        scores = [run(part) for part in _parts(tokens)]
        return self._mean + self._deviation * tf.concat(scores, 0).numpy()[:, 0]

    def _fit(self, tokens, targets, sees):
        variables = [v for member in self._members for v in member.trainable_variables]
        optimizer = keras.optimizers.Adam(RATE, clipnorm=1.0)
        optimizer.build(variables)

        @tf.function(autograph=False)
        def step():
            with tf.GradientTape() as tape:
                guesses = tf.stack([member(tokens)[:, 0] for member in self._members])
                errors = tf.square(guesses - targets) * sees
                # The members share no weights: the sum trains each by its own mean.
                loss = tf.reduce_sum(tf.reduce_sum(errors, 1) / tf.reduce_sum(sees, 1))
            optimizer.apply(tape.gradient(loss, variables), variables)

        for _ in range(STEPS):
            step()


def _member() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((None,), dtype='int32'),
            keras.layers.Embedding(1 + INPUTS + len(OPERATIONS), EMBEDDING, mask_zero=True),
            keras.layers.LSTM(UNITS),
            keras.layers.Dense(1),
        ]
    )


def _tokens(cells: Sequence[Cell]) -> tf.Tensor:
    """Returns [cells, 4 * blocks of the largest], four words a block, filled up with zeros."""
    rows = []
    for cell in cells:
        row = []
        for taken, operation in (pair for b in cell.blocks for pair in (b[:2], b[2:])):
            row += [1 + taken, 1 + INPUTS + OPERATIONS.index(operation)]
        rows.append(row)
    longest = max(map(len, rows))
    return tf.constant([row + [0] * (longest - len(row)) for row in rows], tf.int32)


def _parts(tokens, size=1024):
    return [tokens[i : i + size] for i in range(0, len(tokens), size)]
