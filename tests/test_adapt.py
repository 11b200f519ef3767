"""The adapt command: folders of photos through a trained learner, against the learner called by
hand."""

import csv
import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from command import ROOT
from PIL import Image

from maml_tf.algorithms.metric.prototypical import Prototypical
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.commands.folders import adapt, adapted, photos, predictions, trained
from maml_tf.datasets.raw.image_files import Preparation
from maml_tf.errors import ArgumentError
from maml_tf.networks.encoders import conv4
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.classification import Classification, MeanClassification
from maml_tf.objectives.regression import Regression
from maml_tf.saving.checkpoints import LEARNER
from maml_tf.saving.exports.export import export
from maml_tf.saving.run_directory import RunDirectory

SIDE, WAY, STEPS = 20, 4, 2
LONG = 'snow leopard, seen from very far away on a cloudy afternoon in the mountains'
PHOTOS = {'cat': 1, LONG: 2, 'Ærø 犬': 3}  # in the order of their code points
INPUTS = {'inputs': 'ink 1 on 0', 'flags': {'ink': 'bright'}}


def learner(transductive=False, seed=1):
    network = FullyConnected((SIDE, SIDE, 1), WAY, (256, 128, 64, 64), 'batch_norm')
    return MAML(network, Classification(), inner_lr=0.05, transductive=transductive, seed=seed)


class Drawings:
    """Drawings in ink on white paper, each class a pattern of its own; `pixels` as the learner is
    to see them."""

    def __init__(self):
        self.rng, self.patterns, self.pixels = np.random.default_rng(0), {}, {}

    def write(self, path, name):
        pattern = (
            self.patterns.setdefault(name, self.rng.random((5, 5)) < 0.3).repeat(4, 0).repeat(4, 1)
        )
        image = np.where(pattern, 40, 220) + self.rng.integers(-30, 30, (SIDE, SIDE))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(path)
        self.pixels[path] = ((255 - image) / 255).astype(np.float32)[..., np.newaxis]

    def stack(self, paths):
        return tf.stack([self.pixels[path] for path in paths])[tf.newaxis]


class Setting:
    """A folder to adapt to, one to classify, and one learner as a run directory and as
    SavedModels."""

    def __init__(self, root):
        self.root, self.drawings = root, Drawings()
        self.support = [
            (root / 'photos' / name / f'{i}.png', name)
            for name, count in PHOTOS.items()
            for i in range(count)
        ]
        names = [f'{name}/{i}.png' for name in PHOTOS for i in range(3)] + [
            'in.png',
            'other/out.png',
        ]
        self.query = [
            (root / 'unsorted' / name, name.split('/')[0] if '/' in name else 'cat')
            for name in sorted(names)
        ]
        for path, name in self.support + self.query:
            self.drawings.write(path, name)
        saved = learner()
        directory = RunDirectory(root / 'run', {LEARNER: saved.named_variables()})
        directory.save(3)
        directory.save_best(3, 0.5)
        # As trained and evaluated, transductive; the command does not follow in that.
        directory.write_flags(
            f'--algorithm=maml\n--datasource=omniglot\n--image_size={SIDE}\n--conv=False\n'
            f'--num_classes={WAY}\n--update_lr=0.05\n--data_dir=/gone\n--transductive=True\n'
        )
        for name, mode in [('model', False), ('transductive', True)]:
            saved.transductive = mode
            export(
                saved, root / name, (SIDE, SIDE, 1), WAY, STEPS, {'transductive': mode, **INPUTS}
            )

    def by_hand(self, reference):
        """Probabilities [query, classes]: photos of smaller classes repeated, the fourth output
        left out."""
        most = max(PHOTOS.values())
        paths = [
            path
            for name in PHOTOS
            for path in ([path for path, its in self.support if its == name] * most)[:most]
        ]
        support_y = np.eye(WAY, dtype=np.float32)[np.arange(len(PHOTOS)).repeat(most)][np.newaxis]
        state = reference.adapt(self.drawings.stack(paths), tf.constant(support_y), STEPS)
        logits = reference.predict_query(state, self.drawings.stack(path for path, _ in self.query))
        return tf.nn.softmax(logits[0, :, : len(PHOTOS)]).numpy()

    def run(self, init_from, directory, *options):
        """The rows of predictions.csv."""
        adapt.main(
            [
                f'--init_from={self.root / init_from}',
                f'--support={self.root / "photos"}',
                f'--classify={self.root / "unsorted"}',
                f'--output={directory / "found.csv"}',
                f'--steps={STEPS}',
                *options,
            ]
        )
        with open(directory / 'found.csv', newline='', encoding='utf-8') as file:
            return list(csv.reader(file))


