"""Which workers there are: TF_CONFIG as TensorFlow's clusters set it, and Slurm's variables."""

import json

import pytest
from command import run_here

from maml_tf.errors import ArgumentError, UserError
from maml_tf.training.distribution import cluster, distribute

TWO = {'worker': ['a:2222', 'b:2222']}
SLURM = {
    'SLURM_PROCID': '2',
    'SLURM_STEP_NUM_TASKS': '3',
    'SLURM_STEP_NODELIST': 'n[08-09]',
    'SLURM_STEP_TASKS_PER_NODE': '2,1',
    'SLURMD_NODENAME': 'n09',
}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ('TF_CONFIG', *SLURM):
        monkeypatch.delenv(name, raising=False)


def config(addresses, role='worker', index=0):
    return json.dumps({'cluster': addresses, 'task': {'type': role, 'index': index}})


def test_no_cluster():
    assert cluster.find() is None
    with pytest.raises(ArgumentError, match='neither TF_CONFIG nor Slurm'):
        distribute.make_strategy('multi_worker')


@pytest.mark.parametrize(
    'text, number, workers',
    [
        (config(TWO), 0, ['a:2222', 'b:2222']),
        (config(TWO, index=1), 1, ['a:2222', 'b:2222']),
        (config(TWO, index='1'), 1, ['a:2222', 'b:2222']),  # as some operators write it
        (config({'worker': ['b:1'], 'chief': ['a:1']}), 1, ['a:1', 'b:1']),
        (config({'worker': ['b:1'], 'chief': ['a:1']}, 'chief'), 0, ['a:1', 'b:1']),
    ],
)
def test_tf_config(monkeypatch, text, number, workers):
    monkeypatch.setenv('TF_CONFIG', text)
    found = cluster.find()
    assert found.number == number and found.workers == workers
    resolver = found.resolver()
    assert resolver.cluster_spec().as_dict() == json.loads(text)['cluster']
    assert (resolver.task_type, resolver.task_id) == (found.role, found.index)


@pytest.mark.parametrize(
    'text, words',
    [
        ('{"cluster": ', 'is no cluster'),
        ('[]', 'is no cluster'),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"index": "first"}}', 'is no cluster'),
        (config({'worker': 'a:1'}), 'lists addresses'),
        (config({'worker': [1]}), 'lists addresses'),
        (config({'worker': ['a:1'], 'ps': ['b:1']}), "role 'ps'"),
        (config(TWO, 'evaluator'), "role 'evaluator'"),
        (config(TWO, index=2), 'worker 2, and the cluster has 2'),
        (config(TWO, 'chief'), 'chief 0, and the cluster has 0'),
        ('{"task": {"type": "worker", "index": 0}}', 'the cluster has 0'),
        (config({'worker': ['a', 'b:1']}), "'a' is not host:port"),
        (config({'worker': ['a:1', 'a:1']}), "'a:1' is not host:port, or not of one"),
    ],
)
def test_what_is_no_cluster(monkeypatch, text, words):
    monkeypatch.setenv('TF_CONFIG', text)
    with pytest.raises(UserError, match=words) as error:
        cluster.find()
    assert str(error.value).startswith('TF_CONFIG') and '\n' not in str(error.value)


def test_slurm(monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    found = cluster.find()
    assert found.workers == ['n08:8888', 'n08:8889', 'n09:8888'] and found.number == 2
    monkeypatch.setenv('TF_CONFIG', config(TWO))  # is asked first
    assert cluster.find().workers == TWO['worker']


@pytest.mark.parametrize(
    'changed, words',
    [
        ({'SLURM_STEP_NODELIST': 'n[9-10]', 'SLURMD_NODENAME': 'n10'}, 'is on n10'),
        ({'SLURM_STEP_TASKS_PER_NODE': 'two'}, 'name no cluster'),
        ({'SLURM_STEP_NUM_TASKS': '4'}, 'name no cluster'),
    ],
)
def test_slurm_that_tensorflow_reads_otherwise(monkeypatch, changed, words):
    for name, value in (SLURM | changed).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=words) as error:
        cluster.find()
    assert '\n' not in str(error.value)


def test_other_strategies_do_not_ignore_several_workers(monkeypatch, tmp_path):
    """One line, and nothing written: each would train alone into one run directory."""
    monkeypatch.setenv('TF_CONFIG', config(TWO))
    for strategy in ('auto', 'one_device', 'mirrored'):
        result = run_here(
            '--datasource=sinusoid',
            f'--strategy={strategy}',
            '--logdir=logs',
            cwd=tmp_path,
            expect=1,
        )
        (line,) = result.stderr.splitlines()
        assert line.startswith(f'error: --strategy={strategy}: would train each of the 2 workers')
        assert '--strategy=multi_worker' in line
    assert not list(tmp_path.iterdir())


def test_one_worker_is_no_cluster(monkeypatch):
    monkeypatch.setenv('TF_CONFIG', config({'worker': ['a:2222']}))
    strategy = distribute.make_strategy('multi_worker')
    assert distribute.workers_of(strategy).count == 1
    cluster.check_alone('auto')


def test_multi_worker_without_a_cluster_is_one_line(tmp_path):
    result = run_here('--datasource=sinusoid', '--strategy=multi_worker', cwd=tmp_path, expect=1)
    (line,) = result.stderr.splitlines()
    assert line.startswith('error: --strategy=multi_worker: neither TF_CONFIG nor Slurm')
