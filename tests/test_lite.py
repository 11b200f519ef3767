"""Adapted classifiers as LiteRT files: what they answer, and what is refused."""

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from relatives import methods

from maml_tf import algorithms
from maml_tf.algorithms.metric.prototypical import Prototypical
from maml_tf.commands.folders import adapt, adapted, trained
from maml_tf.commands.folders.trained import Trained
from maml_tf.datasets.raw.image_files import Preparation
from maml_tf.errors import ArgumentError, UserError
from maml_tf.networks.encoders import conv4
from maml_tf.objectives.classification import MeanClassification
from maml_tf.saving.exports.export import export
from maml_tf.saving.exports.lite import _interpreter

LEARNERS = algorithms.registry()
WAY, STEPS = 3, 1


def in_process(learner, way=WAY, predict=None, transductive=False):
    """A learner as `adapt` loads it."""
    learner.transductive = transductive
    predict = predict or (
        lambda state, query_x: learner.objective.predictions(learner.predict_query(state, query_x))
    )
    return Trained(
        adapt=lambda x, y: learner.adapt(x, y, STEPS),
        predict_query=predict,
        input_shape=learner.example_shape,
        way=way if learner.fixed_way else None,
        steps=STEPS if learner.takes_steps else None,
        transductive=transductive,
        xla=learner.xla,
        preparation=Preparation(learner.example_shape[0], learner.example_shape[2]),
        inputs='pixels from 0 to 1',
        about={'batch_norm': 'as it is'},
    )


def photos(shape, way=WAY, seed=0):
    rng = np.random.default_rng(seed)
    return {f'class {i}': rng.random((2, *shape), np.float32) for i in range(way)}


def classifier(learner, way=WAY, **kwargs):
    return adapted.adapt(in_process(learner, way, **kwargs), photos(learner.example_shape, way))


def write(made, path, count=3):
    examples = np.random.default_rng(1).random((count, *made.learner.input_shape), np.float32)
    return made.export_lite(path, made.learner.preparation, {'photos': {}}, examples)


@pytest.mark.parametrize('name', methods(LEARNERS))
def test_every_classifier_equals_its_learner(name, tmp_path):
    """By 1e-4 of a probability, and by much less than what tells images apart. From a SavedModel,
    whose graph is for tasks of any size."""
    learner, spec = LEARNERS[name].tiny()
    if not learner.objective.classification:
        pytest.skip('a learner of regression classifies nothing')
    learner.transductive, shape = False, learner.example_shape
    export(learner, tmp_path / 'model', shape, spec.way, STEPS, {'transductive': False})
    made = adapted.adapt(trained.load(tmp_path / 'model'), photos(shape, spec.way))
    lite = write(made, tmp_path / 'mine.tflite')
    images = np.random.default_rng(2).random((4, *shape), np.float32)
    run = _interpreter((tmp_path / 'mine.tflite').read_bytes())
    found = [run(images=image[np.newaxis])['probabilities'] for image in images]
    by_hand = adapted.adapt(in_process(learner, spec.way), photos(shape, spec.way))
    expected = by_hand.probabilities(images)
    # Rounding is more than that of a learner that hardly tells them apart before training.
    atol = np.clip(0.02 * np.ptp(expected, axis=0).max(), 1e-6, 1e-4)
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=0, atol=atol)
    assert lite.size == (tmp_path / 'mine.tflite').stat().st_size
    assert lite.difference <= 1e-4 and lite.latency > 0


@pytest.mark.slow
def test_an_encoder_of_photographs(tmp_path):
    learner = Prototypical(conv4((84, 84, 3)), MeanClassification())
    assert write(classifier(learner), tmp_path / 'mine.tflite').difference <= 1e-4


ALONE = """
import io, json, sys, zipfile
import numpy as np
from ai_edge_litert.interpreter import Interpreter
classes = zipfile.ZipFile('mine.tflite').read('classes.txt').decode().splitlines()
classify = Interpreter('mine.tflite').get_signature_runner()
shares = [classify(images=image[None])['probabilities'][0] for image in np.load('images.npy')]
print(json.dumps([[classes[row.argmax()], row.tolist()] for row in shares]))
assert not {'tensorflow', 'keras', 'maml_tf', 'PIL'} & {*sys.modules}
"""


