"""Alpha MAML against a NumPy program of its equations, finite differences and MAML."""

import keras
import numpy as np
import optimisation_oracle as oracle
import pytest
import relatives_oracle
import tensorflow as tf

from maml_tf.algorithms.optimisation.alpha_maml import AlphaMAML
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.classification import Classification
from maml_tf.objectives.regression import Regression
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import TrainingOp
from maml_tf.training.phases import OuterLoop

TASKS, FEATURES, WAY, SHOTS = 3, 4, 3, 2
NORMS = ['None', 'batch_norm', 'layer_norm']
ALPHA, BETA = 2.5 / 16, 1.0 / 16
# Steps of the rates, so large that every iteration moves both by more than a thousandth.
KAPPAS = 0.05, 0.02


def random_tasks(rng, regression=False, tasks=TASKS):
    """Some tasks as the oracle takes them: (support_x, support_y, query_x, query_y), arrays."""
    labels = lambda shots: np.repeat(np.eye(WAY), shots, axis=0)
    if regression:
        labels = lambda shots: rng.normal(size=(WAY * shots, WAY))
    draw = lambda shots: (rng.normal(size=(WAY * shots, FEATURES)), labels(shots))
    return [(*draw(SHOTS), *draw(SHOTS + 1)) for _ in range(tasks)]


def stacked(tasks):
    return Task(*(tf.constant(np.stack(arrays)) for arrays in zip(*tasks)))


def random_learner(norm='None', hidden=(4, 3), regression=False, kappas=KAPPAS, **kwargs):
    """A learner whose weights are all far from where they start."""
    rng = np.random.default_rng(0)
    settings = {'inner_lr': ALPHA, 'meta_lr': BETA, **kwargs}
    learner = AlphaMAML(
        FullyConnected((FEATURES,), WAY, hidden, norm),
        Regression() if regression else Classification(),
        inner_rate_step=kappas[0],
        outer_rate_step=kappas[1],
        dtype='float64',
        **settings,
    )
    for variable in learner.meta_weights.values():
        variable.assign(0.5 * rng.normal(size=variable.shape))
    return learner


def values(learner):
    return {name: np.array(variable) for name, variable in learner.meta_weights.items()}


def adapted(learner):
    """Names of what the inner loop changes: not the normalisation variables."""
    return [name for name in learner.meta_weights if not name.startswith('norm')]


def rates(learner):
    return float(learner.inner_rate.value), float(learner.outer_rate.value)


def step_of(iteration):
    return tf.constant(iteration, tf.int64)


def by_name(learner, gradients):
    """{name: array}; every trainable variable is a weight."""
    assert len(gradients) == len(learner.trainable_variables)
    of = {id(v): np.array(g) for v, g in zip(learner.trainable_variables, gradients)}
    result = {name: of.pop(id(v)) for name, v in learner.meta_weights.items()}
    assert not of
    return result


def assert_alike(ours, theirs, rtol=1e-9, atol=1e-12):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol, atol, err_msg=name)


def change_of_alpha(update, alpha=ALPHA):
    """dL_query / dalpha, as the state has it."""
    return (alpha - float(update.state['inner_rate'])) / KAPPAS[0]


# The inner rate


def test_rates_start_where_the_arguments_say():
    learner = random_learner(norm='batch_norm', inner_lr=0.03, meta_lr=0.007)
    np.testing.assert_allclose(rates(learner), [0.03, 0.007], rtol=1e-12)
    for rate in (learner.inner_rate, learner.outer_rate):
        assert tuple(rate.shape) == ()
        assert not any(rate is v for v in learner.trainable_variables)
        assert any(rate is v for v in learner.variables)
    assert {id(v) for v in learner.trainable_variables} == {
        id(v) for v in learner.meta_weights.values()
    }


@pytest.mark.parametrize('rematerialise', [False, True])
@pytest.mark.parametrize('steps', [1, 3])
@pytest.mark.parametrize('norm', NORMS)
def test_hypergradient_is_the_central_difference(norm, steps, rematerialise):
    """Of the learner's own query loss, with the inner rate on either side."""
    settings = {'inner_steps': steps, 'rematerialise': rematerialise}
    learner, task = (
        random_learner(norm, **settings),
        stacked(random_tasks(np.random.default_rng(1))),
    )
    ours = change_of_alpha(learner.meta_gradients(task, step_of(0)))
    ends, shift = [], 1e-5
    for sign in (1, -1):
        learner.inner_rate.assign(ALPHA + sign * shift)
        ends.append(float(learner.meta_gradients(task, step_of(0)).log['post_loss']))
    difference = (ends[0] - ends[1]) / (2 * shift)
    assert abs(difference) > 0.05
    np.testing.assert_allclose(ours, difference, rtol=1e-6)


