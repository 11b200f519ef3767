"""miniImageNet in every layout, from files that the test writes: the real class names, few and
plain images."""

import csv
import json
import os
import pathlib
import pickle
import shutil
import threading

import numpy as np
import pytest
from command import run_maml
from golden import SHARED
from raw_files import Calls, decoded, dump, replace, truncate, write_image

from maml_tf.datasets.miniimagenet import MiniImagenet, miniimagenet
from maml_tf.datasets.raw.pickles import load_arrays
from maml_tf.datasets.raw.splits import class_names
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import UserError
from maml_tf.serialisation import lock

CLASSES = class_names('miniimagenet_ravi')
LAYOUTS = ('folders', 'csv', 'cache')
CHECKPOINT = SHARED / 'reference' / 'model59000'


def images_of(split, number):
    """How many images a class has: training draws 1 + 15 of each; sizes differ."""
    return {'train': 16, 'val': 3, 'test': 2}[split] + number % 3


@pytest.fixture(scope='module')
def raw(tmp_path_factory):
    """(folder with one directory per layout, {split: {class: [images]}})"""
    root, rng, expected = tmp_path_factory.mktemp('raw'), np.random.default_rng(0), {}
    (root / 'csv' / 'images').mkdir(parents=True)
    (root / 'cache').mkdir()
    for split, names in CLASSES.items():
        expected[split], rows = {}, []
        for i, name in enumerate(names):
            paths = [
                write_image(root / 'csv' / 'images', name, number, rng)
                for number in range(images_of(split, i))
            ]
            expected[split][name] = [decoded(path) for path in paths]
            rows += [(path.name, name) for path in paths]
            folder = root / 'folders' / split / name
            folder.mkdir(parents=True)
            for path in paths:
                os.link(path, folder / path.name)
        (folder / '._hidden.png').write_bytes(b'what a Mac leaves')
        (folder / 'Thumbs.db').write_bytes(b'what Windows leaves')
        with open(root / 'csv' / f'{split}.csv', 'w', newline='', encoding='utf-8') as file:
            csv.writer(file).writerows([('filename', 'label'), *rng.permutation(rows).tolist()])
        sizes = [len(images) for images in expected[split].values()]
        ends = np.cumsum(sizes)
        numbers = {
            name: list(range(end - size, end))
            for name, size, end in zip(names, sizes, ends.tolist())
        }
        content = {
            'image_data': np.concatenate(list(expected[split].values())),
            'class_dict': dict(reversed(numbers.items())),
        }
        dump(
            content,
            root / 'cache' / f'mini-imagenet-cache-{split}.pkl',
            python=2 if split == 'val' else 3,
            protocol=4 if split == 'train' else 2,
        )
    return root, expected


@pytest.fixture(scope='module')
def data_dir(raw, tmp_path_factory):
    """A TFDS directory with the set prepared from class folders."""
    folder = tmp_path_factory.mktemp('tfds')
    miniimagenet(str(folder), str(raw[0] / 'folders'))
    return folder


@pytest.fixture
def copy(raw, tmp_path):
    """layout -> a copy of it. The files are linked: replace them, do not write into them."""
    return lambda layout: pathlib.Path(
        shutil.copytree(raw[0] / layout, tmp_path / layout, copy_function=os.link)
    )


def assert_holds(source, expected):
    for split, classes in expected.items():
        held = source.split(split)
        assert list(classes) == held.class_names == CLASSES[split]
        np.testing.assert_array_equal(held.sizes, [len(images) for images in classes.values()])
        np.testing.assert_array_equal(held.images, np.concatenate(list(classes.values())))


def test_class_lists():
    assert [len(CLASSES[split]) for split in ('train', 'val', 'test')] == [64, 16, 20]
    assert all(names == sorted(names) for names in CLASSES.values())
    assert len(set().union(*CLASSES.values())) == 100


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_layout_gives_the_same_images_once(layout, raw, copy, tmp_path, capsys):
    root, expected = raw
    folder, data = copy(layout), str(tmp_path / 'tfds')
    assert_holds(miniimagenet(data, str(folder)), expected)
    printed = capsys.readouterr()
    assert (
        printed.out == f'Preparing miniImageNet from {folder} in {data}/mini_imagenet/1.0.0, once\n'
    )
    shutil.rmtree(folder)
    assert_holds(miniimagenet(data), expected)
    assert not capsys.readouterr().out
    assert [path.name for path in (tmp_path / 'tfds').glob('*/*')] == ['1.0.0']


