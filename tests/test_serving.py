"""Exports as TensorFlow Serving takes them: version directories, signatures by name, JSON."""

import base64
import io
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from test_lite import classifier

from maml_tf.algorithms.metric.prototypical import Prototypical
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.saving.exports.export import export

WAY = 3
LEARNERS = {'maml': MAML, 'prototypical': Prototypical}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return tmp_path_factory.mktemp('serving')


@pytest.fixture(scope='module')
def server(root):
    """Returns function(model, **request) -> answer of a server that has TensorFlow alone."""
    program = pathlib.Path(__file__).with_name('serving.py')
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
    process = subprocess.Popen([sys.executable, program, root], cwd=root, text=True, **pipes)

    def ask(model, **request):
        process.stdin.write(json.dumps({'model': model, **request}) + '\n')
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield ask
    process.stdin.close()
    assert process.wait() == 0
    process.stdout.close()


def inputs_of(shape, tasks=2, shot=2, queries=4):
    rng = np.random.default_rng(0)
    images = lambda count: rng.random((tasks, count, *shape), np.float32)
    labels = np.tile(np.eye(WAY, dtype=np.float32).repeat(shot, 0), (tasks, 1, 1))
    return {'support_x': images(WAY * shot), 'support_y': labels, 'query_x': images(queries)}


def columns(arrays):
    return {name: np.array(value).tolist() for name, value in arrays.items()}


def rows(arrays):
    listed = columns(arrays)
    return [dict(zip(listed, row)) for row in zip(*listed.values(), strict=True)]


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize('name', [pytest.param('maml', marks=pytest.mark.slow), 'prototypical'])
def test_a_learner(root, server, name):
    """Both formats; adapt once, and predict many by the state that was answered."""
    learner = LEARNERS[name].tiny()[0]
    learner.transductive = False
    shape = learner.example_shape
    for version in ('1', '2'):
        export(learner, root / name / version, shape, WAY, 1, {})
        for variable in learner.trainable_variables:  # Another one in the version to come.
            variable.assign(variable * 1.5)
    for variable in learner.trainable_variables:
        variable.assign(variable / 1.5)
    (root / name / '.3.writing').mkdir()  # of a version that is not whole yet
    assert (root / name / '1' / 'MODEL_CARD.md').read_text('utf-8').startswith(f'# {name}/1\n')
    inputs = inputs_of(shape)
    expected = learner({key: tf.constant(value) for key, value in inputs.items()})
    shares = tf.nn.softmax(expected)

    answer = server(name, inputs=columns(inputs))
    assert {*answer['outputs']} == {'outputs', 'probabilities'}
    close(answer['outputs']['outputs'], expected)
    answer = server(name, instances=rows(inputs))
    close([row['probabilities'] for row in answer['predictions']], shares)

    query = inputs.pop('query_x')
    (state,) = server(name, signature_name='adapt', inputs=columns(inputs)).values()
    state = state if isinstance(state, dict) else {'state': state}
    for first, last in ((0, 1), (1, 4)):
        part = {'query_x': query[:, first:last], **state}
        answer = server(name, signature_name='predict_query', instances=rows(part))
        close([row['outputs'] for row in answer['predictions']], expected[:, first:last])

    wrong = columns(inputs | {'query_x': query, 'support_y': inputs['support_y'] + 1})
    assert 'support_y: every row is one-hot' in server(name, inputs=wrong)['error']
    wrong = columns(inputs | {'query_x': query[..., :3, :]})
    assert 'query_x: shape' in server(name, inputs=wrong)['error']


def test_an_adapted_classifier_takes_pixels_and_files(root, server):
    made = classifier(Prototypical.tiny()[0])
    made.export(root / 'mine' / '1', made.learner.preparation, {})
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 100, (3, 16, 16), np.uint8)  # Ink, bright on dark.
    files = []
    for image in pixels:
        file = io.BytesIO()
        Image.fromarray(image).save(file, 'PNG')
        files.append({'b64': base64.b64encode(file.getvalue()).decode()})
    images = pixels[..., np.newaxis].astype(np.float32) / 255
    expected = made.probabilities(images)
    for request in (
        {'instances': images.tolist()},
        {'instances': [{'images': image} for image in images.tolist()]},
        {'signature_name': 'classify_bytes', 'instances': files},
        {'signature_name': 'classify_bytes', 'instances': [{'image_bytes': f} for f in files]},
    ):
        predictions = server('mine', **request)['predictions']
        np.testing.assert_allclose([row['probabilities'] for row in predictions], expected, 1e-4)
    prepared = server('mine', signature_name='prepare', inputs=files)['outputs']
    np.testing.assert_allclose(prepared, images, atol=1e-6)
    assert 'error' in server('mine', signature_name='classify_bytes', instances=[{'b64': 'AAAA'}])
