"""tieredImageNet in every layout, from files that the test writes: the real classes, two plain
images or so of each."""

import io
import os
import pathlib
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image
from raw_files import Calls, decoded, dump, replace, truncate, write_image

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.datasets import tieredimagenet
from maml_tf.datasets.raw import images as raw_images
from maml_tf.datasets.raw import manual_builder, pickles
from maml_tf.datasets.raw.splits import class_names
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import UserError
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import metatrain_op
from maml_tf.training.outer_optimizers import adam

SPLITS = ('train', 'val', 'test')
# {split: [(class, super-category)]}
LISTED = {
    split: [tuple(line.split(',')) for line in class_names('tieredimagenet')[split]]
    for split in SPLITS
}
FIRST_LABEL = {'train': 0, 'val': 351, 'test': 448}
LAYOUTS = ('folders', 'published', 'published with ids', 'npz')
SPEC = EpisodeSpec(way=5, shot=1, query=1)


def own_order(split):
    """The published files number the classes in an order of their own: [place in the list] by
    number."""
    return np.random.default_rng(len(split)).permutation(len(LISTED[split])).tolist()


def in_file_order(split, sizes):
    """[place of the class in the list] of each image of a pickle: neither class by class nor
    sorted."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes)).tolist()


@pytest.fixture(scope='module')
def raw(tmp_path_factory):
    """(folder with one directory per layout, {layout: {split: [images of each class, as numbered
    there]}})"""
    root, rng = tmp_path_factory.mktemp('raw'), np.random.default_rng(0)
    expected = {layout: {} for layout in LAYOUTS}
    for layout in LAYOUTS:
        (root / layout).mkdir()
    for split in SPLITS:
        files = []
        for i, (name, _) in enumerate(LISTED[split]):
            folder = root / 'folders' / split / name
            folder.mkdir(parents=True)
            files.append(
                [write_image(folder, name, i % 4 + k, rng) for k in range(2 + (i % 40 == 0))]
            )
        (folder / '._hidden.png').write_bytes(b'what a Mac leaves')
        (folder / 'Thumbs.db').write_bytes(b'what Windows leaves')
        (folder.parent / '.hidden').mkdir()
        images = [[decoded(path) for path in paths] for paths in files]
        expected['folders'][split] = images
        write_pickles(root, split, files, images, expected)
    return root, expected


def write_pickles(root, split, files, images, expected):
    order, places = own_order(split), in_file_order(split, [len(paths) for paths in files])
    left = [list(zip(paths, pixels)) for paths, pixels in zip(files, images)]
    taken = [left[place].pop() for place in places]
    in_order_of_file = [
        [pixels for at, (_, pixels) in zip(places, taken) if at == place]
        for place in range(len(left))
    ]
    encoded = [as_opencv_encodes(path, pixels) for path, pixels in taken]
    for layout in LAYOUTS[1:]:
        folder, by_number = root / layout, layout in ('published', 'npz')
        expected[layout][split] = [
            in_order_of_file[place] for place in (order if by_number else range(len(left)))
        ]
        if layout == 'npz':
            np.savez(
                folder / f'{split}_images.npz',
                images=np.stack([pixels for _, pixels in taken])[..., ::-1],
            )
            dump(
                {'labels': [FIRST_LABEL[split] + order.index(place) for place in places]},
                folder / f'{split}_labels.pkl',
            )
            continue
        python, protocol = {'train': (2, 2), 'val': (3, 5), 'test': (3, 2)}[split]
        array = np.empty(len(encoded), object)
        array[:] = encoded
        dump(
            array if split == 'val' else encoded,
            folder / f'{split}_images_png.pkl',
            python,
            protocol,
        )
        names, groups = zip(*LISTED[split])
        different = sorted(set(groups))
        dump(
            {
                'label_specific': np.array([order.index(place) for place in places], np.int32),
                'label_general': np.array(
                    [different.index(groups[place]) for place in places], np.int32
                ),
                'label_specific_str': [
                    names[place] if layout == 'published with ids' else english(names[place])
                    for place in order
                ],
                'label_general_str': different,
            },
            folder / f'{split}_labels.pkl',
            python,
            2,
        )


def as_opencv_encodes(path, pixels):
    """A PNG as a column of bytes, as cv2.imencode gives it; what the folder has as a PNG of any
    size, or grey."""
    data = path.read_bytes()
    if path.suffix != '.png':
        file = io.BytesIO()
        is_grey = (pixels == pixels[..., :1]).all()
        Image.fromarray(pixels[..., 0] if is_grey else pixels).save(file, 'png')
        data = file.getvalue()
    return np.frombuffer(data, np.uint8).copy()[:, np.newaxis]


def english(name):
    return f'class {name}, so called'


@pytest.fixture(scope='module')
def source(raw, tmp_path_factory):
    """(the set prepared from the published files, its expected images)"""
    data = tmp_path_factory.mktemp('tfds')
    return tieredimagenet.tieredimagenet(str(data), str(raw[0] / 'published')), raw[1]['published']


@pytest.fixture
def copy(raw, tmp_path):
    """layout -> a copy of it. The files are linked: replace them, do not write into them."""
    return lambda layout: pathlib.Path(
        shutil.copytree(raw[0] / layout, tmp_path / layout, copy_function=os.link)
    )


def assert_holds(source, layout, expected):
    for split in SPLITS:
        held = source.split(split)
        names, supers = zip(*LISTED[split])
        if layout in ('published', 'npz'):
            names, supers = zip(
                *[(english(names[place]), supers[place]) for place in own_order(split)]
            )
        if layout == 'npz':
            assert (
                held.class_names == [str(number) for number in range(len(names))]
                and held.groups is None
            )
        else:
            assert held.class_names == list(names)
            # Two classes have one group if and only if they have one super-category.
            assert (
                len(set(zip(supers, held.groups.tolist())))
                == len(set(supers))
                == len(set(held.groups.tolist()))
            )
        assert isinstance(held.images, np.memmap) and held.images.dtype == np.uint8
        np.testing.assert_array_equal(held.sizes, [len(images) for images in expected[split]])
        np.testing.assert_array_equal(held.images, np.concatenate(expected[split]))


def test_class_lists():
    assert [len(LISTED[split]) for split in SPLITS] == [351, 97, 160]
    assert len({name for split in SPLITS for name, _ in LISTED[split]}) == 608
    groups = [{group for _, group in LISTED[split]} for split in SPLITS]
    assert [len(group) for group in groups] == [20, 6, 8] and len(set.union(*groups)) == 34


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_layout_gives_the_same_images_once(layout, raw, copy, tmp_path, capsys):
    folder, data = copy(layout), tmp_path / 'tfds'
    prepared = data / 'tiered_imagenet/1.0.0'
    assert_holds(tieredimagenet.tieredimagenet(str(data), str(folder)), layout, raw[1][layout])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f'Preparing tieredImageNet from {folder} in {prepared}, once'
    assert [line.split(',')[0] for line in printed[1:]] == [
        f'Writing {prepared}/{split}.npy' for split in SPLITS
    ]
    shutil.rmtree(folder)
    assert_holds(tieredimagenet.tieredimagenet(str(data)), layout, raw[1][layout])
    assert not capsys.readouterr().out
    assert [path.name for path in data.glob('*/*')] == ['1.0.0']


def test_the_prepared_set_numbers_the_classes_of_all_splits(source):
    for split in SPLITS:
        held, seen = source[0].split(split), []
        builder = tieredimagenet.TieredImagenet(
            data_dir=str(pathlib.Path(held.images.filename).parents[2])
        )
        for example in tfds.as_numpy(builder.as_dataset(split=split)):
            np.testing.assert_array_equal(example['image'], held.images[example['index']])
            seen.append((example['index'], example['label'] - FIRST_LABEL[split]))
        assert sorted(seen) == list(enumerate(np.repeat(np.arange(len(held.sizes)), held.sizes)))


def test_tasks_by_brute_force(source):
    images = {
        image.tobytes(): (number, place)
        for number, of_class in enumerate(source[1]['train'])
        for place, image in enumerate(of_class)
    }
    task = source[0].tasks('train', SPEC, seed=1)(0, 40)
    support, query = (
        [
            [images[image.tobytes()] for image in np.rint(x * 255).astype(np.uint8)]
            for x in part.numpy()
        ]
        for part in (task.support_x, task.query_x)
    )
    for here, there in zip(support, query):
        assert [number for number, _ in here] == [number for number, _ in there]
        assert len({number for number, _ in here}) == 5 and not set(here) & set(there)
    assert len({number for row in support for number, _ in row}) > 100


def test_a_streamed_task_is_a_function_of_its_index(source):
    draw = source[0].tasks('val', SPEC, seed=3)
    assert draw.streams
    batch, in_graph = draw(0, 6), tf.function(draw, autograph=False)
    for start, count in [(2, 3), (5, 1)]:
        for whole, part, graph in zip(
            batch[:4], draw(start, count), in_graph(tf.constant(start, tf.int64), count)
        ):
            np.testing.assert_array_equal(whole[start : start + count], part)
            np.testing.assert_array_equal(part, graph)


def test_classes_of_one_super_category(source):
    spec = EpisodeSpec(way=5, shot=1, query=1, within_groups=True)
    held = source[0].split('test')
    picks = source[0].tasks('test', spec, seed=0).pick(0, 30)
    super_category = {english(name): group for name, group in LISTED['test']}
    seen = [
        {super_category[held.class_names[number]] for number in row}
        for row in picks.classes.numpy()
    ]
    assert all(len(groups) == 1 for groups in seen) and len(set.union(*seen)) == 8


def test_a_few_steps_of_maml(source):
    learner = MAML(
        FullyConnected((84, 84, 3), 5, (8,), 'None'),
        source[0].objective,
        inner_lr=0.01,
        inner_steps=1,
    )
    run = iterate(
        metatrain_op(learner, adam(0.001)),
        source[0].tasks('train', SPEC, seed=0),
        meta_batch_size=2,
    )
    before = [variable.numpy() for variable in learner.trainable_variables]
    log = run(0, 3)
    assert np.isfinite(log['post_loss']) and 0 <= log['post_accuracy'] <= 1
    assert all(
        (variable.numpy() != old).any()
        for variable, old in zip(learner.trainable_variables, before)
    )


def with_labels(folder, split='test', **changes):
    path = folder / f'{split}_labels.pkl'
    content = pickles.load_arrays(path) | changes
    replace(path, pickle.dumps({key: value for key, value in content.items() if value is not None}))


def changed(folder, key, place, value, split='test'):
    values = list(pickles.load_arrays(folder / f'{split}_labels.pkl')[key])
    values[place] = value
    with_labels(folder, split, **{key: values})


def with_image(folder, image):
    content = pickles.load_arrays(path := folder / 'test_images_png.pkl')
    replace(path, pickle.dumps([image, *content[1:]]))


def with_array(folder, **arrays):
    (path := folder / 'val_images.npz').unlink()
    np.savez(path, **arrays)


def replace_last_class(folder):
    places = pickles.load_arrays(folder / 'test_labels.pkl')['label_specific']
    with_labels(folder, label_specific=np.where(places == 159, 158, places))


LAST = LISTED['test'][-1][0]
ELSEWHERE = LISTED['train'][0][0]
PNGS, TEST_LABELS = '{folder}/test_images_png.pkl: ', '{folder}/test_labels.pkl: '
BAD = {
    'no such folder': (
        'folders',
        shutil.rmtree,
        'manual_dir={folder}: no tieredImageNet, looked for',
    ),
    'a split is missing': (
        'published',
        lambda at: (at / 'val_labels.pkl').unlink(),
        'data/README.md',
    ),
    'class folder missing': (
        'folders',
        lambda at: shutil.rmtree(at / 'test' / LAST),
        f'{{folder}}/test: no image of class {LAST}; 1 of the 160 test classes',
    ),
    'class folder empty': (
        'folders',
        lambda at: [path.unlink() for path in (at / 'test' / LAST).iterdir()],
        f'{{folder}}/test: no image of class {LAST}; 1 of the 160 test classes',
    ),
    'class of another split': (
        'folders',
        lambda at: shutil.copytree(at / 'train' / ELSEWHERE, at / 'test' / ELSEWHERE),
        f'is of class {ELSEWHERE}, which is not among the 160 test classes',
    ),
    'image cut short': (
        'folders',
        lambda at: truncate(at / 'train' / ELSEWHERE / f'{ELSEWHERE}00000001.png'),
        f'{{folder}}/train/{ELSEWHERE}/{ELSEWHERE}00000001.png: not a whole image',
    ),
    'images cut short': (
        'published',
        lambda at: truncate(at / 'test_images_png.pkl'),
        PNGS + 'not a whole pickle',
    ),
    'labels cut short': (
        'published',
        lambda at: truncate(at / 'test_labels.pkl'),
        TEST_LABELS + 'not a whole pickle',
    ),
    'png cut short': (
        'published',
        lambda at: with_image(at, b'\x89PNG\r\n\x1a\n and nothing else'),
        '{folder}/test_images_png.pkl, the image at byte ',
    ),
    'not a png': ('published', lambda at: with_image(at, b'nothing'), PNGS + '323 images, but'),
    'labels that call': (
        'published',
        lambda at: replace(at / 'test_labels.pkl', pickle.dumps(Calls())),
        TEST_LABELS + 'refused, since loading it would use posix.system',
    ),
    'images that call': (
        'published',
        lambda at: replace(at / 'test_images_png.pkl', pickle.dumps(Calls())),
        PNGS + '0 images, but',
    ),
    'fewer labels': (
        'published',
        lambda at: with_labels(at, label_specific=[0]),
        PNGS + '324 images, but {folder}/test_labels.pkl has 1 labels',
    ),
    'label out of range': (
        'published',
        lambda at: changed(at, 'label_specific', 3, 160),
        TEST_LABELS + 'label 160 is out of range; the 160 classes of the test split',
    ),
    'label below 0': (
        'published',
        lambda at: changed(at, 'label_specific', 3, -1),
        'label -1 is out of range',
    ),
    'row of labels with a gap': (
        'npz',
        lambda at: changed(at, 'labels', 3, 700),
        'label 252 is out of range',
    ),
    'no image of a class': (
        'published',
        replace_last_class,
        TEST_LABELS + 'no image of class class n',
    ),
    'names missing': (
        'published',
        lambda at: with_labels(at, label_specific_str=['a', 'b']),
        TEST_LABELS + 'names 2 different classes; the test split has 160',
    ),
    'a name twice': (
        'published',
        lambda at: changed(at, 'label_specific_str', 0, english(LAST)),
        TEST_LABELS + 'names 159 different classes; the test split has 160',
    ),
    'ids of another split': (
        'published with ids',
        lambda at: changed(at, 'label_specific_str', 0, ELSEWHERE),
        f'is of class {ELSEWHERE}, which is not among the 160 test classes of Ren et al.',
    ),
    'a class in two groups': (
        'published',
        lambda at: changed(at, 'label_general', 0, 8),
        TEST_LABELS
        + 'label_general does not put the 160 classes of the test split into 8 super-categories',
    ),
    'too few groups': (
        'published',
        lambda at: with_labels(at, label_general=np.zeros(324, int)),
        TEST_LABELS + 'label_general does not put',
    ),
    'fewer groups than images': (
        'published',
        lambda at: with_labels(at, label_general=[0]),
        TEST_LABELS + 'label_general does not put',
    ),
    'labels without numbers': (
        'published',
        lambda at: with_labels(at, label_specific=['n', 'm']),
        TEST_LABELS + 'expected a dict of label_specific, or labels, which numbers',
    ),
    'no labels': (
        'published',
        lambda at: with_labels(at, label_specific=None),
        "(KeyError: 'labels')",
    ),
    'no dict': (
        'npz',
        lambda at: replace(at / 'test_labels.pkl', pickle.dumps([1, 2])),
        TEST_LABELS + 'expected',
    ),
    'npz cut short': (
        'npz',
        lambda at: truncate(at / 'val_images.npz'),
        '{folder}/val_images.npz: not a whole .npz',
    ),
    'another array': (
        'npz',
        lambda at: with_array(at, data=np.zeros([3, 84, 84, 3], np.uint8)),
        '{folder}/val_images.npz: not a whole .npz file with the array images (KeyError',
    ),
    'another size': (
        'npz',
        lambda at: with_array(at, images=np.zeros([3, 32, 32, 3], np.uint8)),
        '{folder}/val_images.npz: images is uint8 (3, 32, 32, 3), not uint8 (n, 84, 84, 3)',
    ),
    'floats': (
        'npz',
        lambda at: with_array(at, images=np.zeros([3, 84, 84, 3])),
        'images is float64',
    ),
    'array cut short': (
        'npz',
        lambda at: cut_array(at / 'test_images.npz'),
        '{folder}/test_images.npz: images is uint8 (324, 84, 84, 3), and holds ',
    ),
}


def cut_array(path):
    """A whole zip file, of which the array lacks the end."""
    with zipfile.ZipFile(path) as archive:
        data = archive.read('images.npy')
    path.unlink()
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('images.npy', data[:-1000])


@pytest.mark.parametrize('layout, spoil, message', BAD.values(), ids=BAD)
def test_bad_input_is_named_and_leaves_nothing(layout, spoil, message, copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, data = copy(layout), tmp_path / 'tfds'
    spoil(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
    with pytest.raises(UserError) as raised:
        tieredimagenet.tieredimagenet(str(data), str(folder))
    assert (
        message.format(folder=folder) in str(raised.value)
        and len(str(raised.value).splitlines()) == 1
    )
    assert {path: path.stat().st_mtime_ns for path in folder.rglob('*')} == before
    assert not list(data.rglob('*')) and not (tmp_path / 'executed').exists()


def test_what_is_interrupted_leaves_nothing_and_can_be_done_again(raw, tmp_path, monkeypatch):
    folder, data = str(raw[0] / 'published with ids'), tmp_path / 'tfds'
    with monkeypatch.context() as patched:
        patched.setattr(
            raw_images.Image, 'open', lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            tieredimagenet.tieredimagenet(str(data), folder)
    assert not list(data.rglob('*'))

    source = tieredimagenet.tieredimagenet(str(data), folder)
    prepared = sorted(data.rglob('*'))
    with monkeypatch.context() as patched:
        first = next(
            manual_builder.batches(tieredimagenet.TieredImagenet(data_dir=str(data)), 'val')
        )

        def interrupted(*_):
            yield {name: values[:3] for name, values in first.items()}
            raise KeyboardInterrupt

        patched.setattr(tieredimagenet, 'batches', interrupted)
        with pytest.raises(KeyboardInterrupt):
            source.split('val')
    assert sorted(data.rglob('*')) == prepared
    assert_holds(source, 'published with ids', raw[1]['published with ids'])