def test_the_default_folder_is_that_of_tfds(raw, tmp_path):
    (tmp_path / 'downloads').mkdir()
    (tmp_path / 'downloads' / 'manual').symlink_to(raw[0] / 'cache')
    assert_holds(miniimagenet(str(tmp_path)), raw[1])


def test_of_two_processes_at_once_one_waits(raw, tmp_path, monkeypatch):
    data, generate, taken = str(tmp_path), MiniImagenet._generate_examples, lock.taken
    waits, seen = threading.Event(), []
    other = threading.Thread(target=lambda: seen.append(miniimagenet(data, str(raw[0] / 'cache'))))

    def noted(file, wait=False):
        if wait:
            waits.set()
        return taken(file, wait)

    def with_another(*arguments):
        if other.ident is None:
            other.start()
        assert waits.wait(60)
        return generate(*arguments)

    monkeypatch.setattr(lock, 'taken', noted)
    monkeypatch.setattr(MiniImagenet, '_generate_examples', with_another)
    assert_holds(miniimagenet(data, str(raw[0] / 'cache')), raw[1])
    other.join()
    assert_holds(seen[0], raw[1])
    assert [path.name for path in tmp_path.glob('*/*')] == ['1.0.0']


def test_of_two_processes_without_locks_one_is_faster(raw, tmp_path, monkeypatch):
    data, generate = str(tmp_path), MiniImagenet._generate_examples

    def overtaken(*arguments):
        monkeypatch.setattr(MiniImagenet, '_generate_examples', generate)
        miniimagenet(data, str(raw[0] / 'cache'))
        return generate(*arguments)

    monkeypatch.setattr(lock, 'taken', lambda file, wait=False: None)
    monkeypatch.setattr(MiniImagenet, '_generate_examples', overtaken)
    assert_holds(miniimagenet(data, str(raw[0] / 'cache')), raw[1])
    assert [path.name for path in tmp_path.glob('*/*')] == ['1.0.0']


def test_tasks(data_dir, raw):
    source = miniimagenet(str(data_dir))
    task = source.tasks('train', EpisodeSpec(way=5, shot=1, query=15), seed=1)(0, 2)
    assert task.support_x.shape == (2, 5, 84, 84, 3) and task.query_x.shape == (2, 75, 84, 84, 3)
    train = {image.tobytes(): name for name, images in raw[1]['train'].items() for image in images}
    support, query = (
        [train[image.tobytes()] for image in np.rint(x[0] * 255).astype(np.uint8)]
        for x in (task.support_x, task.query_x)
    )
    assert len(set(support)) == 5
    assert query == np.repeat(support, 15).tolist()
    with pytest.raises(
        UserError, match='1 support . 15 query images per class are more than the 2 .* test split'
    ):
        source.tasks('test', EpisodeSpec(way=5, shot=1, query=15), seed=1)


def with_row(folder, split, *row):
    replace(table := folder / f'{split}.csv', table.read_bytes() + f'{",".join(row)}\r\n'.encode())


