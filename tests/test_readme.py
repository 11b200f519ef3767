"""What the pages show runs as it stands there, and what they link to exists."""

import json
import re

import pytest
from command import ROOT

from maml_tf.algorithms.metric.prototypical import Prototypical
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.saving.exports.export import export

ROOMS = ('data', 'flags', 'maml_tf', 'tests')
PAGES = sorted(ROOT.glob('*.md')) + sorted(p for room in ROOMS for p in (ROOT / room).rglob('*.md'))


def blocks(language):
    """{page and number: text} of the code blocks in a language."""
    found = {}
    for page in PAGES:
        texts = re.findall(rf'```{language}\n(.*?)```', page.read_text('utf-8'), flags=re.DOTALL)
        for number, text in enumerate(texts):
            found[f'{page.relative_to(ROOT)}-{number}'] = text
    return found


PYTHON = blocks('python')


def test_saved_model_of_a_metric_learner(tmp_path, monkeypatch, capsys):
    (block,) = (block for block in PYTHON.values() if 'saved_model.load' in block)
    learner, _ = Prototypical.tiny()
    export(learner, tmp_path / 'learner', (16, 16, 1), 3, 1, {})
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert 'shape=(1, 7, 5)' in capsys.readouterr().out


@pytest.mark.parametrize(
    'block',
    [
        pytest.param(block, id=name, marks=[pytest.mark.slow] * (not name.startswith('README')))
        for name, block in PYTHON.items()
    ],
)
def test_python_block(block, tmp_path, monkeypatch, capsys):
    learner, spec = MAML.tiny()
    export(
        learner, tmp_path / 'learner', learner.network.input_shape, spec.way, 2, {'way': spec.way}
    )
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    printed = capsys.readouterr().out
    if 'predict_query' in block and 'probabilities' in block:
        assert 'shape=(1, 7, 3)' in printed
    if '# [tasks, queries, 1]' in block:
        assert '(1, 10, 1)' in printed


def test_there_are_blocks():
    pages = [name.rpartition('-')[0] for name in PYTHON]
    assert pages.count('README.md') == 1 and pages.count('maml_tf/README.md') == 4


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r'```.*?```', '', page.read_text('utf-8'), flags=re.DOTALL)
    for target in re.findall(r'\]\(([^)\s]+)\)', text):
        if target.startswith(('http://', 'https://')):
            continue
        path, _, heading = target.replace('\\', '').partition('#')
        linked = page.parent / path if path else page
        assert linked.exists(), target
        if heading:
            headings = re.findall(r'^#+ (.*)$', linked.read_text('utf-8'), flags=re.MULTILINE)
            anchors = [re.sub(r'[^\w\- ]', '', h.lower()).replace(' ', '-') for h in headings]
            assert heading in anchors, target


def test_the_shown_companion_of_a_flagfile_is_the_one_that_is_there():
    (shown,) = (json.loads(text) for text in blocks('json').values() if '"paper"' in text)
    path = ROOT / 'flags/meta_sgd/sinusoid_frequency_10shot.json'
    there = json.loads(path.read_text('utf-8'))
    assert {**shown, 'ours': there['ours']} == there
