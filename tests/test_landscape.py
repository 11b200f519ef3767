"""Pre-training against meta-learning in two dimensions: where they end is known in closed form."""

import numpy as np
import pytest

from maml_tf.commands.views.landscape import main
from maml_tf.evaluation import landscape


def quadratics():
    """(Hessian, optimum) of each task's mean squared error in (slope, intercept)."""
    for line, ends in zip(landscape.LINES, landscape.RANGES):
        x = np.linspace(*ends, landscape.POINTS)
        features = np.stack([x, np.ones_like(x)], axis=1)
        yield 2 * features.T @ features / len(x), np.array(line)


def least(matrices):
    """Where the sum of (w - optimum)' M (w - optimum) is least."""
    pull = sum(matrix @ best for matrix, (_, best) in zip(matrices, quadratics()))
    return np.linalg.solve(sum(matrices), pull)


@pytest.fixture(scope='module')
def journeys():
    return landscape.travel()


def test_pre_training_ends_where_the_mean_loss_is_least(journeys):
    end = journeys['pre-training'].path[-1]
    np.testing.assert_allclose(end, least([hessian for hessian, _ in quadratics()]), atol=2e-3)


def test_meta_learning_ends_where_the_loss_after_a_step_is_least(journeys):
    rate = landscape.INNER_LR
    steps = [np.eye(2) - rate * hessian for hessian, _ in quadratics()]
    after = [step @ hessian @ step for step, (hessian, _) in zip(steps, quadratics())]
    end = journeys['meta-learning'].path[-1]
    np.testing.assert_allclose(end, least(after), atol=2e-3)


@pytest.mark.parametrize('name', ['pre-training', 'meta-learning'])
def test_the_step_and_its_losses(journeys, name):
    journey = journeys[name]
    end = journey.path[-1]
    for task, (hessian, best) in enumerate(quadratics()):
        after = end - landscape.INNER_LR * hessian @ (end - best)
        np.testing.assert_allclose(journey.adapted[task], after, atol=1e-5)
        for point, losses in ((end, journey.before), (after, journey.after)):
            loss = (point - best) @ hessian @ (point - best) / 2
            np.testing.assert_allclose(losses[task], loss, rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(
                landscape.loss_at(point[np.newaxis])[task, 0], loss, rtol=1e-3, atol=1e-5
            )


def test_pre_training_is_better_before_a_step_and_meta_learning_after(journeys):
    pre, meta = journeys['pre-training'], journeys['meta-learning']
    assert pre.before.mean() < meta.before.mean() and meta.after.mean() < pre.after.mean() / 10


def test_command(tmp_path, capsys):
    main(['--picture', str(tmp_path / 'two.png')])
    assert 'meta-learning' in capsys.readouterr().out
    assert (tmp_path / 'two.png').read_bytes().startswith(b'\x89PNG')
