"""Land-cover tiles: regions that the test writes are tasks, and patches stay on one side."""

import itertools
import json

import numpy as np
import pytest
import tensorflow as tf
from command import run_here, run_maml
from PIL import Image

from maml_tf.datasets.landcover.regions import list_regions, patch_of
from maml_tf.datasets.landcover.tiles import landcover
from maml_tf.datasets.raw.folder_split import sizes
from maml_tf.episodes.sampling import Sampler
from maml_tf.episodes.task import BatchSpec, EpisodeSpec, SequenceSpec
from maml_tf.errors import UserError

SIDE = 8
COVERS = ['Croplands', 'Forests', 'Urban', 'Water', 'Wetlands']
REGIONS = ['10', '11', '12', '13', '14']
SPEC = EpisodeSpec(way=3, shot=2, query=2)


def write_tile(path, colour, rng):
    """A tile of about one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = rng.integers(-20, 20, (SIDE, SIDE, 3))
    Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8)).save(path)


def write_regions(folder, regions=REGIONS, covers=COVERS, patches=7):
    """Every patch has one to three tiles of the class; a cover's colour shifts by region."""
    rng = np.random.default_rng(0)
    for r, c in itertools.product(range(len(regions)), range(len(covers))):
        colour = np.array([40 * c + 20, 200 - 30 * c, 10 * r + 60])
        for patch in range(patches):
            for corner in ('bl', 'tr', 'tl')[: 1 + patch % 3]:
                name = f'fall_p{patch + 5}{corner}.png'
                write_tile(folder / regions[r] / covers[c] / name, colour, rng)
    return folder


@pytest.fixture(scope='module')
def tiles(tmp_path_factory):
    return write_regions(tmp_path_factory.mktemp('tiles'))


def split_file(path, *rows):
    path.write_text('\n'.join(['region,split', *rows]) + '\n')
    return path


def drawn(source, split, spec, count=40, seed=1):
    """Of each task {class: [names of its images]}, the support first."""
    tasks = source.tasks(split, spec, seed)
    picks, classes = tasks.pick(0, count), tasks.classes
    for numbers, images in zip(picks.classes.numpy(), picks.images.numpy()):
        yield {
            classes.class_names[c]: [classes.image_names[classes.firsts[c] + i] for i in row]
            for c, row in zip(numbers, images)
        }


def one_line(raised, *words):
    message = str(raised.value)
    assert len(message.splitlines()) == 1 and all(word in message for word in words), message


# Tasks


@pytest.mark.parametrize('split', ['train', 'val', 'test', 'trainval'])
def test_a_task_is_of_one_region_and_shows_a_patch_once(tiles, split):
    source = landcover(tiles, SIDE, way=3, least=4)
    regions, covers, tiles_seen = set(), set(), set()
    for task in drawn(source, split, SPEC, count=200):
        assert len(task) == 3 and len({name.split('/')[0] for name in task}) == 1
        regions.add(next(iter(task)).split('/')[0])
        for name, images in task.items():
            covers.add(name.split('/')[1])
            patches = [patch_of(image) for image in images]
            assert len(patches) == 4 == len(set(patches)), patches
            tiles_seen.update((name, image) for image in images)
    classes = source.split(split)
    assert regions == {name.split('/')[0] for name in classes.class_names}
    assert covers == set(COVERS)
    # All tiles are drawn, also the second and third of a patch.
    assert len(tiles_seen) > 0.95 * sum(classes.sizes)


def test_pixels_are_those_of_the_named_files(tiles):
    source = landcover(tiles, SIDE)
    tasks = source.tasks('train', SPEC, 0)
    task = tasks(0, 3)
    for number, expected in enumerate(drawn(source, 'train', SPEC, 3, seed=0)):
        for part, x in ((slice(0, 2), task.support_x), (slice(2, 4), task.query_x)):
            rows = [(name, image) for name in expected for image in expected[name][part]]
            for (name, image), values in zip(rows, x[number].numpy(), strict=True):
                region, cover = name.split('/')
                folder = tiles / region.removesuffix('_fall') / cover
                pixels = np.asarray(Image.open(folder / image))
                np.testing.assert_allclose(values, pixels / 255, atol=1e-6)


def test_tasks_of_fewer_shots_begin_with_the_same_tiles(tiles):
    source = landcover(tiles, SIDE)
    few = drawn(source, 'test', EpisodeSpec(3, 1, 2))
    for one, more in zip(few, drawn(source, 'test', EpisodeSpec(3, 3, 2))):
        assert {name: row[0] for name, row in one.items()} == {n: r[0] for n, r in more.items()}


