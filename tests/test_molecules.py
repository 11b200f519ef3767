"""Molecules: tables that the tests write, features, tasks, and the command line on them."""

import csv
import gzip
import json

import numpy as np
import pytest
import tensorflow as tf
from command import run_here, run_maml
from golden import SHARED
from test_bad_input import refused, refused_here

from maml_tf.commands.command_line import parsed
from maml_tf.commands.experiment import problem_of
from maml_tf.datasets.molecules import features
from maml_tf.datasets.molecules.assay_split import split_by_order
from maml_tf.datasets.molecules.assay_table import find_table, read_table
from maml_tf.datasets.molecules.molecules import Molecules, molecules
from maml_tf.datasets.raw.folder_split import read_split_file
from maml_tf.datasets.sources import SOURCES
from maml_tf.episodes import manifest
from maml_tf.episodes.task import BatchSpec, EpisodeSpec
from maml_tf.errors import ArgumentError

PARTS = ('C', 'N', 'O', 'c1ccccc1', 'C(=O)', 'Cl', 'S', 'C#C', 'F', 'CC(C)', 'N(C)', 'C=C')
SPEC = EpisodeSpec(way=2, shot=2, query=3)


def smiles(count, seed=0):
    """Distinct molecules: chains of parts between carbons."""
    rng, found = np.random.default_rng(seed), {}
    while len(found) < count:
        inner = ('C', 'N', 'O', 'C(=O)', 'S', 'C#C', 'CC(C)', 'N(C)', 'C=C')
        chain = ''.join(rng.choice(inner, rng.integers(1, 6)))
        found[f'{rng.choice(PARTS)}C{chain}C'] = None
    return [*found]


