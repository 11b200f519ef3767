"""What a card says of a run, line by line."""

import pytest

from maml_tf.algorithms.metric.prototypical import Prototypical
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.commands.command_line import parsed
from maml_tf.saving.exports import model_card
from maml_tf.saving.exports.saved_model import versions

RESULTS = {
    'protocol': {},
    'axis': {'name': 'inner steps', 'values': [0, 10]},
    **{'split': 'test', 'tasks': 600, 'metric': 'accuracy', 'unit': '%', 'transductive': False},
    **{'mean': [0.2, 0.9512], 'ci95': [0.01, 0.0034]},
}


@pytest.mark.parametrize('method', [MAML, Prototypical])
def test_what_it_says(method):
    flags = parsed('--datasource=omniglot', '--num_classes=5', '--update_batch_size=1')
    learner, steps = method.tiny()[0], {}
    if learner.takes_steps:
        steps = {'inner_steps': 10}
    content = {
        **model_card.of_learner(learner),
        **model_card.of_run(flags, RESULTS),
        **{'iteration': 40000, 'versions': versions(), 'sha256': {'saved_model.pb': 'c0ffee'}},
        **steps,
    }
    page = model_card.text('mine', content)
    name = 'maml' if method is MAML else 'prototypical'
    for words in (
        f'| method | `{name}`: ',
        '| data | omniglot, its ',
        '| licence of the data | ',
        '| trained on | 5-way 1-shot tasks',
        '| iterations | 40,000 |',
        '| accuracy | 95.12 ± 0.34 % (the mean and its 95 % interval over 600 test tasks, 5-way 1-',
        'after 10 inner steps',
        '| batch norm | ',
        '| versions | maml_tf ',
        '| saved_model.pb | `c0ffee` |',
    ):
        assert words in page, page
    assert ('| inner steps | 10 |' in page) == (method is MAML)
    assert 'accuracy' not in model_card.text('mine', content | {'evaluation': None})