def test_tiles_of_a_patch_are_drawn_alike():
    patches = np.array([0, 0, 0, 1, 2, 2, 7, 8, 8, 8, 8])
    pick = Sampler([6, 5], EpisodeSpec(2, 1, 1), (0, 'train'), scenes=patches)
    compiled = tf.function(lambda: pick(0, 6000), jit_compile=True)()
    picks = pick(0, 6000)
    np.testing.assert_array_equal(compiled.images, picks.images)
    images = picks.images.numpy()[picks.classes.numpy() == 0]
    # A patch is as likely as another, and so is each of its tiles.
    shares = np.bincount(images.ravel(), minlength=6) / images.size
    np.testing.assert_allclose(shares, [1 / 9, 1 / 9, 1 / 9, 1 / 3, 1 / 6, 1 / 6], atol=0.02)


def test_a_class_of_too_few_patches_gives_no_task():
    with pytest.raises(UserError, match='one of a scene, are more than the 2 of the smallest'):
        Sampler(
            [6, 5], EpisodeSpec(2, 2, 1), (0, 'train'), scenes=[0, 0, 0, 1, 2, 2, 7, 7, 8, 8, 8]
        )


def test_sequences_would_mix_regions(tiles):
    with pytest.raises(UserError, match='a sequence would mix groups'):
        landcover(tiles, SIDE).tasks('train', SequenceSpec(3, 12), 0)


# Pretraining


@pytest.mark.parametrize('split', ['train', 'trainval'])
def test_pretraining_tells_land_covers_apart_not_regions(tiles, split):
    source = landcover(tiles, SIDE)
    classes = source.split(split)
    assert len(classes.sizes) == len(COVERS) * {'train': 3, 'trainval': 4}[split]
    assert source.count_classes(split) == len(COVERS)
    batches = source.tasks(split, BatchSpec(len(classes.images)), 0)
    x, y = (values.numpy() for values in batches(0, 1))
    assert y.shape == (len(classes.images), len(COVERS))
    # A cover's red channel is its own in all regions, see write_regions.
    covers = np.round((x[..., 0].mean((1, 2)) * 255 - 20) / 40).astype(int)
    np.testing.assert_array_equal(np.argmax(y, 1), covers)


def test_labels_without_a_gap_where_a_split_lacks_a_class(tmp_path):
    write_regions(tmp_path, ['a', 'b'], ['Forests', 'Water', 'Wetlands'])
    write_regions(tmp_path, ['c'], ['Barren', 'Forests'])
    file = split_file(tmp_path / 's.csv', 'a_fall,train', 'b_fall,val', 'c_fall,test')
    source = landcover(tmp_path, SIDE, file)
    assert source.count_classes('train') == 3 and source.count_classes('test') == 2
    assert set(np.argmax(source.tasks('train', BatchSpec(60), 0)(0, 1).y, 1)) == {0, 1, 2}


# Folders


def test_tiles_of_two_seasons_are_of_two_regions(tmp_path):
    rng = np.random.default_rng(0)
    for name in ('fall_p1bl.png', 'fall_p10tr.png', 'fall_p1tr.png', 'spring_p1bl.png', 'x.jpg'):
        write_tile(tmp_path / '7' / 'Water' / name, 100, rng)
    write_tile(tmp_path / '7' / 'Forests' / 'spring_p2bl.png', 100, rng)
    regions, _ = list_regions(tmp_path)
    named = {
        region: {cover: [path.name for path in paths] for cover, paths in covers.items()}
        for region, covers in regions.items()
    }
    assert named == {
        '7': {'Water': ['x.jpg']},
        '7_fall': {'Water': ['fall_p1bl.png', 'fall_p1tr.png', 'fall_p10tr.png']},
        '7_spring': {'Forests': ['spring_p2bl.png'], 'Water': ['spring_p1bl.png']},
    }


def test_what_gives_no_task_is_left_out_in_a_line(tmp_path, capsys):
    write_regions(tmp_path, ['a', 'b', 'c', 'd'])
    write_regions(tmp_path, ['a'], ['Barren'], patches=3)
    write_regions(tmp_path, ['e'], ['Forests', 'Water'])
    (tmp_path / 'notes').mkdir()
    write_tile(tmp_path / 'a' / 'loose.png', 100, np.random.default_rng(0))
    file = split_file(
        tmp_path / 's.csv', *(f'{name}_fall,{split}' for name, split in
                              zip('abcde', ('train', 'val', 'test', 'train', 'train')))
    )  # fmt: skip
    source = landcover(tmp_path, SIDE, file, way=3, least=4)
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split('left out ')[1] for line in (*lines, last)] == [
        '1 folder without class folders: notes',
        '1 tile in no class folder: a/loose.png',
        '1 class of a region with fewer patches than are asked for: a_fall/Barren (3 of 4)',
        '1 region with fewer such classes than a task has: e_fall (2 of 3)',
    ]
    names = source.split('train').class_names
    assert {name.split('/')[0] for name in names} == {'a_fall', 'd_fall'}
    assert 'a_fall/Barren' not in names