@pytest.fixture(scope='module')
def setting(tmp_path_factory):
    return Setting(tmp_path_factory.mktemp('adapt'))


@pytest.mark.parametrize('init_from', ['run', 'run/best', 'run/model-3', 'model'])
def test_every_kind_of_learner_equals_the_learner_by_hand(setting, tmp_path, capsys, init_from):
    header, *rows = setting.run(init_from, tmp_path)
    expected = setting.by_hand(learner())
    assert header == [
        'image',
        'class',
        'probability',
        'true_class',
        *(f'p({name})' for name in PHOTOS),
    ]
    np.testing.assert_allclose(np.array([row[4:] for row in rows], float), expected, atol=1e-5)
    assert [row[0] for row in rows] == [
        path.relative_to(setting.root / 'unsorted').as_posix() for path, _ in setting.query
    ]
    assert [row[1] for row in rows] == [list(PHOTOS)[i] for i in expected.argmax(-1)]
    assert [row[3] for row in rows] == [
        row[0].split('/')[0] if row[0].split('/')[0] in PHOTOS else '' for row in rows
    ]
    printed = capsys.readouterr().out
    assert (
        'Accuracy: 100.0%, 9 of the 9 images' in printed and 'Inverted 17 of 17 images' in printed
    )
    with Image.open(tmp_path / 'found.png') as picture:
        assert picture.width > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ['found.csv', 'found.png']


def test_a_transductive_model_is_named_as_such(setting, tmp_path, capsys):
    rows = setting.run('transductive', tmp_path)[1:]
    np.testing.assert_allclose(
        np.array([row[4:] for row in rows], float), setting.by_hand(learner(True)), atol=1e-5
    )
    assert '--transductive=False' in capsys.readouterr().out


def test_what_cannot_be_read_is_left_out_and_said(setting, tmp_path, capsys):
    """All of it in one run: damaged photos and images, and endings that nobody reads."""
    root = tmp_path / 'copy'
    for folder in ('photos', 'unsorted'):
        shutil.copytree(setting.root / folder, root / folder)
    whole = (root / 'unsorted' / 'in.png').read_bytes()
    for name in (
        'photos/cat/b.png',
        f'photos/{LONG}/z.jpg',
        'unsorted/a.png',
        'unsorted/cat/z.gif',
    ):
        (root / name).write_bytes(whole[:60])
    for name in ('photos/cat/c.heic', 'unsorted/d.tif', 'unsorted/cat/e.TIF', 'unsorted/.hidden'):
        (root / name).write_bytes(whole)
    adapt.main(
        [
            *(f'--init_from={setting.root / "model"}', f'--support={root / "photos"}'),
            *(f'--classify={root / "unsorted"}', f'--output={tmp_path / "found.csv"}'),
        ]
    )
    printed = capsys.readouterr().out
    for line in (
        f'Left out of {root / "photos"} 1 file: .heic (1) (.heic, .tif and the like can be ',
        f'Left out of {root / "unsorted"} 2 files: .tif (2) (',
        'Left out 2 photos that cannot be read:\n  ',
        'Left out 2 images that cannot be read:\n  ',
        *('cat/b.png: not a whole image', f'{LONG}/z.jpg: not a whole image'),
        *('unsorted/a.png: not a whole image', 'unsorted/cat/z.gif: not a whole image'),
        'Adapted to 6 photos of 3 classes',
        '9 of the 9 images',
    ):
        assert line in printed, printed
    with open(tmp_path / 'found.csv', newline='', encoding='utf-8') as file:
        rows = list(csv.reader(file))[1:]
    expected = setting.by_hand(learner())
    np.testing.assert_allclose(np.array([row[4:] for row in rows], float), expected, atol=1e-5)


