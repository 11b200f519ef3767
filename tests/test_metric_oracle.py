"""The oracle of the metric-based learners against hand-computed numbers, invariances, Keras and
TensorFlow."""

import keras
import metric_oracle as oracle
import numpy as np
import pytest
import tensorflow as tf

LABELS = np.array([[1, 0], [0, 1], [1, 0], [0, 0]])  # The last row is filling.
SUPPORT = np.array([[0.0, 0.0], [3.0, 4.0], [2.0, 0.0], [99.0, 99.0]])


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def lstm_weights(d, recurrent, seed):
    return (
        random(d, 4 * d, seed=seed),
        random(recurrent, 4 * d, seed=seed + 1),
        random(4 * d, seed=seed + 2),
    )


def test_prototypes_by_hand():
    centres = oracle.prototypes(SUPPORT, LABELS)
    np.testing.assert_array_equal(centres, [[1.0, 0.0], [3.0, 4.0]])
    logits = oracle.squared_euclidean_logits([[0.0, 0.0], [3.0, 3.0]], centres)
    np.testing.assert_array_equal(logits, [[-1.0, -25.0], [-13.0, -1.0]])
    np.testing.assert_allclose(
        oracle.cosine_logits([[0.0, 2.0], [0.0, 0.0]], centres, 10), [[0.0, 8.0], [0.0, 0.0]]
    )
    with pytest.raises(ValueError, match='class 1'):
        oracle.prototypes(SUPPORT[:1], LABELS[:1])


def test_nll_and_accuracy_by_hand():
    logits = [[np.log(3.0), 0.0], [1000.0, 1000.0], [5.0, 7.0]]
    labels = [[1, 0], [0, 1], [0, 0]]
    assert oracle.nll(logits, labels) == pytest.approx((np.log(4 / 3) + np.log(2)) / 2)
    assert oracle.accuracy(logits, labels) == 0.5


def test_supports_may_come_in_any_order():
    order = [3, 2, 0, 1]
    np.testing.assert_array_equal(
        oracle.prototypes(SUPPORT, LABELS), oracle.prototypes(SUPPORT[order], LABELS[order])
    )
    for similarity in oracle.SIMILARITIES:
        np.testing.assert_allclose(
            oracle.matching_simple(SUPPORT, LABELS, [[1.0, 0.5]], similarity, 2.0),
            oracle.matching_simple(SUPPORT[order], LABELS[order], [[1.0, 0.5]], similarity, 2.0),
        )