def test_regions_are_split_by_their_names(tiles):
    source = landcover(tiles, SIDE)
    parts = {
        split: {name.split('/')[0] for name in source.split(split).class_names}
        for split in ('train', 'val', 'test')
    }
    assert [len(regions) for regions in parts.values()] == [3, 1, 1]
    assert set().union(*parts.values()) == {f'{name}_fall' for name in REGIONS}
    assert source.identity == landcover(tiles, SIDE, way=4, least=6).identity
    shares = {'val': 0.2, 'test': 0.2}
    assert list(sizes(3, shares, 1).values()) == [1, 1, 1]
    assert list(sizes(15, shares, 1).values()) == [9, 3, 3]


def test_the_split_file_says_otherwise(tiles, tmp_path):
    rows = [f'{name}_fall,{split}' for name, split in zip(REGIONS, ('test', *['train'] * 3, 'val'))]
    source = landcover(tiles, SIDE, split_file(tmp_path / 's.csv', *rows))
    assert {name.split('/')[0] for name in source.split('test').class_names} == {'10_fall'}
    assert source.identity != landcover(tiles, SIDE).identity
    with pytest.raises(UserError) as raised:
        landcover(tiles, SIDE, split_file(tmp_path / 's.csv', *rows[1:]))
    one_line(raised, 'region 10_fall is missing, 1 of 5')
    with pytest.raises(UserError) as raised:
        landcover(tiles, SIDE, split_file(tmp_path / 's.csv', '10,train'))
    one_line(raised, 'line 2: there is no region 10')
    (tmp_path / 's.csv').write_text('class,split\n')
    with pytest.raises(UserError) as raised:
        landcover(tiles, SIDE, tmp_path / 's.csv')
    one_line(raised, 'it should be region,split')


def test_what_is_no_folder_of_regions_is_refused(tiles, tmp_path):
    for folder, words in (
        (tiles / '10', 'region/class/tile.png'),
        (tmp_path / 'none', 'no such folder'),
        (None, 'name the folder of regions'),
    ):
        with pytest.raises(UserError) as raised:
            landcover(folder)
        one_line(raised, words)
    with pytest.raises(UserError) as raised:
        landcover(tiles, way=6)
    one_line(raised, 'way', '6', 'no region of the train split', '6 classes of 2 patches')
    write_regions(tmp_path / 'two', ['a', 'b'])
    with pytest.raises(UserError) as raised:
        landcover(tmp_path / 'two')
    one_line(raised, '2 regions', 'takes 3')
    write_regions(tmp_path / 'split', ['train', 'val', 'test'])
    with pytest.raises(UserError) as raised:
        landcover(tmp_path / 'split')
    one_line(raised, 'looks like a split')


def test_files_that_are_no_images_are_left_out(tmp_path, capsys):
    write_regions(tmp_path, ['a', 'b', 'c'], COVERS[:3], patches=5)
    file = split_file(tmp_path / 's.csv', 'a_fall,train', 'b_fall,val', 'c_fall,test')
    for corner in ('bl', 'tr'):  # Both tiles of patch 6, which then has none.
        (tmp_path / 'a' / 'Forests' / f'fall_p6{corner}.png').write_bytes(b'no image')
    source = landcover(tmp_path, SIDE, file, way=2, least=5)
    assert source.split('train').class_names == ['a_fall/Croplands', 'a_fall/Urban']
    assert 'left out 2 files' in capsys.readouterr().out
    source = landcover(tmp_path, SIDE, file, way=3, least=5)
    with pytest.raises(UserError, match='of 5 patches that can be read'):
        source.split('train')