FIRST, LAST = CLASSES['train'][0], CLASSES['test'][-1]
IMAGE = f'{LAST}00000002.JPEG'
BAD = {
    'truncated image': (
        'folders',
        lambda at: truncate(at / 'test' / LAST / IMAGE),
        f'{{folder}}/test/{LAST}/{IMAGE}: not a whole image (OSError: image file is truncated',
    ),
    'corrupt image': (
        'csv',
        lambda at: replace(at / 'images' / f'{FIRST}00000003.png', b'\x89PNG and nothing else'),
        f'{{folder}}/images/{FIRST}00000003.png: not a whole image',
    ),
    'no such folder': (
        'folders',
        lambda at: shutil.rmtree(at),
        'manual_dir={folder}: no miniImageNet, looked for',
    ),
    'a layout without test': (
        'cache',
        lambda at: (at / 'mini-imagenet-cache-test.pkl').unlink(),
        'manual_dir={folder}: no miniImageNet, looked for',
    ),
    'row without file': (
        'csv',
        lambda at: (at / 'images' / IMAGE).unlink(),
        f'{{folder}}/test.csv: {{folder}}/images does not hold {IMAGE}',
    ),
    'other columns': (
        'csv',
        lambda at: replace(at / 'val.csv', b'file,class\na.png,b\n'),
        '{folder}/val.csv: every row needs the columns filename and label',
    ),
    'not a csv': (
        'csv',
        lambda at: replace(at / 'val.csv', b'\xff\xfe\x00'),
        '{folder}/val.csv: not a csv file',
    ),
    'row twice': (
        'csv',
        lambda at: with_row(at, 'test', IMAGE, LAST),
        f'{{folder}}/test.csv: {IMAGE} is there twice',
    ),
    'wrong split': (
        'csv',
        lambda at: with_row(at, 'train', IMAGE, LAST),
        f'{{folder}}/train.csv: {IMAGE} is of class '
        f'{LAST}, which is not among the 64 train classes',
    ),
    'missing class': (
        'folders',
        lambda at: shutil.rmtree(at / 'test' / LAST),
        f'{{folder}}/test: no image of class {LAST}; 1 of the 20 test classes',
    ),
    'pickle that calls': (
        'cache',
        lambda at: replace(at / 'mini-imagenet-cache-val.pkl', pickle.dumps(Calls())),
        '{folder}/mini-imagenet-cache-val.pkl: refused, since loading it would use posix.system',
    ),
    'truncated pickle': (
        'cache',
        lambda at: truncate(at / 'mini-imagenet-cache-test.pkl'),
        '{folder}/mini-imagenet-cache-test.pkl: not a whole pickle of arrays',
    ),
    'other content': (
        'cache',
        lambda at: replace(at / 'mini-imagenet-cache-val.pkl', pickle.dumps({'data': [1]})),
        '{folder}/mini-imagenet-cache-val.pkl: expected a dict of image_data',
    ),
    'number too large': (
        'cache',
        lambda at: replace(
            at / 'mini-imagenet-cache-val.pkl',
            pickle.dumps(
                {'image_data': np.zeros([2, 84, 84, 3], np.uint8), 'class_dict': {'a': [0, 2]}}
            ),
        ),
        'IndexError',
    ),
    'other size': (
        'cache',
        lambda at: replace(
            at / 'mini-imagenet-cache-val.pkl',
            pickle.dumps(
                {'image_data': np.zeros([2, 32, 32, 3], np.uint8), 'class_dict': {'a': [0, 1]}}
            ),
        ),
        'uint8 (2, 32, 32, 3)',
    ),
}