def test_images_are_prepared_as_in_training(tmp_path):
    """A drawing of 300 pixels as the drawings of Omniglot: of their size first, then by the filter
    that the run was trained with."""
    saved = Prototypical(conv4((28, 28, 1), 4), MeanClassification())
    RunDirectory(tmp_path, {LEARNER: saved.named_variables()}).save(1)
    flags = '--algorithm=prototypical\n--datasource=omniglot\n--num_filters=4\n--resize='
    drawing = np.random.default_rng(0).integers(0, 256, (300, 400), np.uint8)
    Image.fromarray(drawing).save(tmp_path / 'a.png')
    square = Image.fromarray(drawing).resize((105, 105), Image.LANCZOS, (50, 0, 350, 300))
    for name, resampling in [('nearest', Image.NEAREST), ('bicubic', Image.BICUBIC)]:
        (tmp_path / 'flags.txt').write_text(f'{flags}{name}\n--ink=dark\n')
        preparation = trained.load(tmp_path).preparation
        assert (preparation.filter, preparation.drawn, preparation.ink) == (name, 105, 'dark')
        (read,) = photos.Reader(dataclasses.replace(preparation, invert='false'))(
            [tmp_path / 'a.png']
        )[1]
        expected = np.asarray(square.resize((28, 28), resampling))
        np.testing.assert_allclose(read[..., 0] * 255, expected, atol=1.01)
    with pytest.raises(ArgumentError, match='steps=3: means nothing to --algorithm=prototypical'):
        trained.load(tmp_path, 3)
    assert trained.load(tmp_path).steps is None


ALONE = """
import json, pathlib, sys
import numpy as np
import tensorflow as tf
images, *models = sys.argv[1:]
for path in models:
    model = tf.saved_model.load(path)
    found = model.signatures['serving_default'](images=tf.constant(np.load(images)))
    files = [pathlib.Path(name).read_bytes() for name in json.load(open('files.json'))]
    of_bytes = model.signatures['classify_bytes'](image_bytes=tf.constant(files))
    np.testing.assert_allclose(of_bytes['probabilities'], found['probabilities'], atol=1e-5)
    prepared = model.signatures['prepare'](image_bytes=tf.constant(files))
    np.testing.assert_allclose(prepared['images'], np.load(images), atol=1e-6)
    assert sorted(found) == ['outputs', 'probabilities']
    np.testing.assert_allclose(tf.nn.softmax(found['outputs']), found['probabilities'], atol=1e-6)
    np.save(path + '.npy', found['probabilities'])
assert not [name for name in sys.modules if name.startswith('maml_tf')]
"""


@pytest.mark.slow
def test_the_adapted_classifier_needs_tensorflow_alone(setting, tmp_path):
    command = [
        sys.executable,
        '-m',
        'maml_tf.adapt',
        '--init_from',
        setting.root / 'run',
        '--support',
        setting.root / 'photos',
        '--export_dir',
        tmp_path / 'of_run',
        f'--steps={STEPS}',
    ]
    printed = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True)
    assert 'SavedModel: ' in printed.stdout and not printed.stderr
    setting.run('model', tmp_path, f'--export_dir={tmp_path / "of_model"}')
    np.save(tmp_path / 'images.npy', setting.drawings.stack(path for path, _ in setting.query)[0])
    files = [str(path) for path, _ in setting.query]
    (tmp_path / 'files.json').write_text(json.dumps(files))
    subprocess.run(
        [sys.executable, '-c', ALONE, 'images.npy', 'of_run', 'of_model'], cwd=tmp_path, check=True
    )
    weights = sum(value.size for value in learner().network.construct_weights(0).values())
    for model in (tmp_path / 'of_run', tmp_path / 'of_model'):
        np.testing.assert_allclose(np.load(f'{model}.npy'), setting.by_hand(learner()), atol=1e-5)
        assert (model / 'assets' / 'classes.txt').read_text('utf-8').splitlines() == list(PHOTOS)
        described = json.loads((model / 'maml_tf.json').read_text())
        assert described['classes'] == list(PHOTOS) and described['input_shape'] == [SIDE, SIDE, 1]
        assert not described['transductive'] and described['photos'] == PHOTOS
        assert described['inner_steps'] == STEPS and described['preparation']['ink'] == 'bright'
        card = (model / 'MODEL_CARD.md').read_text('utf-8')
        for words in ('`maml`', f'cat (1), {LONG} (2)', 'statistics of the task', 'bright ink'):
            assert words in card, card
        for file, digest in described['sha256'].items():
            assert hashlib.sha256((model / file).read_bytes()).hexdigest() == digest
            assert f'| {file} | `{digest}` |' in card
        there = {path.relative_to(model).as_posix() for path in model.rglob('*') if path.is_file()}
        assert there - set(described['sha256']) == {'maml_tf.json', 'MODEL_CARD.md'}
        # The adapted weights once, the repeated photos, and a graph.
        size = sum(path.stat().st_size for path in model.rglob('*') if path.is_file())
        assert size < 4 * (weights + 9 * SIDE * SIDE) + 600_000
    with pytest.raises(SystemExit, match='of_run: no learner .* signatures adapt'):
        setting.run(tmp_path / 'of_run', tmp_path)


