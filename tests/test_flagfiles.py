"""Every flagfile parses, builds its learner, and has its paper's figure beside it."""
import functools
import json

import pytest
from absl import flags
from command import ROOT

from maml_tf import algorithms, command_line
from maml_tf.episodes.sources import SOURCES, episode_spec
from maml_tf.run_directory import experiment_string

FLAGFILES = sorted((ROOT / 'flags').glob('*/*.flags'))


class Flags:
    """absl.flags with values of its own: flags are defined once a process, and this one's belong to pytest."""

    def __init__(self):
        self.FLAGS = flags.FlagValues()

    def __getattr__(self, name):
        return functools.partial(getattr(flags, name), flag_values=self.FLAGS)


@pytest.mark.parametrize('flagfile', FLAGFILES, ids=lambda path: path.stem)
def test_flagfile(flagfile):
    ours = Flags()
    command_line.define_flags(ours)
    values = ours.FLAGS
    values(['run_maml.py', f'--flagfile={flagfile}'])
    assert experiment_string(values).startswith(f'cls_{values.num_classes}.mbs_{values.meta_batch_size}.')
    source = SOURCES[values.datasource]
    spec = episode_spec(values, training=True)
    network = source.network(values, source.input_shape(values), spec.way)
    learner = algorithms.registry()[values.algorithm].from_flags(values, network, None)
    assert learner.count_params() > 1000
    words = flagfile.stem.split('_')
    assert values.datasource == words[0] and f'{spec.shot}shot' in words
    assert not source.classification or f'{spec.way}way' in words
    replay = Flags()
    command_line.define_flags(replay)
    replay.FLAGS(['run_maml.py', *command_line.as_flagfile(values).splitlines()])
    assert command_line.as_dict(replay.FLAGS) == command_line.as_dict(values)


@pytest.mark.parametrize('flagfile', FLAGFILES, ids=lambda path: path.stem)
def test_figure_beside_it(flagfile):
    content = json.loads(flagfile.with_suffix('.json').read_text('utf-8'))
    assert {'title', 'paper', 'ours'} <= set(content)
    assert {'source', 'metric', 'steps', 'mean', 'ci95'} == set(content['paper'])
    if ours := content['ours']:
        assert ours['steps'] == content['paper']['steps'] and len(ours['mean']) == len(ours['ci95'])
        assert ours['split'] == 'test' and ours['tasks'] == 600 and ours['iterations'] <= ours['of_iterations']