def test_a_mapped_file_gives_the_same_tasks(tiles, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    here = list(drawn(landcover(tiles, SIDE), 'train', SPEC, 5))
    x = landcover(tiles, SIDE).tasks('train', SPEC, 0)(0, 2).support_x
    monkeypatch.setattr('maml_tf.datasets.raw.memory_map.IN_MEMORY', 1)
    source = landcover(tiles, SIDE)
    assert source.split('train').streams
    assert list(drawn(source, 'train', SPEC, 5)) == here
    np.testing.assert_array_equal(source.tasks('train', SPEC, 0)(0, 2).support_x, x)


# The command line

COMMON = (
    *('--datasource=landcover', '--num_classes=3', '--train_query=2', '--test_query=2'),
    *('--test_tasks=20', '--num_filters=4', '--image_size=16', '--logdir=logs', '--log=False'),
)


def results(cwd, **flags):
    """The results.json of each run."""
    found = [json.loads(path.read_text()) for path in cwd.glob('logs/*/results.json')]
    return [run for run in found if all(run['flags'][name] == flags[name] for name in flags)]


@pytest.mark.slow
def test_one_run_is_evaluated_with_other_shots(tiles, tmp_path):
    command = (
        *(f'--data_dir={tiles}', *COMMON, '--update_lr=0.05', '--meta_batch_size=2'),
        *('--metatrain_iterations=3', '--train_update_batch_size=2', '--test_num_updates=2'),
    )
    printed = run_maml(*command, '--update_batch_size=2', cwd=tmp_path).stdout
    assert 'Accuracy on 20 landcover validation tasks, 3-way 2-shot' in printed
    more = (
        '--train=False',
        '--test_set=True',
        '--update_batch_size=4',
        '--write_tasks=tasks.jsonl',
    )
    printed = run_here(*command, *more, cwd=tmp_path).stdout
    assert 'Accuracy on 20 landcover test tasks, 3-way 4-shot, iteration 3 of 3' in printed
    (run,) = results(tmp_path)
    assert run['protocol']['shot'] == 4 and 0 <= run['mean'][-1] <= 1
    _, *tasks = map(json.loads, (tmp_path / 'tasks.jsonl').read_text().splitlines())
    for task in tasks:
        assert len({name.split('/')[0] for name in task['classes']}) == 1
        for support, query in zip(task['support'], task['query']):
            assert not {*map(patch_of, support)} & {*map(patch_of, query)}
    listed = run_here(*command, '--train=False', '--test_set=True', '--update_batch_size=4',
                      '--tasks_file=tasks.jsonl', cwd=tmp_path).stdout  # fmt: skip
    assert '3-way 4-shot' in listed


@pytest.mark.slow
def test_fine_tuning_is_pretrained_on_land_covers_and_goes_on(tiles, tmp_path):
    common = [flag for flag in COMMON if not flag.startswith('--train_query')]
    command = (
        *(f'--data_dir={tiles}', *common, '--algorithm=fine_tuning', '--fine_tuning_batch=8'),
        *('--fine_tuning_rate=0.01', '--fine_tuning_updates=2', '--update_batch_size=1'),
    )
    run_here(*command, '--metatrain_iterations=2', cwd=tmp_path)
    printed = run_here(*command, '--metatrain_iterations=4', '--export_dir=out', cwd=tmp_path)
    assert 'iteration 4 of 4' in printed.stdout
    card = (tmp_path / 'out' / 'MODEL_CARD.md').read_text()
    assert 'landcover' in card and 'CC BY-NC-SA' in card
    loaded = tf.saved_model.load(str(tmp_path / 'out'))
    images = tf.random.stateless_uniform([1, 3, 16, 16, 3], [1, 2])
    state = loaded.signatures['adapt'](support_x=images, support_y=tf.eye(3)[tf.newaxis])
    answer = loaded.signatures['predict_query'](query_x=images, **state)
    assert answer['probabilities'].shape == (1, 3, 3)


@pytest.mark.parametrize(
    'arguments, words',
    [
        (
            ('--within_groups=True',),
            '--within_groups=True: means nothing to --datasource=landcover',
        ),
        (('--algorithm=mann', '--num_filters=64'), 'a sequence would mix groups'),
        (('--num_classes=6',), '--num_classes=6: no region of the train split'),
        (('--update_batch_size=9',), '--num_classes=3: no region of the val split'),
        (('--split_file=none.csv',), '--split_file=none.csv'),
    ],
)
def test_the_command_line_refuses_in_a_line(tiles, tmp_path, arguments, words):
    command = (f'--data_dir={tiles}', *COMMON, '--update_batch_size=1', '--metatrain_iterations=1')
    arguments = (*arguments, '--train_update_batch_size=1')
    said = run_here(*command, *arguments, cwd=tmp_path, expect=1).stderr.strip()
    assert words in said and len(said.splitlines()) == 1


def test_other_sources_have_no_patches(tmp_path):
    said = run_here('--fewest_patches=5', cwd=tmp_path, expect=1).stderr
    assert '--fewest_patches=5: means nothing to --datasource=sinusoid, only to landcover' in said
