"""The README's Python runs as it stands there."""

import re

import pytest
from command import ROOT

from maml_tf.algorithms.metric.prototypical import Prototypical
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.saving.export import export

BLOCKS = re.findall(
    r'```python\n(.*?)```', (ROOT / 'README.md').read_text('utf-8'), flags=re.DOTALL
)


def test_saved_model_of_a_metric_learner(tmp_path, monkeypatch, capsys):
    (block,) = (block for block in BLOCKS if 'saved_model.load' in block)
    learner, _ = Prototypical.tiny()
    export(learner, tmp_path / 'learner', (16, 16, 1), 3, 1, {})
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert 'shape=(1, 7, 5)' in capsys.readouterr().out


@pytest.mark.parametrize('block', BLOCKS, ids=range(len(BLOCKS)))
def test_python_block(block, tmp_path, monkeypatch, capsys):
    learner, spec = MAML.tiny()
    export(
        learner, tmp_path / 'learner', learner.network.input_shape, spec.way, 2, {'way': spec.way}
    )
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    if 'predict_query' in block and 'probabilities' in block:
        assert 'shape=(1, 7, 3)' in capsys.readouterr().out


def test_there_are_blocks():
    assert len(BLOCKS) == 3
