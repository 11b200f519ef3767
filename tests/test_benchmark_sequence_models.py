"""Both sides of the sequence models' benchmark compute the same. No times."""

import importlib.util
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / 'benchmarks'))
import sequence_models  # noqa: E402
import sequence_sides  # noqa: E402
import sequence_weights  # noqa: E402

needs_torch = pytest.mark.skipif(
    not importlib.util.find_spec('torch'), reason='PyTorch is not installed'
)
SIZES = {'input_shape': (16, 16, 1), 'way': 3, 'shot': 2, 'query': 2, 'filters': 8}


@pytest.fixture(autouse=True)
def small_and_in_one_thread(monkeypatch):
    """Threads that wait for each other would take most of the time of matrices this small."""
    monkeypatch.setattr(sequence_weights, 'FILTERS', 16)
    monkeypatch.setattr(sequence_weights, 'ATTENTIONS', ((8, 4), (16, 8), (12, 10)))
    small = {'filters': 16, 'attentions': sequence_weights.ATTENTIONS}
    learner = sequence_sides.SNAIL
    monkeypatch.setattr(sequence_sides, 'SNAIL', lambda *args: learner(*args, **small))
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
@pytest.mark.parametrize(
    'method,tasks,style',
    [('snail', 3, 'by_task')]
    + [('snail', 1, style) for style in sequence_models.STYLES.values()]
    + [('mann', 2, 'plain')],
)
def test_pytorch_computes_what_the_package_computes(method, tasks, style):
    """SNAIL by task as the package; over the meta-batch all the same if that is a single task."""
    import torch_sequence_models

    workload = sequence_models.case(method, tasks=tasks, **SIZES).workload
    ours = sequence_sides.TensorFlowSide(method, workload).first_step()
    assert ours['gradient_norm'] > 0.01
    theirs = torch_sequence_models.side_of(method, style, workload).first_step()
    assert theirs == pytest.approx(ours, rel=1e-4)


def test_table_has_a_row_for_each_case():
    side = lambda ms: {'ms': ms, 'peak_mb': 1500.0, 'seconds': 2.0}
    sides = {'ours': side([39.0, 40.0, 43.0]), 'torch': side([50.0])}
    result = {'gflop': 2.0, 'matmul_gflops': [100.0], 'sides': sides}
    _, _, row = sequence_models.table({'snail_omniglot': result}).splitlines()
    assert row.startswith('| snail_omniglot | 40 | 39.5 - 41.5 | 50 (×1.25) |  |  | 2.00 |')
