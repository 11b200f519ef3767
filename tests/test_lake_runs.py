"""Lake's one-shot runs become a list of tasks: archives of the real layout, of drawings known."""

import io
import re
import zipfile

import numpy as np
import pytest
from golden import SHARED
from PIL import Image

from maml_tf.commands import lake_runs
from maml_tf.datasets.omniglot import Convention, omniglot
from maml_tf.episodes import manifest
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import ArgumentError, UserError

CLASSES, DRAWINGS, RUNS = 24, 3, 2
RNG = np.random.default_rng(0)
INK = RNG.random((CLASSES, DRAWINGS, 105, 105)) < 0.1
NAMES = [f'Alphabet{c // 12}/character{c % 12 + 1:02d}' for c in range(CLASSES)]


def png(ink):
    file = io.BytesIO()
    Image.fromarray(np.where(ink, 0, 255).astype(np.uint8)).convert('1').save(file, 'PNG')
    return file.getvalue()


def chosen(run):
    """The classes of a run, and in which order its test items show them."""
    rng = np.random.default_rng(run)
    return rng.permutation(CLASSES)[:20], rng.permutation(20)


def archive(path, ink, root='', lines=None):
    with zipfile.ZipFile(path, 'w') as file:
        for run in range(1, RUNS + 1):
            classes, order = chosen(run)
            for place, c in enumerate(classes, start=1):
                file.writestr(f'{root}run{run:02d}/training/class{place:02d}.png', png(ink[c, 0]))
            listed = []
            for item, place in enumerate(order, start=1):
                name = f'run{run:02d}/test/item{item:02d}.png'
                file.writestr(root + name, png(ink[classes[place], 1]))
                listed.append(f'{name} run{run:02d}/training/class{place + 1:02d}.png\n')
            file.writestr(f'{root}run{run:02d}/class_labels.txt', ''.join(lines or listed))
    return path


def known(ink=INK):
    images = np.where(ink, 255, 0).astype(np.uint8).reshape(-1, 105, 105, 1)
    return lake_runs.named(images, [ink.shape[1]] * len(ink), NAMES)


@pytest.mark.parametrize('root', ['', 'all_runs/'])
def test_every_drawing_is_found(tmp_path, root):
    tasks = lake_runs.runs(archive(tmp_path / 'all_runs.zip', INK, root), known())
    for run, task in enumerate(tasks, start=1):
        names = [NAMES[c] for c in chosen(run)[0]]
        assert task['classes'] == names
        assert task['support'] == [[f'{name}/0'] for name in names]
        assert task['query'] == [[f'{name}/1'] for name in names]
    assert len(tasks) == RUNS


def test_drawings_that_look_alike_are_told_by_their_class(tmp_path):
    ink = INK.copy()
    first = chosen(1)[0][0]
    ink[(first + 1) % CLASSES, 2] = ink[first, 0]
    tasks = lake_runs.runs(archive(tmp_path / 'all_runs.zip', ink), known(ink))
    assert tasks[0]['support'][0] == [f'{NAMES[first]}/0']


def test_what_is_no_such_archive(tmp_path):
    path = tmp_path / 'all_runs.zip'
    path.write_bytes(b'no archive')
    with pytest.raises(ArgumentError, match="not Lake's all_runs.zip"):
        lake_runs.runs(path, known())
    zipfile.ZipFile(path, 'w').close()
    with pytest.raises(ArgumentError, match='holds no run01/class_labels.txt'):
        lake_runs.runs(path, known())
    with pytest.raises(ArgumentError, match='does not list 20 pairs'):
        lake_runs.runs(archive(path, INK, lines=['run01/test/a.png run01/training/b.png']), known())
    strange = re.escape("class01.png is no drawing of Omniglot's evaluation alphabets")
    with pytest.raises(UserError, match=strange):
        lake_runs.runs(archive(path, ~INK), known())


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / 'tfds').exists(), reason='no Omniglot in ../shared')
def test_evaluation_takes_the_list(tmp_path, monkeypatch, capsys):
    source = omniglot(SHARED / 'tfds', Convention('lake', image_size=105, resize='box'))
    classes = source.split('test')
    images = np.asarray(classes.images).reshape(-1, 20, 105, 105)
    path = archive(tmp_path / 'all_runs.zip', images[100 : 100 + CLASSES] > 127)
    monkeypatch.chdir(tmp_path)
    lake_runs.main([str(path), f'--data_dir={SHARED / "tfds"}'])
    assert capsys.readouterr().out == 'lake_runs.jsonl: 2 tasks\n'
    assert manifest.sizes('lake_runs.jsonl') == (20, 1, 1, 2)
    small = omniglot(SHARED / 'tfds', Convention('lake'))
    tasks, count = manifest.read('lake_runs.jsonl', small, 'test', EpisodeSpec(20, 1, 1))
    picks = tasks.pick(0, count)
    for run in range(2):
        assert picks.classes.numpy()[run].tolist() == (100 + chosen(run + 1)[0]).tolist()
    assert picks.images.numpy()[..., 0].max() == 0 and picks.images.numpy()[..., 1].min() == 1
