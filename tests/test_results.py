"""Results beside flagfiles, and the tables made from them."""

import json
import types

import numpy as np
import pytest
from command import ROOT

from maml_tf.commands import command_line, results, run_evaluation
from maml_tf.datasets.sources import SOURCES
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import UserError
from maml_tf.evaluation import report, results_tables
from maml_tf.objectives.metric import ACCURACY, SQUARED_ERROR, Axis

PROTOCOL = {
    'datasource': 'sinusoid',
    'split': 'test',
    'shot': 5,
    'tasks_sha256': 'ac406b10606b274c',
}
FLAGFILE = '--datasource=sinusoid\n--norm=None\n--update_batch_size=10\n--metatrain_iterations=40\n'
EVALUATION = ['--update_batch_size=5', '--train_update_batch_size=10']


def evaluated(path, mean=0.5, seed=0, arguments=(), metric=SQUARED_ERROR, steps=2, **changes):
    """Writes a run of the flagfile `a`, as run_maml.py does, with changes of results.json."""
    flagfile = path.parent / 'flags' / 'maml' / 'a.flags'
    given = [f'--flagfile={flagfile}', *EVALUATION, f'--seed={seed}', f'--logdir={path}']
    flags = command_line.as_dict(command_line.parsed(*given, '--test_set=True', *arguments))
    scores = np.random.default_rng(seed).normal(0, 0.1, (600, steps))
    scores = (scores - scores.mean(0) + [3.0, mean][:steps]).astype(np.float32)
    axis = changes.pop('axis', Axis('gradient steps', tuple(range(steps))))
    protocol = PROTOCOL | changes.pop('protocol', {})
    content = report.results(scores, metric, axis, protocol, seed, 20, flags, str(flagfile))
    path.mkdir()
    report.write(path, scores, content | changes, 10, 0.001)
    clock = {'training_seconds': 1800, 'machine': 'two cores'}
    (path / 'clock.json').write_text(json.dumps(clock))
    return path


@pytest.fixture
def project(tmp_path):
    """A checkout with two flagfiles: b was not run, a is to be."""
    folder = tmp_path / 'flags' / 'maml'
    folder.mkdir(parents=True)
    paper = {'source': 'A paper', 'metric': 'loss', 'steps': [1], 'mean': [0.67], 'ci95': None}
    for name in ('b', 'a'):
        content = {'title': f'Task {name}', 'paper': paper, 'evaluation': EVALUATION, 'ours': None}
        (folder / f'{name}.json').write_text(json.dumps(content))
        (folder / f'{name}.flags').write_text(FLAGFILE)
    lines = 'before', results_tables.BEGIN, 'old', results_tables.END, 'after', ''
    (tmp_path / 'README.md').write_text('\n'.join(lines))
    return tmp_path


def recorded(project, *runs):
    results.record(project / 'flags/maml/a.flags', runs)
    return json.loads((project / 'flags/maml/a.json').read_text())['ours']


def test_record(project):
    runs = [evaluated(project / f'run{seed}', mean, seed) for seed, mean in [(1, 0.7), (0, 0.5)]]
    ours = recorded(project, *runs)
    halves = [report.read(run)['ci95'][1] for run in runs]
    assert ours['mean'] == [0.6]
    assert ours['ci95'] == [pytest.approx(np.sqrt(np.square(halves).mean()), abs=1e-4)]
    assert (ours['seeds'], ours['tasks'], ours['split'], ours['shot']) == ([0, 1], 600, 'test', 5)
    assert (ours['iterations'], ours['of_iterations'], ours['hours']) == (20, 40, 1.0)
    assert ours['protocol'] == PROTOCOL and ours['machine'] == 'two cores'


def test_entries_are_found_by_their_value(project):
    run = evaluated(project / 'run', 0.5, axis=Axis('gradient steps', (1, 10)))
    assert recorded(project, run)['mean'] == [3.0]


