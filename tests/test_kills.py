"""Kills at moments drawn from a seed, in whatever the program does to files: the same command ends
with exactly the files of a run that nobody disturbed.

Twenty kills by default; MAML_TF_KILLS=200 pytest tests/test_kills.py -m slow -n 0 is the long run.
"""

import collections
import hashlib
import json
import os
import random
import re
import signal

import numpy as np
import pytest
from file_operations import HOW
from killed_runs import End, run
from PIL import Image
from test_exact_resume import values

from maml_tf.datasets.raw.splits import class_names

KILLS = int(os.environ.get('MAML_TF_KILLS', '20'))
SEED = int(os.environ.get('MAML_TF_KILLS_SEED', '0'))
DEATHS = {-signal.SIGKILL, -signal.SIGXFSZ}
SINUSOID = (
    *('--datasource=sinusoid', '--norm=None', '--update_batch_size=10', '--test_set=True'),
    *(
        '--test_tasks=20',
        '--metatrain_iterations=120',
    ),
    '--export_dir={out}/export',
)
IMAGES = (
    *('--algorithm=prototypical', '--num_filters=4', '--meta_batch_size=1', '--num_classes=2'),
    *('--test_set=True', '--test_tasks=4', '--metatrain_iterations=2', '--train_query=1'),
    '--update_batch_size=1',
)
EXPORTS = (
    *('--write_tasks={out}/tasks.jsonl', '--export_dir={out}/export'),
    '--export_embedding_dir={out}/embedding',
)
# Where a chain of kills is, in this order: what is prepared and trained goes on, what is evaluated
# and exported begins anew.
COMMANDS = {
    'sinusoid': (
        SINUSOID,
        [*['training', 'checkpoint'] * 2, 'around', 'evaluation', 'export', 'export'],
    ),
    'prepared': (
        (*IMAGES, '--datasource=miniimagenet', '--data_dir={out}/data', '--manual_dir={raw}'),
        ['preparation', 'preparation', 'preparation', 'training', 'checkpoint'],
    ),
    'mapped': (
        (*IMAGES, *EXPORTS, '--datasource=directory', '--image_size=28', '--data_dir={out}/photos'),
        ['preparation', 'preparation', 'checkpoint', 'training', 'around', 'export', 'export'],
    ),
}
SHARES = {'sinusoid': 8, 'prepared': 5, 'mapped': 7}  # of twenty


def chains(root):
    """Returns ({logdir: ends}, {logdir: command line}) of all."""
    rng, ends, flags = random.Random(SEED), {}, {}
    for name, (command, phases) in COMMANDS.items():

        def command_in(out):
            write_photos(out / 'photos')
            ends[out / 'logs'] = [None]
            flags[out / 'logs'] = [flag.format(out=out, raw=root / 'raw') for flag in command]
            return out / 'logs'

        command_in(root / name / 'undisturbed')
        for first in range(0, max(1, KILLS * SHARES[name] // 20), len(phases)):
            chosen = phases[: max(1, KILLS * SHARES[name] // 20) - first]
            logs = command_in(root / name / f'killed{first}')
            ends[logs] = [*(drawn(rng, phase, chosen) for phase in chosen), None]
    return ends, flags


def drawn(rng, phase, phases):
    # Of what goes on, each kill leaves something to the next.
    goes_on = phase in ('training', 'checkpoint', 'preparation')
    part = 0.6 / phases.count(phase) if goes_on else 1
    return End(rng.random() * part, phase=phase, how=rng.choice(HOW))


def write_photos(folder, classes=8, images=3):
    rng = np.random.default_rng(0)
    for number in range(classes):
        (folder / f'class{number}').mkdir(parents=True)
        for image in range(images):
            pixels = rng.integers(0, 256, (28, 28, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f'class{number}' / f'{image}.png')
            os.utime(folder / f'class{number}' / f'{image}.png', (1, 1))


def write_raw(folder):
    """The class folders of miniImageNet, with two images in each."""
    rng = np.random.default_rng(0)
    for split, names in class_names('miniimagenet_ravi').items():
        for name in names:
            (folder / split / name).mkdir(parents=True)
            for image in range(2):
                pixels = rng.integers(0, 256, (84, 84, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f'{image}.png')


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """{directory of the logs: reports}, the first directory of a command being undisturbed."""
    root = tmp_path_factory.mktemp('kills')
    write_raw(root / 'raw')
    return run(*chains(root))


def files(out):
    """Returns {path: content that may be compared} of all that a run leaves; hidden files, too."""
    found = {}
    for path in sorted(out.rglob('*')):
        name = path.relative_to(out).as_posix()
        if (
            'events' in path.name
            or name.startswith('logs.')
            or (path.is_dir() and any(path.iterdir()))
        ):
            continue
        found[name] = path.read_bytes() if path.is_file() else None
    return found


def comparable(out, name, content):
    """Returns what of a file has to be the same."""
    if name.endswith(('.index', 'fingerprint.pb', 'saved_model.pb', 'clock.json')):
        return None
    if '.data-' in name:
        prefix = out / name.rsplit('.data-', 1)[0]
        return {key: value.tobytes() for key, value in values(prefix).items()}
    if name.endswith(('results.json', 'maml_tf.json')):
        content = json.loads(content)
        sums = content.pop('sha256', {})
        content['sha256'] = [
            (file, value) for file, value in sums.items() if 'variables.data' in file
        ]
        return without_paths(content, out)
    if name.endswith(('.md', '.txt', 'dataset_info.json')):
        lines = content.decode().replace(str(out), '').splitlines()
        return [line for line in lines if not re.match(r'\| \S+\.(pb|index) \|', line)]
    return content


def without_paths(content, out):
    return json.loads(json.dumps(content).replace(str(out), ''))


@pytest.mark.slow
def test_every_kill_hits(runs):
    killed = collections.Counter()
    for logs, reports in runs.items():
        *ended, last = reports
        assert last['status'] == 0, (logs, last['output'][-2000:])
        for report in ended:
            assert report['status'] in DEATHS, (logs, report)
            killed[report['operations'].get('phase', 'end')] += 1
    print(f'{sum(killed.values())} kills: {dict(killed)}')
    assert sum(killed.values()) == KILLS or KILLS % 20


@pytest.mark.slow
def test_the_same_files(runs):
    wrong = []
    for name in COMMANDS:
        whole, *disturbed = [logs.parent for logs in runs if logs.parent.parent.name == name]
        expected = files(whole)
        for out in disturbed:
            found = files(out)
            story = [report['operations'] for report in runs[out / 'logs']]
            if found.keys() != expected.keys():
                wrong.append((out.name, sorted(found.keys() ^ expected.keys()), story))
                continue
            wrong += [
                (out.name, path, story)
                for path in expected
                if comparable(whole, path, expected[path]) != comparable(out, path, found[path])
            ]
    for path in (path for logs in runs for path in logs.parent.glob('*/maml_tf.json')):
        for name, digest in json.loads(path.read_text())['sha256'].items():
            assert hashlib.sha256((path.parent / name).read_bytes()).hexdigest() == digest
    assert not wrong, '\n'.join(map(str, wrong))
