"""Every flagfile parses, builds its learner, and has its paper's figure beside it."""

import json

import absl.flags
import pytest
from command import ROOT

from maml_tf import algorithms
from maml_tf.commands import command_line
from maml_tf.commands.command_line import parsed
from maml_tf.commands.experiment import problem_of
from maml_tf.datasets.sources import SOURCES
from maml_tf.saving.run_name import experiment_string

FLAGFILES = sorted((ROOT / 'flags').glob('*/*.flags'))
of_every_flagfile = pytest.mark.parametrize(
    'flagfile', FLAGFILES, ids=lambda path: f'{path.parent.name}-{path.stem}'
)


def checked(*arguments):
    """The values of a command line that the program would accept."""
    values = parsed(*arguments)
    # absl's own, which every program has.
    absl.flags.DEFINE_string('log_dir', None, 'of absl', flag_values=values)
    command_line.check(values)
    return values


def text_of(name):
    """The text of a flagfile, on one line."""
    lines = (ROOT / 'flags' / f'{name}.flags').read_text('utf-8').splitlines()
    return ' '.join(line.removeprefix('# ') for line in lines)


@of_every_flagfile
def test_flagfile(flagfile):
    values = checked(f'--flagfile={flagfile}')
    problem = problem_of(values)
    spec = problem.evaluation
    assert problem.training.query > 0
    learner = algorithms.registry()[values.algorithm].from_flags(values, problem)
    assert values.algorithm == flagfile.parent.name
    # A classifier of the support set alone has no weights.
    assert learner.count_params() > 1000 or values.algorithm in ('support_only', 'viterbi')
    name = experiment_string(values, learner)
    training_way = values.train_num_classes or values.num_classes
    assert name.startswith(f'cls_{training_way}.mbs_{values.meta_batch_size}.')
    words = flagfile.stem.split('_')
    assert flagfile.stem.startswith(values.datasource) and f'{spec.shot}shot' in words
    assert not SOURCES[values.datasource].classification or f'{spec.way}way' in words
    replayed = parsed(*command_line.as_flagfile(values).splitlines())
    assert command_line.as_dict(replayed) == command_line.as_dict(values)


@of_every_flagfile
def test_figure_beside_it(flagfile):
    content = json.loads(flagfile.with_suffix('.json').read_text('utf-8'))
    assert {'title', 'paper', 'ours'} <= set(content)
    assert set(content) <= {'title', 'paper', 'evaluation', 'note', 'ours'}
    assert {'source', 'metric', 'steps', 'mean', 'ci95'} == set(content['paper']) - {'axis'}
    values = checked(f'--flagfile={flagfile}', *content.get('evaluation', ()))
    if ours := content['ours']:
        assert ours['steps'] == content['paper']['steps'] and len(ours['mean']) == len(ours['ci95'])
        assert ours['split'] == 'test' and ours['tasks'] == values.test_tasks
        assert ours['shot'] == values.update_batch_size
        assert ours['iterations'] <= ours['of_iterations']
        iterations = values.pretrain_iterations + values.metatrain_iterations
        assert ours['of_iterations'] == iterations


def test_every_companion_has_a_flagfile():
    companions = (ROOT / 'flags').glob('*/*.json')
    assert sorted(path.with_suffix('.flags') for path in companions) == FLAGFILES


@of_every_flagfile
def test_no_comment_ends_in_a_value(flagfile):
    for line in flagfile.read_text('utf-8').splitlines():
        assert line.startswith('# ') or (line.startswith('--') and '#' not in line), line


@pytest.mark.parametrize('name', [path.stem for path in FLAGFILES if path.parent.name == 'siamese'])
def test_siamese_says_that_there_is_no_penalty(name):
    text = text_of(f'siamese/{name}')
    assert 'without a penalty (--siamese_l2=0)' in text
    assert parsed(f'--flagfile={ROOT}/flags/siamese/{name}.flags').siamese_l2 == '0'


def test_siamese_says_which_alphabets_give_no_task():
    characters = (ROOT / 'data/omniglot_lake/train.txt').read_text('utf-8').split()
    alphabets = [character.split('/')[0] for character in characters]
    small = {name for name in alphabets if alphabets.count(name) < 20}
    of_them = sum(name in small for name in alphabets)
    assert (
        f'The {len(small)} training alphabets of fewer than 20 characters, {of_them} of '
        f'{len(characters)} characters, give no task.'
    ) in text_of('siamese/omniglot_20way_1shot_within_alphabet')


@pytest.mark.parametrize(
    'name', [path.stem for path in FLAGFILES if path.parent.name == 'matching']
)
def test_matching_says_where_it_is_not_the_paper_s(name):
    text, values = (
        text_of(f'matching/{name}'),
        parsed(f'--flagfile={ROOT}/flags/matching/{name}.flags'),
    )
    if values.matching_similarity == 'cosine':
        assert 'times 30 (--matching_temperature)' in text
        assert values.matching_temperature is None, 'the default, 30'
    else:
        assert '15 queries' in text and 'no clip' in text and values.train_query == 5
    assert not values.matching_fce or 'clipped at 0.25' in text