@pytest.mark.parametrize('layout, spoil, message', BAD.values(), ids=BAD)
def test_bad_input_is_named_and_leaves_nothing(
    layout, spoil, message, raw, copy, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder, data = copy(layout), tmp_path / 'tfds'
    spoil(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
    with pytest.raises(UserError) as raised:
        miniimagenet(str(data), str(folder))
    assert (
        message.format(folder=folder) in str(raised.value)
        and len(str(raised.value).splitlines()) == 1
    )
    assert {path: path.stat().st_mtime_ns for path in folder.rglob('*')} == before
    assert not list(data.rglob('*')) and not (tmp_path / 'executed').exists()


def test_a_mended_set_can_be_prepared(raw, copy, tmp_path):
    folder, data = copy('folders'), str(tmp_path / 'tfds')
    whole = (
        image := folder / 'val' / CLASSES['val'][0] / f'{CLASSES["val"][0]}00000001.png'
    ).read_bytes()
    truncate(image)
    with pytest.raises(UserError, match='not a whole image'):
        miniimagenet(data, str(folder))
    replace(image, whole)
    assert_holds(miniimagenet(data, str(folder)), raw[1])


@pytest.mark.parametrize(
    'call',
    [
        b'cos\nsystem\n',
        b'cbuiltins\neval\n',
        b'c__builtin__\neval\n',
        b'cnumpy.core.multiarray\nfromfile\n',
        b'cnumpy\nload\n',
        b'\x80\x04\x8c\x05numpy\x8c\x0ffromfile.escape\x93',
    ],
)
def test_a_pickle_may_name_nothing_but_arrays(tmp_path, call):
    path = tmp_path / 'names.pkl'
    path.write_bytes(call + b'.')
    with pytest.raises(UserError, match='names.pkl: refused'):
        load_arrays(path)


COMMAND = ['--datasource=miniimagenet', '--max_pool=True', '--update_batch_size=1', '--logdir=logs']


def run_few_tasks(*arguments, cwd):
    """The command line, evaluating 25 tasks: 600 of this size take minutes on two cores."""
    printed = run_maml(*arguments, '--test_tasks=25', cwd=cwd)
    rows = [line.split() for line in printed.stdout.splitlines() if '±' in line]
    assert [int(row[0]) for row in rows] == list(range(11))
    return printed


@pytest.mark.slow
def test_command_line(raw, tmp_path):
    printed = run_few_tasks(
        *COMMAND,
        f'--data_dir={tmp_path / "tfds"}',
        f'--manual_dir={raw[0] / "csv"}',
        '--num_filters=4',
        '--metatrain_iterations=2',
        '--meta_batch_size=2',
        '--num_updates=1',
        cwd=tmp_path,
    )
    assert printed.stdout.startswith('Preparing miniImageNet from ')
    assert not any(word in printed.stderr for word in ('Traceback', 'WARNING', 'absl', 'tfrecord'))
    assert 'train: 100%' in printed.stderr and 'images/s' in printed.stderr
    (run,) = (tmp_path / 'logs').iterdir()
    results = json.loads((run / 'results.json').read_text())
    assert (
        results['metric'] == 'accuracy' and results['iteration'] == 2 and len(results['mean']) == 11
    )


@pytest.mark.slow
@pytest.mark.skipif(
    not CHECKPOINT.with_suffix('.index').exists(),
    reason="the reference's checkpoint is not beside the project",
)
def test_the_reference_s_checkpoint_is_evaluated(data_dir, tmp_path):
    printed = run_few_tasks(
        *COMMAND,
        f'--data_dir={data_dir}',
        '--num_filters=32',
        '--num_updates=5',
        '--train=False',
        '--test_set=True',
        f'--init_from={CHECKPOINT}',
        cwd=tmp_path,
    )
    assert f'miniimagenet test tasks, 5-way 1-shot, weights of {CHECKPOINT}' in printed.stdout


@pytest.mark.slow
def test_the_command_line_prints_one_line(copy, tmp_path):
    BAD['truncated image'][1](folder := copy('folders'))
    printed = run_maml(
        *COMMAND,
        f'--data_dir={tmp_path / "tfds"}',
        f'--manual_dir={folder}',
        cwd=tmp_path,
        expect=1,
    )
    last = printed.stderr.replace('\r', '\n').splitlines()[-1]
    assert (
        f'error: {folder}/test/{LAST}/{IMAGE}: not a whole image' in last
        and 'Traceback' not in printed.stderr
    )
    assert not (tmp_path / 'logs').exists()


def test_all_missing_classes_of_all_splits_are_named(copy, tmp_path):
    folder = copy('folders')
    lost = {split: CLASSES[split][:2] for split in ('train', 'val', 'test')}
    for split, names in lost.items():
        for name in names:
            shutil.rmtree(folder / split / name)
    with pytest.raises(UserError) as raised:
        miniimagenet(str(tmp_path / 'tfds'), str(folder))
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    for split, names in lost.items():
        assert f'{folder}/{split}: no image of class {", ".join(names)}; 2 of the ' in message
    assert f'--datasource=directory --data_dir={folder} takes this layout' in message


def test_what_a_layout_lacks_is_named(copy, tmp_path):
    folder = copy('cache')
    (folder / 'mini-imagenet-cache-test.pkl').unlink()
    with pytest.raises(UserError, match='it lacks mini-imagenet-cache-test.pkl'):
        miniimagenet(str(tmp_path / 'tfds'), str(folder))