@pytest.mark.parametrize('rematerialise', [False, True])
@pytest.mark.parametrize('stop_grad', [False, True])
@pytest.mark.parametrize('regression', [False, True])
@pytest.mark.parametrize('norm', NORMS)
def test_hypergradient_and_meta_gradient(norm, regression, stop_grad, rematerialise):
    """Against the complex step through two inner steps, and the sums of -<query, support>.

    With inner gradients held constant the derivative is a sum of such products.
    """
    settings = {'inner_steps': 2, 'stop_grad': stop_grad, 'rematerialise': rematerialise}
    learner = random_learner(norm, regression=regression, **settings)
    tasks = random_tasks(np.random.default_rng(2), regression)
    shots, weights = None if regression else SHOTS, values(learner)
    arguments = weights, ALPHA, adapted(learner), tasks, 2, shots
    update = learner.meta_gradients(stacked(tasks), step_of(0))
    expected = [relatives_oracle.hypergradient(*arguments, stop) for stop in (False, True)]
    assert abs(expected[stop_grad]) > 1e-2 and abs(expected[0] - expected[1]) > 1e-4
    np.testing.assert_allclose(change_of_alpha(update), expected[stop_grad], rtol=1e-9)
    gradients = relatives_oracle.maml_gradients(*arguments, stop_grad)
    assert_alike(by_name(learner, update.gradients), gradients)

    products = []
    for task in tasks:
        fixed = {name: ALPHA for name in adapted(learner)}
        *before, end = oracle.meta_sgd_trajectory(weights, fixed, task, 2, shots)
        back = oracle.gradient(end, *task[2:], shots)
        slopes = [oracle.gradient(phi, *task[:2], shots) for phi in before]
        products.append(-sum((back[name] * s[name]).sum() for s in slopes for name in fixed))
    np.testing.assert_allclose(np.mean(products), expected[True], rtol=1e-9)


@pytest.mark.parametrize('stop_grad', [False, True])
@pytest.mark.parametrize('norm', NORMS)
def test_one_step_is_the_paper_s_product(norm, stop_grad):
    """alpha + kappa * mean <grad L_query(theta'), grad L_support(theta)>, of what adapts."""
    learner = random_learner(norm, stop_grad=stop_grad)
    tasks, weights = random_tasks(np.random.default_rng(3)), values(learner)
    products = []
    for task in tasks:
        slope = oracle.gradient(weights, *task[:2], SHOTS)
        after = weights | {k: weights[k] - ALPHA * slope[k] for k in adapted(learner)}
        back = oracle.gradient(after, *task[2:], SHOTS)
        products.append(sum((back[k] * slope[k]).sum() for k in adapted(learner)))
    assert abs(np.mean(products)) > 0.05
    update = learner.meta_gradients(stacked(tasks), step_of(0))
    expected = ALPHA + KAPPAS[0] * np.mean(products)
    np.testing.assert_allclose(update.state['inner_rate'], expected, rtol=1e-11)


@pytest.mark.parametrize('stop_grad', [False, True])
def test_with_its_rate_it_is_maml(stop_grad):
    """The gradients are MAML's, also after the rate has moved; so is evaluation."""
    learner = random_learner('batch_norm', inner_steps=2, stop_grad=stop_grad)
    learner.inner_rate.assign(0.31)
    maml = MAML(
        learner.network,
        Classification(),
        inner_lr=0.31,
        inner_steps=2,
        stop_grad=stop_grad,
        dtype='float64',
    )
    for name, variable in maml.meta_weights.items():
        variable.assign(learner.meta_weights[name])
    task = stacked(random_tasks(np.random.default_rng(4)))
    updates = [which.meta_gradients(task, step_of(0)) for which in (learner, maml)]
    assert_alike(*(by_name(w, u.gradients) for w, u in zip((learner, maml), updates)))
    outputs = [which.query_outputs(task, 4) for which in (learner, maml)]
    assert np.abs(outputs[1][4] - outputs[1][0]).max() > 0.1
    np.testing.assert_allclose(*outputs, rtol=1e-9, atol=1e-11)
    states = [which.adapt(task.support_x, task.support_y) for which in (learner, maml)]
    assert_alike(*states)


# The outer rate


def gradient_descent(learner):
    return keras.optimizers.SGD(learning_rate=lambda: learner.outer_rate.value)


def of_the_phase(learner, **kwargs):
    """The optimizer of meta-training; the rate of the OuterLoop is another than the learner's."""
    outer = OuterLoop(0, 10, BETA, EpisodeSpec(WAY, SHOTS, SHOTS + 1), **kwargs)
    return learner.phases(outer)[-1].optimizer


