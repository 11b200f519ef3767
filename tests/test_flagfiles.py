"""Every flagfile parses, builds its learner, and has its paper's figure beside it."""

import json

import pytest
from command import ROOT

from maml_tf import algorithms
from maml_tf.commands import command_line
from maml_tf.commands.command_line import parsed
from maml_tf.datasets.sources import SOURCES, episode_spec
from maml_tf.saving.run_directory import experiment_string

FLAGFILES = sorted((ROOT / 'flags').glob('*/*.flags'))


@pytest.mark.parametrize('flagfile', FLAGFILES, ids=lambda path: f'{path.parent.name}-{path.stem}')
def test_flagfile(flagfile):
    values = parsed(f'--flagfile={flagfile}')
    training_way = values.train_num_classes or values.num_classes
    assert experiment_string(values).startswith(f'cls_{training_way}.mbs_{values.meta_batch_size}.')
    source, spec = SOURCES[values.datasource], episode_spec(values)
    assert episode_spec(values, training=True).query > 0
    network = source.network(values, source.input_shape(values), spec.way)
    learner = algorithms.registry()[values.algorithm].from_flags(values, network, None)
    assert learner.count_params() > 1000 and values.algorithm == flagfile.parent.name
    words = flagfile.stem.split('_')
    assert flagfile.stem.startswith(values.datasource) and f'{spec.shot}shot' in words
    assert not source.classification or f'{spec.way}way' in words
    replayed = parsed(*command_line.as_flagfile(values).splitlines())
    assert command_line.as_dict(replayed) == command_line.as_dict(values)


@pytest.mark.parametrize('flagfile', FLAGFILES, ids=lambda path: f'{path.parent.name}-{path.stem}')
def test_figure_beside_it(flagfile):
    content = json.loads(flagfile.with_suffix('.json').read_text('utf-8'))
    assert {'title', 'paper', 'ours'} <= set(content)
    assert {'source', 'metric', 'steps', 'mean', 'ci95'} == set(content['paper'])
    if ours := content['ours']:
        assert ours['steps'] == content['paper']['steps'] and len(ours['mean']) == len(ours['ci95'])
        assert (
            ours['split'] == 'test' and ours['tasks'] == parsed(f'--flagfile={flagfile}').test_tasks
        )
        assert ours['iterations'] <= ours['of_iterations']
