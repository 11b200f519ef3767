"""Every method's SavedModel in a program of TensorFlow and NumPy alone: adapt once, predict many.

What the program finds is within 1e-5 of the largest output of what the learner itself predicts in
this process, uncompiled: float32 rounds otherwise in a graph. It prints the largest difference.
"""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from maml_tf import algorithms
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.objectives.objective import Return
from maml_tf.rl.environments.navigation2d import Navigation2D
from maml_tf.rl.meta_policy import MetaPolicy
from maml_tf.rl.policy import GaussianPolicy
from maml_tf.rl.simulation import Simulation
from maml_tf.saving.exports.export import export
from maml_tf.saving.exports.export_policy import export_policy

TOLERANCE = 1e-5
TASKS, QUERIES, STEPS = 2, (3, 1, 6), 2
ALONE = """
import json, sys
import numpy as np
import tensorflow as tf
found = {}
for folder in sys.argv[1:]:
    model = tf.saved_model.load(folder + '/model')
    given = {name: tf.constant(value) for name, value in np.load(folder + '/given.npz').items()}
    names = json.load(open(folder + '/names.json'))
    state = model.signatures['adapt'](**{name: given[name] for name in names['support']})
    differences = []
    for number in range(names['calls']):
        queries = {names['query']: given[f'query {number}']}
        answer = model.signatures[names['predict']](**queries, **state)[names['answer']]
        expected = given[f'expected {number}']
        assert answer.shape == expected.shape, (folder, answer.shape, expected.shape)
        differences.append(float(np.abs(answer - expected).max() / np.abs(expected).max()))
    found[folder] = max(differences)
print(json.dumps(found))
# TensorFlow loads Keras itself, when it wants to.
strangers = [name for name in sys.modules if name.startswith(('maml_tf', 'tensorflow_datasets'))]
assert not strangers, strangers
"""


def write(folder, support, calls, **names):
    """What the program is given, and what it is to find: calls: [(query, expected)]."""
    numbered = {}
    for number, (query, expected) in enumerate(calls):
        numbered |= {f'query {number}': query, f'expected {number}': expected}
    arrays = {name: np.array(value) for name, value in {**support, **numbered}.items()}
    np.savez(folder / 'given.npz', **arrays)
    content = {'support': list(support), 'calls': len(calls), **names}
    (folder / 'names.json').write_text(json.dumps(content))


def take_home(name, folder):
    """Exports a method's tiny learner, and writes what it predicts itself."""
    learner, spec = algorithms.registry()[name].tiny()
    rng = np.random.default_rng(0)
    shape, classification = learner.example_shape, learner.objective.classification
    draw = lambda count: tf.constant(rng.random((TASKS, count, *shape), np.float32))
    support_x = draw(spec.way * spec.shot)
    if classification:
        support_y = np.tile(np.eye(spec.way, dtype=np.float32).repeat(spec.shot, 0), (TASKS, 1, 1))
    else:
        support_y = rng.standard_normal((TASKS, spec.way * spec.shot, 1)).astype(np.float32)
    support = {'support_x': support_x, 'support_y': tf.constant(support_y)}
    description = {'transductive': learner.transductive}
    export(learner, folder / 'model', shape, support_y.shape[-1], STEPS, description)
    state = learner.adapt(**support, steps=STEPS)
    queries = [draw(count) for count in QUERIES]
    calls = [(query, learner.predict_query(state, query)) for query in queries]
    names = {'query': 'query_x', 'predict': 'predict_query', 'answer': 'outputs'}
    write(folder, support, calls, **names)
    described = json.loads((folder / 'model' / 'maml_tf.json').read_text())
    assert described.get('inner_steps') == (STEPS if learner.takes_steps else None), name
    card = (folder / 'model' / 'MODEL_CARD.md').read_text('utf-8')
    assert ('| inner steps |' in card) == learner.takes_steps, name


def take_policy_home(folder):
    learner = MAML(GaussianPolicy((2,), 2), Return(), 0.5)
    policy = MetaPolicy(learner, Navigation2D())
    drawn = Simulation(Navigation2D()).tasks('test', EpisodeSpec(1, 2, 2), 5)(0, TASKS)
    before = policy.start(TASKS)
    seen = policy.rollouts(before, drawn, 2, 0)
    support = {name: getattr(seen, name) for name in ('observations', 'actions', 'rewards')}
    support['counts'] = seen.counts
    export_policy(policy, folder / 'model', {})
    weights = policy.adapted(before, policy.samples(seen), 0).fast
    calls = []
    for rollout in range(2):
        states = seen.observations[:, rollout]
        calls.append((states, learner.network.distribution(states, weights)[0]))
    write(folder, support, calls, query='observations', predict='act', answer='mean')


def check_what_a_server_wants(folder):
    """TensorFlow Serving: signatures by name, of which one is the default; an axis of tasks or
    images first in all of them, so that rows of a request can be stacked."""
    model = saved_model_pb2.SavedModel.FromString((folder / 'model/saved_model.pb').read_bytes())
    (graph,) = model.meta_graphs
    assert [*graph.meta_info_def.tags] == ['serve']
    signatures = {k: v for k, v in graph.signature_def.items() if not k.startswith('__')}
    assert 'serving_default' in signatures and 'adapt' in signatures
    for name, signature in signatures.items():
        assert signature.method_name == 'tensorflow/serving/predict'
        batch = 1 if name == 'predict_one' else -1
        if name == 'start':  # How many tasks is all that it takes.
            continue
        for parameter, info in {**signature.inputs, **signature.outputs}.items():
            sizes = [dim.size for dim in info.tensor_shape.dim]
            assert parameter.isidentifier() and sizes[0] == batch, (folder, name, parameter, sizes)


def check(folders):
    for folder in folders:
        check_what_a_server_wants(folder)
    command = [sys.executable, '-c', ALONE, *map(str, folders)]
    done = subprocess.run(command, cwd=folders[0], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == len(folders)
    far = {folder: difference for folder, difference in found.items() if difference > TOLERANCE}
    assert not far
    print({folder.rpartition('/')[-1]: f'{value:.1e}' for folder, value in found.items()})


def made(root, names):
    folders = [root / name for name in names]
    for folder in folders:
        folder.mkdir()
        take_home(folder.name, folder)
    return folders


@pytest.mark.slow
def test_some_methods(tmp_path):
    """One that adapts weights, and one that compares embeddings."""
    check(made(tmp_path, ('maml', 'prototypical')))


@pytest.mark.slow
def test_every_method_and_a_policy(tmp_path):
    folder = tmp_path / 'a policy'
    folder.mkdir()
    take_policy_home(folder)
    check([*made(tmp_path, sorted(algorithms.registry())), folder])