def trained(learner, optimizer, batches, compiled=False):
    """[(weights, alpha, beta)] after every iteration by the training op."""
    op, results = TrainingOp(learner, optimizer, learner.meta_gradients), []
    if compiled:
        op = tf.function(op, autograph=False, jit_compile=True)
    for iteration, tasks in enumerate(batches):
        op(stacked(tasks), step_of(iteration))
        results.append((values(learner), *rates(learner)))
    return results


def assert_same_course(ours, theirs, rtol, atol):
    assert len(ours) == len(theirs)
    for (weights, *own_rates), (expected, *their_rates) in zip(ours, theirs):
        np.testing.assert_allclose(own_rates, their_rates, rtol=rtol)
        assert_alike(weights, expected, rtol, atol)


@pytest.mark.parametrize(
    'norm, steps, stop_grad, compiled',
    [
        ('None', 1, False, False),
        ('None', 1, False, True),
        ('batch_norm', 2, False, False),
        ('layer_norm', 2, True, False),
    ],
)
def test_four_iterations_of_gradient_descent(norm, steps, stop_grad, compiled):
    """Weights and rates; G_t steps with the rate that it has moved, alpha moves after it."""
    learner = random_learner(norm, inner_steps=steps, stop_grad=stop_grad)
    rng = np.random.default_rng(5)
    batches = [random_tasks(rng) for _ in range(4)]
    expected = relatives_oracle.alpha_maml(
        *(values(learner), ALPHA, BETA, batches, adapted(learner), steps, KAPPAS),
        *(relatives_oracle.gradient_descent(), SHOTS, stop_grad),
    )
    betas = np.array([BETA] + [beta for _, _, beta in expected])
    assert betas[1] == BETA and np.abs(np.diff(betas)[1:]).min() > 1e-3
    assert np.abs(np.diff([ALPHA] + [alpha for _, alpha, _ in expected])).min() > 1e-3
    ours = trained(learner, gradient_descent(learner), batches, compiled)
    assert_same_course(ours, expected, 1e-8, 1e-10)


@pytest.mark.parametrize('clip', [None, 0.05])
def test_the_product_of_the_gradients(clip):
    """beta + kappa <G_t, G_{t-1}> in the state, and nothing assigned before the step.

    With a clip u is what the last step was made of; G_t, the derivative, has none.
    """
    learner, rng = random_learner('layer_norm', clip=clip), np.random.default_rng(6)
    first, second = (stacked(random_tasks(rng)) for _ in range(2))
    op = TrainingOp(learner, gradient_descent(learner), learner.meta_gradients)
    update = learner.meta_gradients(first, step_of(0))
    np.testing.assert_allclose(update.state['outer_rate'], BETA, rtol=1e-12)
    assert rates(learner) == pytest.approx((ALPHA, BETA), rel=1e-12)
    before = by_name(learner, update.gradients)
    if clip is not None:
        assert max(np.abs(gradient).max() for gradient in before.values()) > 2 * clip
        before = {name: np.clip(gradient, -clip, clip) for name, gradient in before.items()}
    op(first, step_of(0))
    update = learner.meta_gradients(second, step_of(1))
    product = relatives_oracle.dot(by_name(learner, update.gradients), before)
    assert abs(product) > 0.1
    np.testing.assert_allclose(update.state['outer_rate'], BETA + KAPPAS[1] * product, rtol=1e-9)


def adam_of_few_digits(learner):
    """An Adam whose decays are the same in float32, in which Keras keeps some of its numbers."""
    rate = lambda: learner.outer_rate.value
    return keras.optimizers.Adam(rate, beta_1=0.875, beta_2=1 - 2.0**-10, epsilon=1e-8)


@pytest.mark.parametrize(
    'make, decays, rtol, atol',
    [(adam_of_few_digits, (0.875, 1 - 2.0**-10), 1e-8, 1e-10), (of_the_phase, (), 1e-4, 5e-6)],
)
@pytest.mark.parametrize('norm', ['None', 'batch_norm'])
def test_with_adam_the_last_direction_is_adam_s(norm, make, decays, rtol, atol):
    """Against TensorFlow's Adam in NumPy; the phase's own rounds its decays to float32."""
    kappas = KAPPAS[0], 1e-3
    learner, rng = random_learner(norm, inner_steps=2, kappas=kappas), np.random.default_rng(7)
    optimizer, batches = make(learner), [random_tasks(rng) for _ in range(4)]
    assert isinstance(optimizer, keras.optimizers.Adam)
    # The biases before a batch norm have gradients of rounding errors, which Adam enlarges.
    null = ('b1', 'b2') if norm == 'batch_norm' else ()
    settings = values(learner), ALPHA, BETA, batches, adapted(learner), 2, kappas
    expected = relatives_oracle.alpha_maml(*settings, relatives_oracle.adam(*decays), SHOTS)
    betas = [beta for _, _, beta in expected]
    assert betas[0] == BETA and np.abs(np.diff(betas)).min() > 1e-4
    ours = trained(learner, optimizer, batches)
    for course in (ours, expected):
        for weights, *_ in course:
            for name in null:
                del weights[name]
    assert_same_course(ours, expected, rtol, atol)
    # Of the last gradient, rather than Adam's direction, the rate would be another.
    plain = relatives_oracle.alpha_maml(*settings, relatives_oracle.gradient_descent(), SHOTS)
    assert abs(plain[1][2] - betas[1]) > 5e-4