@pytest.mark.parametrize(
    'arguments',
    [
        ['--data_dir=elsewhere', '--log=False', '--resume=False'],
        ['--tasks_at_once=1', '--strategy=mirrored', '--iterations_per_call=7', '--rematerialise'],
        ['--train=False', '--test_iter=20', '--export_dir=learner', '--write_tasks=tasks.jsonl'],
    ],
)
def test_where_and_how_fast_does_not_matter(project, arguments):
    runs = [evaluated(project / 'run0'), evaluated(project / 'run1', 0.7, 1, arguments)]
    assert recorded(project, *runs)['mean'] == [0.6]


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--algorithm=prototypical'], '--algorithm=prototypical and not --algorithm=maml'),
        (['--datasource=omniglot'], '--datasource=omniglot and not --datasource=sinusoid'),
        (['--update_batch_size=7'], '--update_batch_size=7 and not --update_batch_size=5'),
        (['--train_update_batch_size=-1'], '--train_update_batch_size=-1 and not'),
        (['--meta_lr=0.01'], '--meta_lr=0.01 and not no --meta_lr'),
        (['--meta_lr=nan'], '--meta_lr=nan and not no --meta_lr'),
        (['--metatrain_iterations=50'], '--metatrain_iterations=50 and not'),
        (['--init_from=weights'], '--init_from=weights and not no --init_from'),
        (['--test_tasks=100'], '--test_tasks=100 and not --test_tasks=600'),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else '',
)
def test_runs_of_another_command_are_not_recorded(project, arguments, words):
    before = (project / 'flags/maml/a.json').read_text()
    runs = [evaluated(project / 'run0'), evaluated(project / 'run1', 0.7, 1, arguments)]
    for chosen in (runs, runs[1:]):
        with pytest.raises(UserError, match=f'run1: not a run of .*a.flags, it has {words}'):
            recorded(project, *chosen)
    assert (project / 'flags/maml/a.json').read_text() == before


def test_the_run_of_another_flagfile_is_not_recorded(project):
    (project / 'flags/maml/b.flags').write_text(FLAGFILE + '--stop_grad\n')
    run = evaluated(project / 'run')
    with pytest.raises(UserError, match='not a run of .*b.flags, it has --stop_grad=False and not'):
        results.record(project / 'flags/maml/b.flags', [run])


def test_a_flag_that_a_run_is_too_old_to_know_had_its_default(project):
    run = evaluated(project / 'run')
    content = json.loads((run / 'results.json').read_text())
    del content['flags']['stop_grad']
    (run / 'results.json').write_text(json.dumps(content))
    assert recorded(project, run)['mean'] == [0.5]
    with open(project / 'flags/maml/a.flags', 'a') as flagfile:
        flagfile.write('--stop_grad=True\n')
    with pytest.raises(UserError, match='--stop_grad=False and not --stop_grad=True'):
        recorded(project, run)


@pytest.mark.parametrize(
    'changes, words',
    [
        (
            {'protocol': {'tasks_sha256': 'f00'}},
            'not on the tasks of .*run0, its protocol has tasks_sha256 f00 and not ac406',
        ),
        ({'protocol': {'dimension': 3}}, '.* its protocol has dimension 3 and not None'),
        ({'metric': ACCURACY}, 'metric is accuracy, and loss in .*run0'),
        ({'steps': 1}, "axis is {'name': 'gradient steps', 'values': .0.}, and .* in .*run0"),
        ({'axis': Axis('instance number', (0, 1))}, "axis is {'name': 'instance number'"),
        ({'iteration': 40}, 'iteration is 40, and 20 in .*run0'),
        ({'tasks': 599}, 'tasks is 599, and 600 in .*run0'),
        ({'split': 'val'}, 'evaluated on the val split'),
        ({'seed': 0}, 'has --seed=0 as .*run0 has'),
    ],
    ids=str,
)
def test_runs_that_were_not_scored_alike_are_not_pooled(project, changes, words):
    arguments = {'seed': 1} | changes
    runs = [evaluated(project / 'run0'), evaluated(project / 'run1', 0.7, **arguments)]
    with pytest.raises(UserError, match=f'run1: {words}'):
        recorded(project, *runs)


def test_one_run_named_twice_is_not_two(project):
    run = evaluated(project / 'run')
    with pytest.raises(UserError, match='runs of one seed are one run'):
        recorded(project, run, run)


@pytest.mark.parametrize(
    'changes, words',
    [
        ({'metric': ACCURACY}, "its metric is accuracy, the paper's is loss"),
        ({'axis': Axis('instance number', (0, 1))}, "its axis is instance number, the paper's is"),
        ({'steps': 1}, 'not evaluated at gradient steps 1'),
        ({'mean': float('nan')}, 'the mean loss of the runs is not finite'),
        ({'split': 'val'}, 'evaluated on the val split'),
        ({'protocol': None}, 'does not say its protocol'),
    ],
    ids=str,
)
def test_runs_that_do_not_stand_beside_the_paper_s_figure(project, changes, words):
    without_protocol = changes.get('protocol', 0) is None
    run = evaluated(project / 'run', **({} if without_protocol else changes))
    if without_protocol:
        content = json.loads((run / 'results.json').read_text())
        (run / 'results.json').write_text(json.dumps(content | {'protocol': {}}))
    with pytest.raises(UserError, match=words):
        recorded(project, run)


