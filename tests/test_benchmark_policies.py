"""Both sides of the policies benchmark compute the same: an independent program of all of MAML with
TRPO, from the rollouts to the line search. No times."""

import importlib.util
import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / 'benchmarks'))
import policies  # noqa: E402


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec('torch'), reason='PyTorch is not installed')
@pytest.mark.parametrize('datasource', policies.RATES)
def test_both_sides_compute_the_same(tmp_path, datasource):
    import torch_rl

    if datasource != 'navigation2d':
        pytest.importorskip('mujoco.batch', reason='MuJoCo is not installed')
        pytest.importorskip('gymnasium', reason='gymnasium is not installed')
    ours = policies.Side(datasource, 3, 4)
    ours.write(tmp_path / 'first.npz')
    rate = policies.RATES[datasource]
    theirs = torch_rl.Side(datasource, 3, 4, rate, tmp_path / 'first.npz')
    expected, found = theirs.first_step(), ours.first_step()
    for name in ('pre_return', 'post_return', 'gradient_norm'):
        assert found[name] == pytest.approx(expected[name], rel=2e-3), json.dumps(expected)
    # In float32 ten conjugate gradients of a matrix this ill-conditioned differ by a few percent.
    for name in ('surrogate', 'kl'):
        assert found[name] == pytest.approx(expected[name], rel=0.1), json.dumps(expected)
    weights = ours._policy.learner.trainable_variables
    for one, other in zip(weights, theirs._weights):
        assert one.numpy() == pytest.approx(other.numpy(), abs=1e-2)