def test_the_optimizer_steps_with_the_learner_s_rate():
    """Not with that of the OuterLoop, which it may have moved away from."""
    learner, task = random_learner(), stacked(random_tasks(np.random.default_rng(8)))
    before, optimizer = values(learner), of_the_phase(learner)
    learner.outer_rate.assign(0.4)
    gradients = by_name(learner, learner.meta_gradients(task, step_of(0)).gradients)
    TrainingOp(learner, optimizer, learner.meta_gradients)(task, step_of(0))
    expected = relatives_oracle.plus(before, -0.4, relatives_oracle.adam()(gradients))
    assert_alike(values(learner), expected, 1e-4, 1e-5)


# Spread over shares


def two_iterations(learner, rng):
    """The learner after two iterations; (tasks of) a third."""
    batches = [random_tasks(rng) for _ in range(3)]
    trained(learner, gradient_descent(learner), batches[:2])
    return batches[2]


def test_state_is_a_mean_over_tasks():
    learner = random_learner('layer_norm', inner_steps=2)
    tasks = two_iterations(learner, np.random.default_rng(9))
    whole = learner.meta_gradients(stacked(tasks), step_of(2))
    single = [learner.meta_gradients(stacked([task]), step_of(2)) for task in tasks]
    assert set(whole.state) >= {'inner_rate', 'outer_rate'}
    for name, value in whole.state.items():
        mean = np.mean([update.state[name] for update in single], 0)
        np.testing.assert_allclose(value, mean, rtol=1e-9, atol=1e-12, err_msg=name)
    for name in ('inner_rate', 'outer_rate'):
        assert np.ptp([float(update.state[name]) for update in single]) > 1e-3
    mean = oracle.mean([by_name(learner, update.gradients) for update in single])
    assert_alike(by_name(learner, whole.gradients), mean)


@pytest.mark.parametrize(
    'make', [pytest.param(gradient_descent, marks=pytest.mark.slow), of_the_phase]
)
def test_in_shares_it_learns_the_same(make):
    """Every variable after four iterations of three tasks, one task at a time."""
    rng, courses = np.random.default_rng(10), []
    pool = [tf.constant(np.stack(arrays)) for arrays in zip(*random_tasks(rng, tasks=12))]
    draw = lambda start, count: Task(
        *(tf.gather(x, (start + tf.range(count, dtype=tf.int64)) % 12) for x in pool)
    )
    for at_once in (None, 1):
        learner = random_learner(inner_steps=2, kappas=(KAPPAS[0], 1e-3))
        learner.xla = False  # Its programs take long to compile.
        op = TrainingOp(learner, make(learner), learner.meta_gradients)
        iterate(op, draw, TASKS, at_once)(0, 4)
        courses.append({v.path.split('/', 1)[1]: np.array(v) for v in learner.variables})
    assert abs(courses[0]['outer_rate'] - BETA) > 1e-4
    assert abs(courses[0]['inner_rate'] - ALPHA) > 1e-3
    assert_alike(*courses, 1e-8, 1e-10)


def test_both_rates_stay_where_their_steps_are_zero():
    """It is MAML with gradient descent."""
    learner = random_learner(kappas=(0.0, 0.0))
    rng = np.random.default_rng(11)
    batches = [random_tasks(rng) for _ in range(3)]
    weights = values(learner)
    for (ours, *own_rates), tasks in zip(
        trained(learner, gradient_descent(learner), batches), batches
    ):
        gradient = relatives_oracle.maml_gradients(
            weights, ALPHA, adapted(learner), tasks, 1, SHOTS
        )
        weights = relatives_oracle.plus(weights, -BETA, gradient)
        assert own_rates == pytest.approx([ALPHA, BETA], rel=1e-12)
        assert_alike(ours, weights, 1e-8, 1e-10)