@pytest.mark.parametrize(
    'similarity, supports',
    [
        ('cosine', [[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]),
        ('squared_l2', [[1.0, 0.0], [1.0, 1.0], [1.0, np.sqrt(2.0)]]),
        ('dot', [[1.0, 0.0], [0.0, 5.0], [-1.0, 7.0]]),
    ],
)
def test_matching_by_hand(similarity, supports):
    """All three have similarities a, a - 1, a - 2 to the query (1, 0): attention 1, 1/e, 1/e^2 over
    their sum."""
    probabilities = oracle.matching_simple(supports, LABELS[:3], [[1.0, 0.0]], similarity)
    e = np.exp(-1.0)
    np.testing.assert_allclose(
        probabilities, [[(1 + e * e) / (1 + e + e * e), e / (1 + e + e * e)]]
    )
    sharper = oracle.matching_simple(
        supports, LABELS[:3], [[1.0, 0.0]], similarity, temperature=2.0
    )
    np.testing.assert_allclose(sharper[0, 1], e**2 / (1 + e**2 + e**4))
    assert oracle.matching_loss(probabilities, [[0, 1]]) == pytest.approx(1 + np.log(1 + e + e * e))


def test_matching_ignores_filling():
    queries = SUPPORT[2:]  # The last one is the filling itself.
    np.testing.assert_array_equal(
        oracle.matching_simple(SUPPORT, LABELS, queries, 'dot'),
        oracle.matching_simple(SUPPORT[:3], LABELS[:3], queries, 'dot'),
    )


def test_one_shot_matching_is_prototypical():
    """With one support of a class, attention by -||.||^2 is the prototypes' softmax."""
    support, queries, labels = random(4, 3), random(5, 3, seed=1), np.eye(4)
    probabilities = oracle.matching_simple(support, labels, queries, 'squared_l2')
    logits = oracle.squared_euclidean_logits(queries, oracle.prototypes(support, labels))
    np.testing.assert_allclose(probabilities, [oracle.softmax(row) for row in logits])
    targets = labels[[0, 1, 2, 3, 0]]
    assert oracle.matching_loss(probabilities, targets) == pytest.approx(
        oracle.nll(logits, targets)
    )


def test_cosine_without_temperature_is_floored():
    """The bound of an attention over cosines in [-1, 1]: e / (e + (way - 1) / e)."""
    support = np.concatenate([[[1.0, 0.0]], np.tile([[-1.0, 0.0]], (4, 1))])
    best = oracle.matching_simple(support, np.eye(5), [[1.0, 0.0]])[0, 0]
    assert best == pytest.approx(np.e / (np.e + 4 / np.e))


def test_class_summed_cosines_by_hand():
    np.testing.assert_allclose(
        oracle.class_summed_cosine_logits(SUPPORT, LABELS, [[1.0, 0.0], [0.0, 1.0]]),
        [[1.0, 0.6], [0.0, 0.8]],
    )


def test_lstm_cell_is_keras():
    x, h, c = random(3), random(2, seed=1), random(2, seed=2)
    weights = random(3, 8, seed=3), random(2, 8, seed=4), random(8, seed=5)
    cell = keras.layers.LSTMCell(2, dtype='float64')
    cell.build((1, 3))
    cell.set_weights(weights)
    _, (keras_h, keras_c) = cell(x[None], [h[None], c[None]])
    for ours, theirs in zip(oracle.lstm_cell(x, h, c, *weights), (keras_h, keras_c), strict=True):
        np.testing.assert_allclose(ours, np.asarray(theirs)[0], rtol=1e-12)


def test_fce_g_is_keras_bidirectional():
    embeddings, forward, backward = (
        random(4, 3),
        lstm_weights(3, 3, seed=1),
        lstm_weights(3, 3, seed=5),
    )
    layer = keras.layers.Bidirectional(
        keras.layers.LSTM(3, return_sequences=True, dtype='float64'),
        merge_mode='sum',
        dtype='float64',
    )
    layer.build((1, 4, 3))
    layer.set_weights([*forward, *backward])
    expected = np.asarray(layer(embeddings[None]))[0] + embeddings
    np.testing.assert_allclose(oracle.fce_g(embeddings, forward, backward), expected, rtol=1e-12)


def test_fce_f_by_hand():
    """A kernel of zeros leaves the biases: every gate open by `bias`, so that h^ is known without
    the recurrence."""
    f, all_h, all_r = oracle.fce_f(
        [2.0], [[0.0], [1.0]], 2, (np.zeros((1, 4)), np.zeros((2, 4)), np.array([0, 0, 1, 0]))
    )
    c_1 = 0.5 * np.tanh(1)
    c_2 = 0.5 * c_1 + c_1
    h_1, h_2 = 0.5 * np.tanh(c_1) + 2, 0.5 * np.tanh(c_2) + 2
    np.testing.assert_allclose(all_h, [[h_1], [h_2]])
    np.testing.assert_allclose(all_r, [[0.5], [np.exp(h_1) / (1 + np.exp(h_1))]])
    np.testing.assert_array_equal(f, all_h[-1])


def test_fce_f_feeds_back_h_then_r():
    """h and r each through their own half of the recurrent kernel: an ordinary cell with [f', r] in
    is the same."""
    embedding, g, (kernel, recurrent, bias) = (
        random(3),
        random(4, 3, seed=1),
        lstm_weights(3, 6, seed=2),
    )
    _, all_h, all_r = oracle.fce_f(embedding, g, 3, (kernel, recurrent, bias))
    np.testing.assert_allclose(all_r[0], g.mean(axis=0))
    cell = keras.layers.LSTMCell(3, dtype='float64')
    cell.build((1, 6))
    cell.set_weights([np.concatenate([kernel, recurrent[3:]]), recurrent[:3], bias])
    h, c = np.zeros((1, 3)), np.zeros((1, 3))
    for step in range(3):
        r = tf.linalg.matvec(g, tf.nn.softmax(tf.linalg.matvec(g, h[0])), transpose_a=True).numpy()
        np.testing.assert_allclose(all_r[step], r, rtol=1e-10)
        _, (h, c) = cell(np.concatenate([embedding, r])[None], [h, c])
        h = np.asarray(h) + embedding
        np.testing.assert_allclose(all_h[step], h[0], rtol=1e-10)


def test_relation_by_hand():
    maps = np.arange(4.0).reshape(4, 1, 1, 1)  # Classes' sums: 0 + 2 and 1; 3 is filling.
    queries = np.array([10.0, 20.0]).reshape(2, 1, 1, 1)
    np.testing.assert_array_equal(
        oracle.relation_pairs(maps, LABELS, queries)[1, :, 0, 0], [[2.0, 20.0], [1.0, 20.0]]
    )
    scores = oracle.relation_scores(
        maps, LABELS, queries, lambda pair: pair[0, 0, 0] - pair[0, 0, 1] / 10
    )
    np.testing.assert_array_equal(scores, [[1.0, 0.0], [0.0, -1.0]])
    assert oracle.relation_mse(scores, [[1, 0], [0, 1]]) == pytest.approx(4 / 4)
    assert oracle.relation_mse(scores, [[1, 0], [0, 0]]) == 0


@pytest.mark.parametrize('side', [2, 3, 4])
def test_convolutions_and_pooling_are_tensorflows(side):
    images, kernel, bias = random(2, 7, 5, 2), random(side, side, 2, 3, seed=1), random(3, seed=2)
    for ours, padding in ((oracle.conv2d_valid, 'VALID'), (oracle.conv2d_same, 'SAME')):
        np.testing.assert_allclose(
            ours(images, kernel), tf.nn.conv2d(images, kernel, 1, padding), atol=1e-12
        )
        np.testing.assert_allclose(
            ours(images, kernel, bias), tf.nn.conv2d(images, kernel, 1, padding) + bias, atol=1e-12
        )
    np.testing.assert_array_equal(
        oracle.max_pool2x2(images), tf.nn.max_pool2d(tf.constant(images), 2, 2, 'VALID')
    )


def test_batch_norm_is_keras():
    x = random(3, 2, 2, 2)
    mean, variance, gamma, beta = (
        random(2, seed=1),
        random(2, seed=2) ** 2,
        random(2, seed=3),
        random(2, seed=4),
    )
    layer = keras.layers.BatchNormalization(epsilon=1e-2, dtype='float64')
    layer.build(x.shape)
    layer.set_weights([gamma, beta, mean, variance])
    np.testing.assert_allclose(
        oracle.batch_norm_running(x, mean, variance, gamma, beta, 1e-2), layer(x), rtol=1e-9
    )
    np.testing.assert_allclose(
        oracle.batch_norm_batch(x, gamma, beta, 1e-2), layer(x, training=True), rtol=1e-9
    )


@pytest.mark.parametrize(
    'distance, total', [('l1', 2 + 6), ('l2', 4 + 12), ('cosine', (3 + 24) / (5 * 5**0.5))]
)
def test_siamese_by_hand(distance, total):
    """Components of (3, 4) and (1, 2): differences 2 and 2; products 3 and 8; norms 5 and sqrt
    5."""
    first, second, weights = [3.0, 4.0], [1.0, 2.0], [1.0, 3.0]
    probability = oracle.siamese_probability(first, second, weights, -7.0, distance)
    assert probability == pytest.approx(1 / (1 + np.exp(-(total - 7))))
    assert oracle.siamese_probability(second, first, weights, -7.0, distance) == probability


def test_siamese_takes_the_best_support():
    queries = [[1.0, 0.0], [3.0, 3.0]]
    scores = oracle.siamese_scores(SUPPORT, LABELS, queries, [-1.0, -1.0], 1.0)
    np.testing.assert_allclose(scores, oracle.sigmoid([[0.0, -5.0], [-3.0, 0.0]]))
    without_class_1 = oracle.siamese_scores(SUPPORT[:1], LABELS[:1], queries, [-1.0, -1.0], 1.0)
    np.testing.assert_array_equal(without_class_1[:, 1], [-np.inf, -np.inf])
    runs = [(scores, [[1, 0], [0, 1]]), (scores[:1], [[0, 1]])]
    assert oracle.within_alphabet_accuracy(runs) == pytest.approx(2 / 3)


def test_binary_cross_entropy_by_hand():
    assert oracle.binary_cross_entropy([0.25, 0.25], [1, 0]) == pytest.approx(
        -(np.log(0.25) + np.log(0.75)) / 2
    )


def test_distort_by_hand():
    image = np.arange(1.0, 10.0).reshape(3, 3)
    np.testing.assert_allclose(oracle.distort(image), image)
    np.testing.assert_allclose(oracle.distort(image, rotation=90), np.rot90(image, -1))  # clockwise
    np.testing.assert_allclose(
        oracle.distort(image, shift=(1, 0), background=7), [[7, 1, 2], [7, 4, 5], [7, 7, 8]]
    )
    np.testing.assert_allclose(
        oracle.distort(image, shift=(0, 0.5)), [[0.5, 1, 1.5], [2.5, 3.5, 4.5], [5.5, 6.5, 7.5]]
    )
    lean = oracle.distort(image, shear=(np.pi / 4, 0))  # Row y moves by y - 1 to the right.
    np.testing.assert_allclose(lean, [[2, 3, 0], [4, 5, 6], [0, 7, 8]], atol=1e-12)
    lean = oracle.distort(image, shear=(0, np.pi / 4))  # Column x moves by x - 1 down.
    np.testing.assert_allclose(lean, [[4, 2, 0], [7, 5, 3], [0, 8, 6]], atol=1e-12)
    np.testing.assert_allclose(oracle.distort(image, scale=(2, 1))[0], [1.5, 2, 2.5])


def test_distort_composes_in_the_stated_order():
    """Scale first, then shear, rotation and shift: a single ink pixel lands where the forward map
    sends it."""
    image = np.zeros((11, 11))
    # (x, y) - centre = (1, 0): scaled to (2, 0), sheared to (2, 2), turned to (-2, 2), shifted.
    image[5, 6] = 1
    out = oracle.distort(image, rotation=90, shear=(0, np.pi / 4), scale=(2, 1), shift=(1, -1))
    assert out[5 + 2 - 1, 5 - 2 + 1] == pytest.approx(1)
    matrix = oracle.affine_matrix(90, (0, np.pi / 4), (2, 1))
    np.testing.assert_allclose(matrix @ [1, 0], [-2, 2], atol=1e-12)


def test_finite_difference_gradient():
    a = random(2, 3)
    np.testing.assert_allclose(
        oracle.finite_difference_gradient(lambda x: np.sum(x**3), a), 3 * a**2, rtol=1e-6
    )
