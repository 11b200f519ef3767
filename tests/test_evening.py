"""A new user's evening: a folder of photos, looked at, trained on, adapted to and taken home."""

import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from command import run_here
from PIL import Image

from maml_tf.commands.folders import adapt, inspect_folder

ALONE = """
import json, pathlib, sys
import tensorflow as tf
folder, *names = sys.argv[1:]
model = tf.saved_model.load(folder)
classes = pathlib.Path(folder, 'assets', 'classes.txt').read_text('utf-8').splitlines()
photos = tf.constant([pathlib.Path(name).read_bytes() for name in names])
shares = model.signatures['classify_bytes'](image_bytes=photos)['probabilities'].numpy()
print(json.dumps([[classes[row.argmax()], float(row.max())] for row in shares]))
assert not [name for name in sys.modules if name.startswith('maml_tf')]
"""
# Whatever is learnt of them, colours stay apart.
TINY = ('--image_size=20', '--num_filters=4', '--metatrain_iterations=3', '--test_tasks=4')


def take_photos(folder, colours, count, seed):
    """Photos of one colour a class, by a camera that is held sideways now and then."""
    rng = np.random.default_rng(seed)
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.clip(colour + rng.integers(-20, 21, (48, 60, 3)), 0, 255)
            exif = Image.Exif()
            exif[0x0112] = (1, 6, 3)[number % 3]
            photo = Image.fromarray(pixels.astype(np.uint8))
            photo.save(folder / name / f'{number}.jpg', quality=95, exif=exif)


@pytest.mark.slow
def test_an_evening(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    take_photos(
        tmp_path / 'photos', {f'thing {i}': rng.integers(0, 256, 3) for i in range(15)}, 4, 1
    )
    new = {'fire': (230, 40, 30), 'grass': (40, 200, 50), 'sea': (30, 60, 220)}
    take_photos(tmp_path / 'few', new, 2, 2)
    take_photos(tmp_path / 'unsorted', new, 3, 3)
    (tmp_path / 'unsorted' / 'broken.jpg').write_bytes(b'\xff\xd8 no photo')

    assert inspect_folder.inspect(tmp_path / 'photos', lambda arguments: 0.5)
    printed = capsys.readouterr().out
    assert 'about 17 minutes here' in printed
    (proposed,) = re.findall(r'^    run_maml.py (.*)$', printed, flags=re.MULTILINE)

    command = [*shlex.split(proposed), *TINY, '--logdir=logs', '--test_set=True']
    trained = run_here(*command, '--export_dir=learner', cwd=tmp_path)
    assert 'Accuracy on 4 directory test tasks, 5-way 1-shot' in trained.stdout
    (run,) = (tmp_path / 'logs').iterdir()
    results = json.loads((run / 'results.json').read_text())
    card = (tmp_path / 'learner' / 'MODEL_CARD.md').read_text('utf-8')
    for words in (
        '`prototypical`: Prototypical Networks (Snell',
        "| licence of the data | your own folder's |",
        '5-way 1-shot tasks, 3 queries a class',
        f'| accuracy | {100 * results["mean"][-1]:.2f} ± {100 * results["ci95"][-1]:.2f} %',
        'running averages of training',
        '| iterations | 3 |',
        'cut to the central square',
    ):
        assert words in card, card
    described = json.loads((tmp_path / 'learner' / 'maml_tf.json').read_text())
    assert 'inner_steps' not in described and described['preparation']['side'] == 20

    for learner in ('learner', str(run)):
        adapt.main(
            [
                *(f'--init_from={learner}', '--support=few', '--classify=unsorted'),
                *(f'--output={learner.replace("/", "-")}.csv', f'--export_dir={learner}-mine'),
            ]
        )
        printed = capsys.readouterr().out
        assert 'Left out 1 image that cannot be read' in printed
        assert 'Accuracy: 100.0%, 9 of the 9 images' in printed
        files = [f'unsorted/{name}/{number}.jpg' for name in new for number in range(3)]
        found = subprocess.run(
            [sys.executable, '-c', ALONE, f'{learner}-mine', *files],
            check=True,
            text=True,
            capture_output=True,
        )
        named = [name for name, _ in json.loads(found.stdout.splitlines()[-1])]
        assert named == [name for name in new for _ in range(3)]
        mine = (tmp_path / f'{learner}-mine' / 'MODEL_CARD.md').read_text('utf-8')
        assert 'fire (2), grass (2), sea (2)' in mine and '| accuracy |' in mine
