"""Both sides of the heads benchmark compute the same; its quadratic programme is that of the NumPy
oracle. No times."""

import importlib.util
import json
import pathlib
import sys

import heads_oracle
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / 'benchmarks'))
import heads  # noqa: E402

needs_torch = pytest.mark.skipif(
    not importlib.util.find_spec('torch'), reason='PyTorch is not installed'
)
# More features than support examples, and fewer: R2-D2's two systems.
WIDE = {'input_shape': (20, 17, 3), 'tasks': 2, 'way': 3, 'shot': 2, 'query': 2, 'filters': 8}
NARROW = WIDE | {'input_shape': (16, 16, 1), 'tasks': 1, 'shot': 4}


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other would take most of the time of matrices this small."""
    if not importlib.util.find_spec('torch'):
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize('method', heads.METHODS)
@pytest.mark.parametrize('sizes', (WIDE, NARROW), ids=('wide', 'narrow'))
def test_pytorch_computes_what_the_package_computes(method, sizes):
    import torch_heads

    workload = heads.episode(method, **sizes).workload
    ours = heads.TensorFlowSide(method, workload).first_step()
    assert ours['gradient_norm'] > 0.01
    for style in torch_heads.STYLES if method == 'metaoptnet' else torch_heads.STYLES[:2]:
        theirs = torch_heads.Side(workload, method, style).first_step()
        assert theirs == pytest.approx(ours, rel=1e-4)


@needs_torch
@pytest.mark.parametrize('solver', ('ByClass', 'Whole'))
def test_pytorch_solves_the_quadratic_programme(solver):
    import torch
    import torch_heads

    rng = np.random.default_rng(0)
    features, labels = 3 * rng.standard_normal((2, 6, 4)), np.repeat(np.eye(3), 2, axis=0)
    solve = lambda features: torch_heads.CrammerSinger.apply(
        features @ features.mT,
        torch.from_numpy(labels).expand(2, 6, 3),
        getattr(torch_heads, solver),
    )
    alpha = solve(torch.from_numpy(features))
    for x, found in zip(features, alpha.numpy(), strict=True):
        expected = heads_oracle.crammer_singer(x @ x.T, labels)
        np.testing.assert_allclose(found, expected, atol=1e-8)
        of_class = found[labels > 0]
        assert 0 < np.sum(of_class < 0.1 - 1e-3) < 6  # Some bounds bind, some do not.
    features = torch.from_numpy(features).requires_grad_()
    assert torch.autograd.gradcheck(solve, features, atol=1e-6, fast_mode=True)


@needs_torch
def test_pytorch_takes_as_many_steps_in_the_head():
    import torch_heads

    lrd2, metaoptnet = (
        heads.build_learner(method, heads.episode(method, **NARROW).workload)
        for method in ('lrd2', 'metaoptnet')
    )
    assert lrd2.steps == torch_heads.NEWTON_STEPS
    assert metaoptnet.iterations == torch_heads.INTERIOR_STEPS


def test_operations_are_three_passes_of_the_convolutions_but_for_the_images():
    sizes = {'tasks': 2, 'way': 3, 'shot': 4, 'query': 1, 'filters': 2}
    forwards = [9 * 1 * 2 * 16 * 16, *(9 * 2 * 2 * side * side for side in (8, 4, 2))]
    expected = 2 * (2 * 3 * 5) * (3 * sum(forwards) - forwards[0])
    counted = heads.episode('r2d2', (16, 16, 1), **sizes).gflop()
    assert counted == pytest.approx(expected / 1e9, rel=1e-12)


def test_one_table_holds_all_ratios():
    side = lambda ms: {'ms': ms, 'peak_mb': 1500.0, 'seconds': 2.0}
    result = {'gflop': 2.0, 'matmul_gflops': [100.0]}
    sides = {'ours': side([39.0, 40.0, 43.0]), 'torch': side([50.0])}
    whole = sides | {'torch_whole': side([80.0])}
    text = heads.table(
        {
            'r2d2_omniglot': result | {'sides': sides},
            'metaoptnet_cifar_fs': result | {'sides': whole},
        }
    )
    _, _, first, second = text.splitlines()
    assert first.startswith('| r2d2_omniglot | 40 | 39.5 - 41.5 | 25 | 50 (×1.25) |  |  | 2.00 |')
    assert '| 200 | 50 (×1.25) |  | 80 (×2.00) | 2.00 | 1.50, 1.50 | 2.0, 2.0 |' in second


@pytest.mark.slow
def test_a_run_writes_table_and_json(tmp_path, monkeypatch, capsys):
    tiny = heads.episode('r2d2', **NARROW, steps=1)
    monkeypatch.setitem(heads.EPISODES, 'r2d2_omniglot', tiny)
    monkeypatch.setattr(heads.step_time, 'MATMUL', 64)
    output = tmp_path / 'heads.json'
    heads.main(['--episodes=r2d2_omniglot', '--sides=ours', '--rounds=2', f'--output={output}'])
    measured = json.loads(output.read_text())['episodes']['r2d2_omniglot']
    assert len(measured['sides']['ours']['ms']) == len(measured['matmul_gflops']) == 2
    expected = heads.TensorFlowSide('r2d2', tiny.workload).first_step()
    assert measured['sides']['ours']['loss'] == pytest.approx(expected['loss'], rel=1e-4)
    assert '| r2d2_omniglot |' in capsys.readouterr().out