def test_the_command_ends_in_one_line(project, capsys):
    runs = [evaluated(project / 'run0'), evaluated(project / 'run1', 0.7, 1, ['--stop_grad'])]
    flagfile = str(project / 'flags/maml/a.flags')
    for arguments, words in [
        (['record', flagfile, *map(str, runs)], 'run1: not a run of'),
        (['record', flagfile.replace('a.', 'c.'), str(runs[0])], 'c.json: No such file'),
        (['table', str(project / 'flags')], 'README.md: No such file'),
    ]:
        with pytest.raises(SystemExit, match=f'^error: .*{words}'):
            results.main(arguments)
    (project / 'flags/maml/a.flags').write_text('--no_such_flag=1\n')
    with pytest.raises(SystemExit, match="a.flags.*: Unknown command line flag 'no_such_flag'"):
        results.main(['record', flagfile, str(runs[0])])
    (project / 'flags/maml/a.json').write_text('{')
    with pytest.raises(SystemExit, match='a.json: not JSON'):
        results.main(['record', flagfile, str(runs[0])])
    (project / 'README.md').write_text('no markers')
    with pytest.raises(SystemExit, match='README.md: needs a line <!-- results'):
        results.main(['table', str(project)])


def test_flags_that_may_differ_exist():
    assert set(command_line.as_dict(command_line.parsed())) >= results.FREE_FLAGS


def test_tables(project):
    companion = project / 'flags/maml/b.json'
    recorded(project, evaluated(project / 'run', 0.6))
    companion.write_text(json.dumps(json.loads(companion.read_text()) | {'note': 'It waits.'}))
    results.main(['table', str(project)])
    before, begin, header, _, *rows, end, after = (project / 'README.md').read_text().splitlines()
    assert (before, begin, end, after) == (
        *('before', results_tables.BEGIN, results_tables.END, 'after'),
    )
    assert header == '| task | after | paper | ours | seeds | iterations |'
    assert rows == ['| [Task a](flags/maml/a.flags) | 1 step | 0.67 | 0.60 ± 0.01 | 1 | 20 of 40 |']
    page = (project / 'flags/README.md').read_text()
    rows = [line for line in page.splitlines() if line.startswith('| [')]
    assert rows == [
        '| [Task a](maml/a.flags) | 1 step | 0.67 | 0.60 ± 0.01 | 1 | 20 of 40 | 0.5 | two cores | '
        'A paper |',
        '| [Task b](maml/b.flags) | 1 step | 0.67 | not run |  |  |  |  | A paper |',
    ]
    assert page.startswith('# Results') and 'python -m maml_tf.results table' in page
    evaluation = 'Evaluated with `--update_batch_size=5 --train_update_batch_size=10`.'
    assert f'- [Task b](maml/b.flags): {evaluation} It waits.\n' in page
    again = results_tables.pages(project)
    assert again[project / 'README.md'] == (project / 'README.md').read_text()


def test_runs_come_first(project):
    companion = project / 'flags/maml/a.json'
    run = evaluated(project / 'run', 0.6)
    results.record(project / 'flags/maml/a.flags', [run])
    companion.rename(project / 'flags/maml/z.json')
    (project / 'flags/maml/a.flags').rename(project / 'flags/maml/z.flags')
    page = results_tables.pages(project)[project / 'flags/README.md']
    assert page.index('(maml/z.flags)') < page.index('(maml/b.flags)')


def test_figures():
    accuracy = {'metric': 'accuracy', 'source': 'S', 'mean': [0.9557, 0.5], 'ci95': [0.008, None]}
    content = {'title': 'T', 'paper': accuracy | {'steps': [0, 5]}}
    cells = results_tables.row('x/y.json', content)
    assert cells['paper'] == '95.6 ± 0.8 % / 50.0 %' and cells['after'] == '0 / 5 steps'
    loss = {'metric': 'loss', 'source': 'S', 'steps': [0], 'mean': [0.00331, 2.0], 'ci95': None}
    content = {'title': 'T', 'paper': loss | {'axis': 'context points'}}
    cells = results_tables.row('x/y.json', content)
    assert cells['paper'] == '0.0033 / 2.00' and cells['after'] == 'context points 0'
    content = {'title': 'T', 'paper': loss | {'mean': []}}
    cells = results_tables.row('x/y.json', content)
    assert cells['paper'] == '–' and cells['after'] == 'no step'


def test_the_tables_of_this_checkout_are_up_to_date():
    for path, text in results_tables.pages(ROOT).items():
        assert path.read_text('utf-8') == text, f'{path}: run python -m maml_tf.results table'


def test_protocol_does_not_say_where_the_data_lie():
    flags = command_line.parsed('--datasource=celeba', '--data_dir=here')
    experiment = types.SimpleNamespace(
        flags=flags,
        row=SOURCES['celeba'],
        evaluation=EpisodeSpec(1, 5, 5),
        split='test',
    )
    protocol = run_evaluation._protocol(experiment, None)
    assert 'here' not in protocol.values() and protocol['query_contains_support'] is False