def test_a_metric_learner_takes_any_number_of_classes(tmp_path):
    """Seven classes of one to seven photos, none repeated, through a learner that was trained
    5-way."""
    saved = Prototypical(conv4((28, 28, 1), 4), MeanClassification())
    RunDirectory(tmp_path, {LEARNER: saved.named_variables()}).save(1)
    (tmp_path / 'flags.txt').write_text(
        '--algorithm=prototypical\n--datasource=omniglot\n--num_filters=4\n'
    )
    rng = np.random.default_rng(0)
    support = {str(n): rng.random((n, 28, 28, 1), dtype=np.float32) for n in range(1, 8)}
    images = rng.random((5, 28, 28, 1), dtype=np.float32)
    found = adapted.adapt(trained.load(tmp_path), support).probabilities(images)
    embed = lambda x: (
        saved.embed(tf.constant(x[np.newaxis]))[0].numpy().reshape(len(x), -1).astype(float)
    )
    prototypes = np.stack([embed(shots).mean(0) for shots in support.values()])
    distances = np.square(embed(images)[:, np.newaxis] - prototypes).sum(-1)
    shares = np.exp(distances.min(-1, keepdims=True) - distances)
    np.testing.assert_allclose(found, shares / shares.sum(-1, keepdims=True), atol=1e-4)


@pytest.mark.parametrize(
    'ink, invert, inverted',
    [
        ('bright', 'auto', [True, False]),
        ('dark', 'auto', [False, True]),
        ('bright', 'true', [True, True]),
        ('bright', 'false', [False, False]),
        (None, 'auto', [False, False]),
        (None, 'true', [True, True]),
    ],
)
def test_paper_and_ink(tmp_path, ink, invert, inverted):
    paths = [tmp_path / 'on_white.png', tmp_path / 'on_black.png']
    for path, paper in zip(paths, (250, 10)):
        Image.new('L', (4, 4), paper).save(path)
    for channels, turned in [(1, inverted), (3, inverted if invert != 'auto' else [False, False])]:
        read = photos.Reader(Preparation(4, channels, ink=ink, invert=invert))
        values = [255 - paper if turn else paper for paper, turn in zip((250, 10), turned)]
        np.testing.assert_allclose(
            read(paths)[1], np.ones([2, 4, 4, channels]) * np.reshape(values, [2, 1, 1, 1]) / 255
        )
        assert (read.inverted, read.read) == (sum(turned), 2)


def test_long_lists_and_names_are_cut():
    count, classes = 50, ['犬' * 60, 'b' * 200]
    found = predictions.Predictions(
        [f'{"very " * 30}{i}.jpeg' for i in range(count)],
        classes,
        np.tile([[0.2, 0.8]], (count, 1)),
        [0] + [None] * (count - 1),
    )
    lines = predictions.table(found).splitlines()
    assert len(lines) == 42 and lines[-1] == 'and 10 more' and max(map(len, lines)) < 170
    assert 'wrong: 犬犬' in lines[1] and lines[2].split('  ')[0].endswith('very 1.jpeg')
    assert predictions.accuracy(found).startswith('Accuracy: 0.0%, 0 of the 1 ')