def test_a_program_with_numpy_and_the_interpreter_alone(tmp_path):
    if importlib.util.find_spec('ai_edge_litert') is None:
        pytest.skip('ai-edge-litert is not installed')
    learner = Prototypical.tiny()[0]
    made = classifier(learner)
    write(made, tmp_path / 'mine.tflite')
    images = np.concatenate(list(photos(learner.example_shape, seed=5).values()))
    np.save(tmp_path / 'images.npy', images)
    command = [sys.executable, '-c', ALONE]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    names, shares = zip(*json.loads(done.stdout))
    expected = made.probabilities(images)
    np.testing.assert_allclose(shares, expected, rtol=0, atol=1e-4)
    assert list(names) == [f'class {i}' for i in expected.argmax(-1)]


def test_the_command_and_what_the_file_is_about(tmp_path, monkeypatch, capfd):
    """Of a SavedModel, whose checks of its inputs LiteRT has no operations for and needs none."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    learner = Prototypical.tiny()[0]
    learner.transductive = False
    export(learner, 'learner', learner.example_shape, WAY, STEPS, {'transductive': False})
    rng = np.random.default_rng(0)
    for name in ('cat', 'snow leopard', '犬'):
        (tmp_path / 'few' / name).mkdir(parents=True)
        pixels = rng.integers(0, 256, learner.example_shape[:2], np.uint8)
        Image.fromarray(pixels).save(tmp_path / 'few' / name / '0.png')
    command = ['--init_from=learner', '--support=few', '--tflite=mine.tflite', '--export_dir=mine']
    capfd.readouterr()
    adapt.main(command)
    printed = capfd.readouterr()
    size = (tmp_path / 'mine.tflite').stat().st_size / 1000
    line = rf'^LiteRT: mine.tflite, {size:.1f} kB, [\d.]+ ms an image here .*, within \S+ of the'
    assert re.search(line, printed.out, re.MULTILINE) and not printed.err, printed
    with zipfile.ZipFile('mine.tflite') as archive:
        assert archive.read('classes.txt').decode().splitlines() == ['cat', 'snow leopard', '犬']
        known = json.loads(archive.read('maml_tf.json'))
    beside = json.loads((tmp_path / 'mine' / 'maml_tf.json').read_text())
    beside.pop('sha256')
    assert known == beside and 'inner_steps' not in known and known['preparation']['side'] == 16
    card = (tmp_path / 'mine.md').read_text('utf-8')
    digest = hashlib.sha256((tmp_path / 'mine.tflite').read_bytes()).hexdigest()
    for words in ('LiteRT', '`prototypical`', '犬 (1)', f'| mine.tflite | `{digest}` |', 'numpy'):
        assert words in card, card
    assert not [path for path in tmp_path.iterdir() if path.name.startswith('.')]
    for options, words in [
        (['--tflite=mine.tflite'], 'tflite=mine.tflite: exists already; name a new file'),
        (['--tflite=few/mine.lite'], 'tflite=few/mine.lite: a name that ends in .tflite'),
        ([], 'name --classify, --export_dir or --tflite'),
    ]:
        with pytest.raises(SystemExit, match=words):
            adapt.main([*command[:2], *options])


def test_an_operation_that_the_runtime_lacks_is_named(tmp_path, capfd):
    learner = Prototypical.tiny()[0]

    def predict(state, query_x):
        squares = query_x[0, ..., 0] + tf.eye(16)
        shares = tf.linalg.cholesky(tf.matmul(squares, squares, transpose_a=True))[:, 0, :WAY]
        return {'outputs': shares[tf.newaxis], 'probabilities': shares[tf.newaxis]}

    made = classifier(learner, predict=predict)
    capfd.readouterr()
    with pytest.raises(UserError, match='it lacks Cholesky. Take --export_dir') as refused:
        write(made, tmp_path / 'mine.tflite')
    assert len(str(refused.value).splitlines()) == 1
    assert not capfd.readouterr().err and not list(tmp_path.iterdir())


def test_what_differs_from_the_saved_model_is_not_written(tmp_path, monkeypatch):
    made = classifier(Prototypical.tiny()[0])
    whole = made._frozen()
    shifted = lambda images: tf.nest.map_structure(lambda x: x + 2e-4, whole(images))
    frozen = made._frozen
    monkeypatch.setattr(made, '_frozen', lambda count=None: frozen(count) if count else shifted)
    with pytest.raises(UserError, match='by 0.0002 where 0.0001 is allowed'):
        write(made, tmp_path / 'mine.tflite')
    assert not list(tmp_path.iterdir())


def test_images_that_are_predicted_together_are_not_predicted_one_by_one(tmp_path):
    made = classifier(Prototypical.tiny()[0], transductive=True)
    with pytest.raises(ArgumentError, match='--transductive=False, or name the run directory'):
        write(made, tmp_path / 'mine.tflite')
