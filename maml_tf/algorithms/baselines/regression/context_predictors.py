"""What classical methods say of queries from the first few support points (Garg et al. 2022,
section 3): functions of (Support, queries) -> predictions, with nothing to learn.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.errors import UserError
from maml_tf.ops.shapes import sizes

NEIGHBOURS = 3


class Support(NamedTuple):
    """Holds support points, of which the first few count.

    x: [tasks, points, dimension]. y: [tasks, points, out]. lengths: int32 [lengths].
    """

    x: tf.Tensor
    y: tf.Tensor
    lengths: tf.Tensor

    def counting(self) -> tf.Tensor:
        """Returns [lengths, points], 1 where a point counts, else 0."""
        seen = tf.range(sizes(self.x)[1]) < self.lengths[:, tf.newaxis]
        return tf.cast(seen, self.x.dtype)


# (support, queries [tasks, n, dimension]) -> [tasks, lengths, n, out]; from no points 0.
Predictor = Callable[[Support, tf.Tensor], tf.Tensor]


def least_squares(support: Support, query: tf.Tensor) -> tf.Tensor:
    """Predicts by the w of least norm among those of least squared error, in float64."""
    # Points that do not count are rows of zeros, which change no such w.
    counting = tf.cast(support.counting(), tf.float64)[..., tf.newaxis]
    x, y, wide = (tf.cast(part, tf.float64)[:, tf.newaxis] for part in (*support[:2], query))
    weights = tf.linalg.pinv(x * counting) @ (y * counting)
    return tf.cast(wide @ weights, query.dtype)


def averaging(support: Support, query: tf.Tensor) -> tf.Tensor:
    """Predicts by w = mean of x y."""
    counting = support.counting()
    share = counting / tf.maximum(tf.reduce_sum(counting, 1, keepdims=True), 1)
    weights = tf.einsum('ls,tsd,tso->tldo', share, support.x, support.y)
    return query[:, tf.newaxis] @ weights


def nearest(support: Support, query: tf.Tensor) -> tf.Tensor:
    """Predicts the mean label of the 3 nearest points, or of as many as there are."""
    counting = support.counting()
    apart = query[:, :, tf.newaxis] - support.x[:, tf.newaxis]
    distances = tf.reduce_sum(tf.square(apart), -1)[:, tf.newaxis]
    far = tf.where(counting > 0, tf.zeros_like(counting), np.inf)[:, tf.newaxis]
    most = tf.minimum(NEIGHBOURS, sizes(support.x)[1])
    found = tf.math.top_k(-(distances + far), most).indices
    there = tf.cast(tf.range(most) < support.lengths[:, tf.newaxis], query.dtype)
    share = there / tf.maximum(tf.reduce_sum(there, 1, keepdims=True), 1)
    labels = tf.gather(support.y, found, axis=1, batch_dims=1)
    return tf.reduce_sum(labels * share[:, tf.newaxis, :, tf.newaxis], -2)


def fitted(make: Callable[[], Any]) -> Predictor:
    """Returns the predictor of a scikit-learn regressor; make: () -> a new one.

    It runs in Python, one task and length after another.
    """

    def fit(x, y, lengths, query):
        tasks, n, _ = query.shape
        predictions = np.zeros([tasks, len(lengths), n, y.shape[-1]], query.dtype)
        for task in range(tasks):
            for entry, length in enumerate(lengths):
                if length:
                    regressor = make().fit(x[task, :length], y[task, :length, 0])
                    predictions[task, entry, :, 0] = regressor.predict(query[task])
        return predictions

    def predict(support, query):
        predictions = tf.numpy_function(fit, [*support, query], query.dtype, stateful=False)
        lengths, out = support.lengths.shape[0], support.y.shape[-1]
        predictions.set_shape([query.shape[0], lengths, query.shape[1], out])
        return predictions

    return predict


def lasso(penalty: float) -> Predictor:
    """Returns the Lasso without intercept: |y - Xw|^2 / (2 n) + penalty * |w|_1."""
    linear_model = _scikit_learn().linear_model
    return fitted(lambda: linear_model.Lasso(penalty, fit_intercept=False, max_iter=100_000))


def tree(depth: int | None) -> Predictor:
    """Returns the tree that is grown greedily, at most so deep; None: until its leaves are pure."""
    trees = _scikit_learn().tree
    return fitted(lambda: trees.DecisionTreeRegressor(max_depth=depth, random_state=0))


def boosting() -> Predictor:
    """Returns 100 boosted trees of depth 6 at a rate of 0.3.

    These are XGBoost's defaults, which the authors take, but for its penalty on the leaves.
    """
    ensemble = _scikit_learn().ensemble
    return fitted(
        lambda: ensemble.GradientBoostingRegressor(learning_rate=0.3, max_depth=6, random_state=0)
    )


def _scikit_learn():
    try:
        import sklearn.ensemble
        import sklearn.linear_model
        import sklearn.tree
    except ImportError as error:
        raise UserError(
            f"scikit-learn is missing ({error}): pip install 'maml_tf[scikit-learn]'"
        ) from None
    return sklearn