def write(path, header, rows, opener=open):
    with opener(path, 'wt', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_tox(folder, name='tox21.csv', assays=12, molecules=60, seed=0, extra=()):
    """A table whose assays ask for nitrogen or oxygen, with empty cells, laid out as Tox21."""
    rng = np.random.default_rng(seed)
    texts = [*smiles(molecules, seed), *extra]
    rows = []
    for number, text in enumerate(texts):
        labels = [int(('N' if a % 2 else 'O') in text) for a in range(assays)]
        cells = ['' if rng.random() < 0.1 else str(label) for label in labels]
        rows.append([*cells, f'TOX{number}', text])
    header = [*(f'A{a}' for a in range(assays)), 'mol_id', 'smiles']
    return write(folder / name, header, rows)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('molecules')
    write_tox(path, extra=['no molecule', ''])
    return path


# The table.


def test_table(folder, tmp_path):
    table = read_table(folder / 'tox21.csv')
    assert table.name == 'tox21.csv' and table.assays == [f'A{a}' for a in range(12)]
    assert table.labels.shape == (62, 12) and set(np.unique(table.labels)) == {-1, 0, 1}
    text = (folder / 'tox21.csv').read_text('utf-8')
    packed = tmp_path / 'tox21.csv.gz'
    packed.write_bytes(gzip.compress(b'\xef\xbb\xbf' + text.encode()))
    other = read_table(find_table(tmp_path, 'tox21'))
    assert other.smiles == table.smiles and (other.labels == table.labels).all()


def test_cells_of_a_table(tmp_path):
    path = tmp_path / 'own.csv'
    path.write_text(
        'Name;"an; assay";SMILES;note;other\nx;1.0;CC;good;0\n\ny;nan;CO;;1\n', encoding='utf-8'
    )
    table = read_table(path)
    assert table.assays == ['an; assay', 'other'] and table.smiles == ['CC', 'CO']
    np.testing.assert_array_equal(table.labels, [[1, 0], [-1, 1]])


@pytest.mark.parametrize(
    'text, words',
    [
        ('smiles,a\nCC,1\nCO,2\n', r"line 3, column a: '2' is no label; 0 is inactive, 1 active"),
        ('smiles,a\nCC,1\n\nCO\n', 'line 4 has 1 columns, the header 2'),
        ('mol,a\nCC,1\n', r'the header names 0 columns of SMILES; .* smiles \(mol, a\)'),
        ('smiles,Smiles,a\nCC,CC,1\n', 'the header names 2 columns of SMILES'),
        ('smiles,a,a\nCC,1,1\n', 'has two columns a'),
        ('smiles,mol_id\nCC,1\n', 'has no column of 0 and 1'),
        ('smiles,a\n', 'holds no molecule'),
        ('', 'holds no molecule'),
        ('smiles,a\n"CC,1\n', 'is no csv file'),
        ('smiles,a\n\udcff,1\n', 'is not in UTF-8'),
    ],
)
def test_bad_tables(tmp_path, text, words):
    path = tmp_path / 'own.csv'
    path.write_bytes(text.encode('utf-8', 'surrogateescape'))
    with pytest.raises(ArgumentError, match=words) as caught:
        read_table(path)
    assert str(path) in str(caught.value) and caught.value.argument == 'data_dir'


def test_a_damaged_archive(tmp_path):
    path = tmp_path / 'own.csv.gz'
    for content in (b'no archive', gzip.compress(b'smiles,a\nCC,1\n' * 500)[:-20]):
        path.write_bytes(content)
        with pytest.raises(ArgumentError, match='cannot be read'):
            read_table(path)


def test_which_file(tmp_path):
    with pytest.raises(ArgumentError, match='name the folder that holds tox21.csv'):
        find_table(None, 'tox21')
    with pytest.raises(ArgumentError, match='holds no tox21.csv'):
        find_table(tmp_path, 'tox21')
    with pytest.raises(ArgumentError, match='there is no such folder'):
        find_table(tmp_path / 'none')
    for name in ('a.csv', 'b.csv'):
        (tmp_path / name).write_text('smiles,x\nC,1\n')
    with pytest.raises(ArgumentError, match=r'holds 2 csv files \(a.csv, b.csv\); name one'):
        find_table(tmp_path)
    assert find_table(tmp_path / 'b.csv') == tmp_path / 'b.csv'


# The split.


def test_splits(folder, tmp_path):
    source = molecules(folder, 'tox21')
    assert [source.split_of[f'A{a}'] for a in (0, 8, 9, 11)] == ['train', 'train', 'test', 'test']
    assert source.splits == ('train', 'test')
    assert [*split_by_order(list('abcde')).values()].count('train') == 4
    assert split_by_order(['a', 'b']) == {'a': 'train', 'b': 'test'}
    with pytest.raises(ArgumentError, match='has 1 assays; to train and to test takes 2'):
        split_by_order(['a'])
    with pytest.raises(ArgumentError, match='has 12 assays; .* takes 22 or more'):
        split_by_order(source.table.assays, 21)
    splits = ['train', 'val', 'test'] * 4
    split_file = write(tmp_path / 'split.csv', ['assay', 'split'], zip(source.table.assays, splits))
    own = molecules(folder, 'tox21', split_file)
    assert own.splits == ('train', 'val', 'test') and own.split_of['A4'] == 'val'
    assert own.identity != source.identity == molecules(folder, 'tox21', featurise='graph').identity


@pytest.mark.parametrize(
    'text, words',
    [
        ('class,split\n', r"the first line is 'class,split'; it should be assay,split"),
        ('', r'it should be assay,split'),
        ('assay,split\na,train\nc,test\n', 'line 3: there is no assay c'),
        ('assay,split\na,train\na,test\n', 'line 3: assay a is there twice'),
        ('assay,split\na,learn\n', r"line 2: 'learn' is no split, only train, val and test"),
        ('assay,split\na\n', 'line 2 has 1 columns'),
        ('assay;split\na;train\n', 'assay b is missing, 1 of 2 are'),
    ],
)
def test_bad_split_files(tmp_path, text, words):
    path = tmp_path / 'split.csv'
    path.write_text(text)
    with pytest.raises(ArgumentError, match=words) as caught:
        read_split_file(path, ['a', 'b'], 'assay')
    assert caught.value.argument == 'split_file'


# Features.


def test_fingerprints_are_morgan_s():
    chem = pytest.importorskip('rdkit.Chem')
    from rdkit.Chem import rdMolDescriptors

    texts = smiles(10)
    ours = features.molecule_inputs(texts)
    assert ours.shape == (10, 2048) == (10, *features.input_shape()) and ours.dtype == np.float32
    for row, text in zip(ours, texts):
        bits = rdMolDescriptors.GetMorganFingerprintAsBitVect(chem.MolFromSmiles(text), 2, 2048)
        np.testing.assert_array_equal(np.flatnonzero(row), [*bits.GetOnBits()])


def test_a_graph_atom_by_atom():
    """Acetonitrile's carbons and nitrogen, pyridinium: bonds, hydrogens, charge, rings."""
    atoms = 8
    x = features.molecule_inputs(['CC#N', 'C[n+]1ccccc1'], 'graph', atoms)
    assert (
        x.shape == (2, *features.input_shape('graph', atoms)) == (2, 8, features.ATOM_FEATURES + 8)
    )
    small, ring = x
    np.testing.assert_array_equal(small[:, 0], [1, 1, 1, 0, 0, 0, 0, 0])
    bonds = small[:, features.ATOM_FEATURES :]
    expected = np.zeros([8, 8])
    expected[0, 1] = expected[1, 0] = 1
    expected[1, 2] = expected[2, 1] = 3
    np.testing.assert_array_equal(bonds, expected)
    elements = small[:3, 1 : 2 + len(features.ELEMENTS)]
    assert [features.ELEMENTS[row.argmax()] for row in elements] == ['C', 'C', 'N']
    first = 2 + len(features.ELEMENTS)
    neighbours = small[:3, first : first + 6].argmax(1)
    hydrogens = small[:3, first + 6 : first + 11].argmax(1)
    assert [*neighbours] == [1, 2, 1] and [*hydrogens] == [3, 0, 0]
    charge, aromatic, in_ring = ring[:, features.ATOM_FEATURES - 3 : features.ATOM_FEATURES].T
    np.testing.assert_array_equal(charge, [0, 1, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(aromatic, [0, 1, 1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(aromatic, in_ring)
    kinds = ring[:, features.ATOM_FEATURES :]
    assert (kinds == kinds.T).all() and (kinds == 4).sum() == 12 and (kinds == 1).sum() == 2


def test_large_molecules_are_cut_and_odd_atoms_are_others():
    (whole,) = features.molecule_inputs(['CCCCO'], 'graph', 5)
    (cut,) = features.molecule_inputs(['CCCCO'], 'graph', 3)
    np.testing.assert_array_equal(
        cut[:, features.ATOM_FEATURES :], whole[:3, features.ATOM_FEATURES :][:, :3]
    )
    (odd,) = features.molecule_inputs(['[Na+]'], 'graph', 2)
    assert odd[0, 1 + len(features.ELEMENTS)] == 1 and odd[0, features.ATOM_FEATURES - 3] == 1
    with pytest.raises(ArgumentError, match='smiles=nothing: RDKit reads no molecule of it'):
        features.molecule_inputs(['CC', 'nothing'])
    with pytest.raises(ArgumentError, match='most_atoms=0: from 1'):
        features.input_shape('graph', 0)
    with pytest.raises(ArgumentError, match="featurise='image': one of fingerprint, graph"):
        features.input_shape('image')


# Tasks.


def known(source):
    """{bytes of a molecule's features: its labels} of a small table."""
    readable = [i for i, one in enumerate(features.parsed(source.table.smiles)) if one is not None]
    x = features.molecule_inputs([source.table.smiles[i] for i in readable])
    found = {}
    for row, i in zip(x, readable):
        found.setdefault(row.tobytes(), []).append(source.table.labels[i])
    return found


@pytest.mark.parametrize('split', ['train', 'test'])
def test_a_task_is_an_assay(folder, split):
    """Class 0 is inactive and class 1 active, in some assay of the split; no molecule is there
    twice."""
    source = molecules(folder, 'tox21')
    labels_of = known(source)
    task = source.tasks(split, SPEC, 0)(0, 30)
    assert task.support_x.shape == (30, 4, 2048) and task.query_x.shape == (30, 6, 2048)
    np.testing.assert_array_equal(task.support_y[3], np.repeat(np.eye(2), 2, 0))
    np.testing.assert_array_equal(task.query_y[3], np.repeat(np.eye(2), 3, 0))
    of_split = [a for a in range(12) if source.split_of[f'A{a}'] == split]
    drawn = set()
    for i in range(30):
        x = np.concatenate([task.support_x[i], task.query_x[i]])
        active = np.concatenate([task.support_y[i], task.query_y[i]])[:, 1]
        fitting = [
            a
            for a in range(12)
            if all(
                any(labels[a] == wanted for labels in labels_of[row.tobytes()])
                for row, wanted in zip(x, active)
            )
        ]
        assert {*fitting} & {*of_split}
        drawn |= {*fitting} & {*of_split}
    assert drawn == {*of_split}
    picks = source.tasks(split, SPEC, 0).pick(0, 30)
    assert (picks.classes[:, 1].numpy() == picks.classes[:, 0].numpy() + 1).all()
    assert (picks.classes[:, 0].numpy() % 2 == 0).all()
    assert all(len({*row}) == 5 for row in picks.images.numpy().reshape(-1, 5))


def test_a_task_is_a_function_of_its_number(folder):
    source = molecules(folder, 'tox21')
    draw = source.tasks('test', SPEC, 4)
    together = draw(0, 8)
    compiled = tf.function(lambda i: draw(i, 3), jit_compile=True, autograph=False)
    for ours, theirs in zip(compiled(tf.constant(5, tf.int64)), together):
        if ours is not None:
            np.testing.assert_array_equal(ours, theirs[5:8])
    assert not np.array_equal(source.tasks('test', SPEC, 5)(0, 8).support_x, together.support_x)
    graphs = molecules(folder, 'tox21', featurise='graph', most_atoms=20)
    same = [manifest.fingerprint(s.tasks('test', SPEC, 4), 20) for s in (source, graphs)]
    assert same[0] == same[1], 'what a network sees changes no task'
    assert graphs.tasks('test', SPEC, 4)(0, 2).query_x.shape == (2, 6, 20, 47)


def test_what_is_left_out_is_said(folder, tmp_path, capsys):
    source = molecules(folder, 'tox21')
    source.tasks('train', SPEC, 0), source.tasks('test', SPEC, 0)
    said = capsys.readouterr().out
    assert said.count('\n') == 1
    assert 'tox21.csv: left out 2 molecules of 62 whose SMILES RDKit cannot read' in said
    rows = [(text, int('N' in text), int(i < 3)) for i, text in enumerate(smiles(30))]
    write(tmp_path / 'own.csv', ['smiles', 'often', 'rare'], rows)
    own = Molecules(read_table(tmp_path / 'own.csv'), {'often': 'train', 'rare': 'train'})
    assert own.tasks('train', SPEC, 0).classes.class_names == ['inactive: often', 'active: often']
    said = capsys.readouterr().out
    assert (
        'left out 1 assay with fewer molecules of a class than a task takes: rare (3 of 5)' in said
    )
    with pytest.raises(ArgumentError, match=r'than any train assay has: often \(\d+ of 50\)'):
        own.tasks('train', EpisodeSpec(2, 10, 40), 0)


@pytest.mark.parametrize(
    'split, spec, words',
    [
        ('val', SPEC, 'there are no val assays, only train and test; evaluate on the test assays'),
        ('train', EpisodeSpec(3, 1, 1), 'way=3: an assay has 2 classes'),
        ('train', BatchSpec(4), 'spec=BatchSpec: molecules come as tasks'),
    ],
)
def test_tasks_that_there_are_not(folder, split, spec, words):
    with pytest.raises(ArgumentError, match=words):
        molecules(folder, 'tox21').tasks(split, spec, 0)


def test_tasks_of_other_shots_and_a_table_of_one_s_own(tmp_path):
    write_tox(tmp_path, 'own.csv', assays=4)
    source = Molecules.from_csv(tmp_path)
    assert source.splits == ('train', 'test') and source.count_classes('train') == 2
    task = source.tasks('train', EpisodeSpec(2, 3, 2, least_shot=1), 0)(0, 9)
    shots = task.support_mask.numpy().sum(1) / 2
    assert {*shots} == {1, 2, 3}
    np.testing.assert_array_equal(task.support_y.numpy().sum(-1), task.support_mask)


def test_a_list_of_tasks_is_read_again(folder, tmp_path):
    source = molecules(folder, 'tox21')
    tasks = source.tasks('test', SPEC, 1)
    manifest.write(tmp_path / 'tasks.jsonl', tasks, 5, {})
    again, count = manifest.read(tmp_path / 'tasks.jsonl', source, 'test', SPEC)
    assert count == 5
    for ours, theirs in zip(again(0, 5), tasks(0, 5)):
        if ours is not None:
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.skipif(not (SHARED / 'molecules').exists(), reason='no real molecules')
def test_real_tables():
    tox21, sider = (molecules(SHARED / 'molecules', name) for name in ('tox21', 'sider'))
    assert len(tox21.table.smiles) == 7831 and len(sider.table.smiles) == 1427
    of_test = [name for name, split in tox21.split_of.items() if split == 'test']
    assert of_test == ['SR-HSE', 'SR-MMP', 'SR-p53']
    assert [*sider.split_of.values()].count('test') == 6 and len(sider.split_of) == 27
    assert tox21.tasks('test', SPEC, 0)(0, 2).query_x.shape == (2, 6, 2048)


# The command line.


def test_the_row():
    flags = parsed('--datasource=tox21', '--update_batch_size=10')
    problem = problem_of(flags)
    assert problem.evaluation == EpisodeSpec(2, 10, 16) and problem.training.query == 16
    assert problem.input_shape == (2048,) and problem.output_dim == 2
    assert problem.objective.metric.name == 'roc_auc'
    graph = parsed('--datasource=sider', '--featurise=graph', '--most_atoms=30', '--norm=None')
    assert problem_of(graph).input_shape == (30, features.ATOM_FEATURES + 30)
    assert problem_of(graph).network().input_shape == problem_of(graph).input_shape


SMALL = ['--update_batch_size=2', '--test_tasks=6', '--test_set=True', '--logdir=logs']


@pytest.mark.parametrize('method', SOURCES['tox21'].algorithms)
@pytest.mark.slow
def test_every_method_that_the_row_names(folder, tmp_path, method):
    arguments = ['--norm=layer_norm'] if method == 'cavia' or 'bias' in method else []
    run_here(
        *('--datasource=tox21', f'--data_dir={folder}', f'--algorithm={method}', *SMALL),
        *('--metatrain_iterations=1', '--train_query=3', '--test_query=3', *arguments),
        *(['--meta_batch_size=2'] if method != 'support_only' else []),
        cwd=tmp_path,
    )
    (results,) = tmp_path.glob('logs/*/results.json')
    content = json.loads(results.read_text())
    assert content['metric'] == 'roc_auc' and 0 <= content['mean'][-1] <= 1


@pytest.mark.slow
def test_from_a_table_to_results_and_an_export(folder, tmp_path):
    """As a user types it: trained, stopped, resumed, evaluated, exported, and used."""
    command = [
        *('--datasource=tox21', f'--data_dir={folder}', '--algorithm=maml', *SMALL),
        *('--norm=None', '--update_lr=0.1', '--train_query=3', '--test_query=4'),
        *('--meta_batch_size=2', '--iterations_per_call=2', '--test_num_updates=2'),
    ]
    run_maml(*command, '--metatrain_iterations=2', cwd=tmp_path)
    result = run_maml(*command, '--metatrain_iterations=4', '--export_dir=model', cwd=tmp_path)
    assert 'Resuming from iteration 2 of 4' in result.stdout
    assert 'ROC-AUC on 6 tox21 test tasks, 2-way 2-shot' in result.stdout
    (directory,) = (tmp_path / 'logs').iterdir()
    assert directory.name.startswith('cls_2.mbs_2.ubs_2.')
    content = json.loads((directory / 'results.json').read_text())
    assert content['metric'] == 'roc_auc' and len(content['mean']) == 3
    assert content['protocol']['way'] == 2 and content['protocol']['query'] == 4
    assert (directory / 'adaptation_by_step.png').exists()
    assert '--num_classes=2' in (directory / 'flags.txt').read_text()
    described = json.loads((tmp_path / 'model/maml_tf.json').read_text())
    assert 'maml_tf.molecule_inputs(smiles)' in described['inputs'] and described['way'] == 2
    assert (
        'ROC-AUC' in result.stdout and 'roc_auc' in (tmp_path / 'model/MODEL_CARD.md').read_text()
    )
    predict = tf.saved_model.load(str(tmp_path / 'model')).signatures['serving_default']
    x = features.molecule_inputs(smiles(6))[None]
    y = np.repeat(np.eye(2, dtype=np.float32), 2, 0)[None]
    answer = predict(
        support_x=tf.constant(x[:, :4]), support_y=tf.constant(y), query_x=tf.constant(x[:, 4:])
    )
    assert answer['probabilities'].shape == (1, 2, 2)


@pytest.mark.slow
def test_graphs_for_a_metric_learner(folder, tmp_path):
    result = run_here(
        *('--datasource=tox21', f'--data_dir={folder}', '--algorithm=prototypical', *SMALL),
        *('--featurise=graph', '--most_atoms=8', '--metatrain_iterations=2', '--train_query=3'),
        *('--test_query=3', '--meta_batch_size=2', '--write_tasks=tasks.jsonl'),
        cwd=tmp_path,
    )
    assert 'have more than 8 atoms' in result.stdout
    (directory,) = (tmp_path / 'logs').iterdir()
    assert (directory / 'embedding.png').exists() and 'featurise_graph' in directory.name
    again = run_here(
        *('--datasource=tox21', f'--data_dir={folder}', '--algorithm=prototypical', *SMALL[:1]),
        *('--featurise=graph', '--most_atoms=8', '--metatrain_iterations=2', '--train_query=3'),
        *('--meta_batch_size=2', '--tasks_file=tasks.jsonl', '--train=False', '--test_set=True'),
        '--logdir=logs',
        cwd=tmp_path,
    )
    table = lambda text: text[text.index('  mean') :].splitlines()[:2]
    assert table(again.stdout) == table(result.stdout)


def test_two_devices_learn_what_one_learns(folder, tmp_path):
    ends = []
    for strategy in ('none', 'mirrored'):
        run_here(
            *('--datasource=tox21', f'--data_dir={folder}', '--algorithm=prototypical'),
            *(*SMALL[:3], f'--logdir={strategy}', '--metatrain_iterations=2', '--train_query=3'),
            *('--test_query=3', '--meta_batch_size=2'),
            *([] if strategy == 'none' else [f'--strategy={strategy}']),
            cwd=tmp_path,
        )
        (results,) = (tmp_path / strategy).glob('*/results.json')
        ends.append(json.loads(results.read_text())['mean'])
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-6)


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--num_classes=5'], ['--num_classes=5: a task of --datasource=tox21 has 2 classes']),
        (['--num_filters=32'], ['--num_filters=32: means nothing to --datasource=tox21']),
        (['--algorithm=reptile'], ['--algorithm=reptile: --datasource=tox21 is learnt by maml']),
        (['--most_atoms=20'], ['--most_atoms=20: only with --featurise=graph']),
        (['--featurise=graph'], ['--norm=batch_norm: would see the rows that fill up']),
        (['--data_dir=nowhere'], ['--data_dir=nowhere: there is no such folder', 'tox21.csv']),
        (['--test_set=False'], ['--test_set: there are no val assays, only train and test']),
        (['--update_batch_size=300'], ['--update_batch_size=300: 300 support + 3 query']),
        (
            ['--algorithm=prototypical', '--encoder=resnet12'],
            ['--encoder=resnet12: these inputs take dense'],
        ),
        (
            ['--algorithm=prototypical', '--augment=True'],
            ['--augment=True: means nothing with --encoder=dense'],
        ),
        (['--split_file=none.csv'], ['--split_file=none.csv: No such file']),
    ],
    ids=lambda value: value[-1] if value[0].startswith('--') else '',
)
def test_refused(folder, tmp_path, arguments, words):
    command = [
        *('--datasource=tox21', f'--data_dir={folder}', *SMALL),
        *('--train_query=3', '--test_query=3', '--metatrain_iterations=2', *arguments),
    ]
    if arguments == ['--test_set=False']:
        result = run_here(*command, cwd=tmp_path, expect=1)
        refused(result, *words)
        return
    refused_here(tmp_path, command, *words)


@pytest.mark.parametrize('datasource', ['sinusoid', 'omniglot'])
def test_its_flags_mean_nothing_elsewhere(tmp_path, datasource):
    command = [f'--datasource={datasource}', '--featurise=graph']
    refused_here(tmp_path, command, '--featurise=graph: means nothing', 'tox21, sider, molecules')