ERRORS = {
    'no class folders': (['--support=loose'], ['loose', 'no folder']),
    'no such folder': (['--support=nowhere'], ['nowhere', 'no such folder']),
    'one class': (['--support=one'], ['--support=one', 'one class only, cat']),
    'an empty class': (['--support=hollow'], ['--support=hollow', 'no image in dog']),
    'too many classes': (
        ['--support=many'],
        ['5 classes', 'trained 4-way', '--num_classes=5', 'prototypical'],
    ),
    'damaged photos': (['--support=damaged'], ['--support=damaged', 'no photo of dog can be read']),
    'damaged images': (['--classify=damaged/dog'], ['--classify=damaged/dog', 'can be read']),
    'nothing to classify': (['--classify=hollow/dog'], ['--classify=hollow/dog', 'no image']),
    'neither kind': (
        ['--init_from=one'],
        ['--init_from=one', 'neither a SavedModel', 'run directory'],
    ),
    'no description': (['--init_from=bare'], ['--init_from=bare', 'maml_tf.json']),
    'regression model': (['--init_from=regression'], ['--init_from=regression', 'regression']),
    'regression run': (['--init_from=sine'], ['--init_from=sine', 'regression', 'sinusoid']),
    'another version': (['--init_from=future'], ['future/flags.txt', 'shape_of_things', 'version']),
    'no checkpoint': (['--init_from=untrained'], ['--init_from=untrained', 'no checkpoint']),
    'an existing export': (['--export_dir=one'], ['--export_dir=one', 'exists']),
    'steps of a SavedModel': (
        ['--steps=3', '--init_from=model'],
        ['--steps=3', 'takes 2', 'run directory'],
    ),
    'steps': (['--steps=-1'], ['--steps=-1']),
    'a picture as output': (['--output=p.png'], ['--output=p.png', '.csv']),
    'an output nowhere': (['--output=nowhere/p.csv'], ['--output=nowhere/p.csv', 'no directory']),
}


@pytest.fixture(scope='module')
def bad(setting):
    """What the errors are about, beside the setting's good folders."""
    root = setting.root
    for path in [
        'loose/a.png',
        'one/cat/0.png',
        'hollow/cat/0.png',
        'damaged/cat/0.png',
        'damaged/dog/0.png',
        *(f'many/{i}/0.png' for i in range(5)),
    ]:
        setting.drawings.write(root / path, 'cat')
    (root / 'hollow' / 'dog').mkdir()
    whole = (root / 'damaged/dog/0.png').read_bytes()
    (root / 'damaged/dog/0.png').write_bytes(whole[: len(whole) // 2])
    (root / 'bare').mkdir()
    (root / 'bare' / 'saved_model.pb').write_bytes(b'')
    network = FullyConnected((1,), 1, (4,), 'None')
    export(MAML(network, Regression()), root / 'regression', (1,), 1, 1, {})
    for name, flags in [
        ('sine', '--datasource=sinusoid\n'),
        ('future', '--shape_of_things=to_come\n'),
        ('untrained', '--datasource=omniglot\n'),
    ]:
        (root / name).mkdir()
        (root / name / 'flags.txt').write_text(flags)
    return root


@pytest.mark.parametrize('case', ERRORS)
def test_bad_input_is_one_line(bad, monkeypatch, case):
    monkeypatch.chdir(bad)
    options, words = ERRORS[case]
    before = sorted(bad.rglob('*'))
    with pytest.raises(SystemExit) as stopped:
        adapt.main(['--init_from=run', '--support=photos', '--classify=unsorted', *options])
    message = stopped.value.code
    assert message.startswith('error: ') and len(message.splitlines()) == 1
    assert all(word in message for word in words), message
    assert sorted(bad.rglob('*')) == before


def test_nothing_to_do(setting):
    with pytest.raises(SystemExit, match='name --classify, --export_dir or --tflite'):
        adapt.main([f'--init_from={setting.root / "run"}', f'--support={setting.root / "photos"}'])


def test_a_run_takes_the_steps_of_its_evaluation(setting):
    loaded = trained.load(setting.root / 'run')
    assert loaded.steps == 10 and loaded.way == WAY and not loaded.transductive
