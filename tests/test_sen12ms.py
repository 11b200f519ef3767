"""SEN12MS as it lies on disk, and the command line on it."""

import csv
import json

import numpy as np
import pytest
from command import run_here, run_maml
from landcover_files import write_sen12ms, write_tif
from PIL import Image
from rasterio.transform import from_origin

from maml_tf.commands import command_line
from maml_tf.commands.command_line import parsed
from maml_tf.datasets.landcover import bands as scales
from maml_tf.datasets.landcover import sen12ms as module
from maml_tf.datasets.landcover.rasters import read_raster
from maml_tf.datasets.landcover.sen12ms import CLASSES, sen12ms, simplified
from maml_tf.datasets.landcover.split import split_regions
from maml_tf.datasets.raw import memory_map
from maml_tf.datasets.raw.folder_split import split_by_name
from maml_tf.episodes.segmentation.label_images import unpacked
from maml_tf.episodes.segmentation.values import UNLABELLED
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import ArgumentError, UserError

SCENES = [('ROIs1868_summer', 17), ('ROIs1868_summer', 4), ('ROIs1970_fall', 17)]
SPLIT = 'region,split\nROIs1868_summer_17,train\nROIs1868_summer_4,val\nROIs1970_fall_17,test\n'
RUN = (
    *('--datasource=sen12ms', '--num_classes=2', '--update_batch_size=1', '--test_query=1'),
    *('--image_size=16', '--num_filters=4', '--meta_batch_size=2', '--test_tasks=6'),
    *('--metatrain_iterations=3', '--test_num_updates=2'),
)


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    """(the folder, {region: labels of its patches})."""
    folder = tmp_path_factory.mktemp('sen12ms')
    labels = write_sen12ms(folder, SCENES)
    (folder / 'split.csv').write_text(SPLIT)
    return folder, labels


def test_igbp_is_simplified():
    names = [CLASSES[number] for number in simplified(np.arange(1, 18))]
    assert names == [
        *['Forest'] * 5,
        *['Shrubland'] * 2,
        *['Savanna'] * 2,
        *['Grassland', 'Wetlands', 'Croplands', 'Urban', 'Croplands', 'Snow and ice'],
        *['Barren', 'Water'],
    ]
    assert simplified(np.array([0, 18, 254, 255])).tolist() == [UNLABELLED] * 4


def test_scales():
    raw = np.zeros([1, 2, 13])
    raw[0, 0], raw[0, 1] = np.arange(13) * 100, np.nan
    np.testing.assert_array_equal(scales.of_s2(raw, 'rgb')[0, 0], [300, 200, 100])
    np.testing.assert_array_equal(scales.of_s2(raw)[0, 1], 0)
    assert scales.of_s2(np.full([1, 1, 13], 12_000)).max() == 10_000
    radar = np.array([-40, -25, -12.5, 0, 3, np.nan]).reshape(1, 3, 2)
    np.testing.assert_array_equal(scales.of_s1(radar).ravel(), [0, 0, 5000, 10_000, 10_000, 0])
    block = np.arange(16, dtype=np.uint16).reshape(4, 4, 1)
    np.testing.assert_array_equal(scales.reduced(block, 2)[..., 0], [[2, 4], [10, 12]])
    np.testing.assert_array_equal(scales.reduced_labels(block[..., 0], 2), [[5, 7], [13, 15]])
    with pytest.raises(UserError, match='2 bands, and rgb takes 3'):
        scales.of_file(np.zeros([1, 1, 2], np.uint8), 'rgb')
    decibels = np.full([1, 1, 2], -9.0)
    for bands, channels in scales.BANDS.items():
        shares = np.full([1, 1, min(channels, 13)], 0.3)
        shares[0, 0, 0] = np.nan
        if bands == 's1s2':
            shares = np.concatenate([shares, decibels], -1)
        with pytest.raises(UserError, match=r'values up to 0.3; .* multiply by 10,000'):
            scales.of_file(shares, bands)
        black = shares.copy()
        black[..., :13] = 0
        assert not scales.of_file(black, bands)[..., :3].any(), 'a tile without data'
        shares[..., :13] *= 10_000
        assert scales.of_file(shares, bands).max() >= 3000
    for channels in (13, 15):
        with pytest.raises(UserError, match='8 bits; bands of Sentinel-2 are reflectances times'):
            scales.of_file(np.zeros([1, 1, channels], np.uint8), 'rgb')


@pytest.mark.parametrize('bands', list(scales.BANDS))
def test_tiles_are_those_of_the_files(world, bands):
    folder, labels = world
    source = sen12ms(folder, 64, bands, folder / 'split.csv')
    assert source.input_shape == (64, 64, scales.BANDS[bands]) and source.class_names == [*CLASSES]
    images = source.split('val')
    assert images.tiles.class_names == ['ROIs1868_summer_4'] and images.tiles.sizes.tolist() == [8]
    x, y = unpacked(images.tiles.images, scales.BANDS[bands])
    numbers = {1: 0, 12: 5, 17: 9}
    for i, igbp in enumerate(labels['ROIs1868_summer_4']):
        expected = np.vectorize(numbers.get)(igbp[2::4, 2::4])
        np.testing.assert_array_equal(y[i], expected)
    assert images.counts.sum() == 8 * 64 * 64 and set(np.flatnonzero(images.counts.sum(0))) == {
        0,
        5,
        9,
    }
    # The second patch, by another way.
    path = folder / 'ROIs1868_summer/s2_4/ROIs1868_summer_s2_4_p2.tif'
    whole = read_raster(path).astype(np.float64) / 10_000
    means = whole.reshape(64, 4, 64, 4, 13).mean((1, 3))
    ours = x[1, ..., :13] if bands != 'rgb' else x[1, ..., ::-1]
    means = means if bands != 'rgb' else means[..., 1:4]
    np.testing.assert_allclose(ours, means, atol=1e-4)
    if bands == 's1s2':
        radar = read_raster(folder / 'ROIs1868_summer/s1_4/ROIs1868_summer_s1_4_p2.tif')
        shares = np.clip((radar + 25) / 25, 0, 1).reshape(64, 4, 64, 4, 2).mean((1, 3))
        np.testing.assert_allclose(x[1, ..., 13:], shares, atol=2e-4)


def test_a_large_set_streams(world, tmp_path, monkeypatch):
    folder, _ = world
    spec = EpisodeSpec(2, 1, 1)
    arguments = 32, 'rgb', folder / 'split.csv'
    expected = sen12ms(folder, *arguments).tasks('test', spec, 0)(0, 3)
    monkeypatch.setattr(memory_map, 'IN_MEMORY', 1000)
    for _ in range(2):  # It is written, and then read again.
        source = sen12ms(folder, *arguments)
        draw = source.tasks('test', spec, 0)
        assert source.split('test').streams and draw.streams
        for one, other in zip(draw(0, 3), expected):
            if one is not None:
                np.testing.assert_array_equal(one, other)
    assert len([*(folder / '.maml_tf').glob('test-sen12ms-rgb-32-*.npy')]) == 1


def test_tested_patches_do_not_overlap(tmp_path):
    """Of 3x4 places in a scene, 128 pixels from each other, without the one at the top left."""
    labels = np.ones([256, 256, 4], np.uint16)
    bands = np.zeros([256, 256, 13], np.uint16)
    places = [(row, column) for row in range(3) for column in range(4)][1:]
    for season, scene in SCENES:
        for number, (row, column) in enumerate(places, start=1):
            place = from_origin(690_000 + 1280 * column, 5_340_000 - 1280 * row, 10, 10)
            for sensor, pixels in (('lc', labels), ('s2', bands)):
                name = f'{season}_{sensor}_{scene}_p{number}.tif'
                # Of the scene that is tested on, the first patch does not say where it lies.
                crs = 'EPSG:32632' if number > 1 or season != 'ROIs1970_fall' else None
                path = tmp_path / season / f'{sensor}_{scene}' / name
                write_tif(path, pixels, crs, place)
    (tmp_path / 'split.csv').write_text(SPLIT)
    source = sen12ms(tmp_path, 4, split_file=tmp_path / 'split.csv')
    names = {split: source.split(split).tiles.image_names for split in source.splits}
    number = lambda name: int(name.rpartition('_p')[2])
    taken = {split: {places[number(name) - 1] for name in of} for split, of in names.items()}
    far = {(row, column) for row in (0, 2) for column in (0, 2)} - {(0, 0)}
    assert taken == {'train': set(places), 'val': far, 'test': far | {places[0]}}
    assert source.split('val').tiles.sizes.tolist() == [3]


def test_split_by_name_and_by_file(world, tmp_path):
    names, shares = [f'region {i}' for i in range(10)], {'val': 0.2, 'test': 0.2}
    parts = split_regions(names)
    assert {split: len(part) for split, part in parts.items()} == {'train': 6, 'val': 2, 'test': 2}
    assert parts == split_regions(names[::-1])
    assert parts == {  # As of the folders of tiles: a split that moves makes results worthless.
        split: sorted(name for name, its in split_by_name(names, shares, 1).items() if its == split)
        for split in parts
    }
    assert {len(part) for part in split_regions(names[:3]).values()} == {1}
    with pytest.raises(ArgumentError, match='takes 3'):
        split_regions(names[:2])
    path = tmp_path / 'split.csv'
    for text, words in (
        ('class,split\n', "the first line is 'class,split'; it should be region,split"),
        ('region,split\nd,train\n', 'line 2: there is no region d'),
        ('region,split\na,train\n', 'region b is missing, 1 of 2 are'),
    ):
        path.write_text(text)
        with pytest.raises(ArgumentError, match=words):
            split_regions(['a', 'b'], path)
    for text in ('region,split\n\na,train\nb,test\n', 'region;split\na;train\nb;test\n'):
        path.write_text(text)
        assert split_regions(['b', 'a'], path) == {'train': ['a'], 'val': [], 'test': ['b']}


def test_bad_folders(world, tmp_path, capsys):
    folder, _ = world
    with pytest.raises(ArgumentError, match='image_size=48: a divisor of 256'):
        sen12ms(folder, 48)
    with pytest.raises(ArgumentError, match='no such folder'):
        sen12ms(tmp_path / 'nowhere')
    with pytest.raises(ArgumentError, match='no label image; it should be'):
        sen12ms(tmp_path)
    write_sen12ms(tmp_path, SCENES, patches=1, s1=False)
    with pytest.raises(ArgumentError, match='has no image beside it'):
        sen12ms(tmp_path, bands='s1s2')
    lost = tmp_path / 'ROIs1868_summer/s2_4/ROIs1868_summer_s2_4_p1.tif'
    lost.unlink()
    with pytest.raises(ArgumentError, match='2 regions'):
        sen12ms(tmp_path)
    assert 'left out 1 label image without all its bands: ROIs1868_summer_lc_4_p1.tif' in (
        capsys.readouterr().out
    )
    write_tif(lost, np.zeros([256, 256, 4], np.uint16))
    label = tmp_path / 'ROIs1868_summer/lc_4/ROIs1868_summer_lc_4_p1.tif'
    assert module.sibling(label, 's2') == lost
    with pytest.raises(UserError, match='4 bands; a file of SEN12MS is 256x256 with 13'):
        module.read_patch(label, 64, 'rgb')
    lost.write_bytes(b'II*\0 no more')
    with pytest.raises(UserError, match='no raster that can be read'):
        module.read_patch(label, 64, 'rgb')


# The command line


@pytest.mark.slow
def test_trained_evaluated_resumed_and_exported(world, tmp_path):
    folder, _ = world
    data = f'--data_dir={folder}', f'--split_file={folder}/split.csv', f'--logdir={tmp_path}/logs'
    first = run_maml(*RUN, *data, f'--export_dir={tmp_path}/saved', cwd=tmp_path)
    for title in ('Pixel accuracy', 'Mean IoU', "Cohen's kappa"):
        assert f'{title} on 6 sen12ms validation tasks, 2-way 1-shot' in first.stdout
    (run,) = (tmp_path / 'logs').iterdir()
    results = json.loads((run / 'results.json').read_text())
    assert results['metric'] == 'pixel_accuracy' and len(results['mean']) == 3
    assert [one['metric'] for one in results['further']] == ['mean_iou', 'kappa']
    for name, mean in (
        *((one['metric'], one['mean']) for one in results['further']),
        ('', results['mean']),
    ):
        rows = list(csv.reader((run / f'scores{"_" * bool(name)}{name}.csv').open()))[1:]
        np.testing.assert_allclose(np.array(rows, float).mean(0), mean, rtol=1e-6)
    with Image.open(run / 'maps.png') as picture:
        assert min(picture.size) > 300
    more = [flag for flag in (*RUN, *data) if not flag.startswith('--metatrain')] + [
        '--metatrain_iterations=5',
        f'--write_tasks={tmp_path}/tasks.jsonl',
    ]
    again = run_here(*more, cwd=tmp_path)
    assert 'Resuming from iteration 3 of 5' in again.stdout
    line = json.loads((tmp_path / 'tasks.jsonl').read_text().splitlines()[1])
    assert line['region'] == 'ROIs1868_summer_4' and set(line['classes']) <= set(CLASSES)
    saved_model(tmp_path / 'saved')


def saved_model(path):
    """An export takes label images, and refuses what is none."""
    import tensorflow as tf

    model = tf.saved_model.load(str(path))
    assert json.loads((path / 'maml_tf.json').read_text())['input_shape'] == [16, 16, 3]
    rng = np.random.default_rng(0)
    x = tf.constant(rng.random((1, 3, 16, 16, 3)), tf.float32)
    y = tf.one_hot(rng.integers(-1, 2, (1, 3, 16, 16)), 2)
    state = model.signatures['adapt'](support_x=x, support_y=y)
    answer = model.signatures['predict_query'](query_x=x, **state)
    assert answer['probabilities'].shape == (1, 3, 16, 16, 2)
    whole = model.signatures['serving_default'](support_x=x, support_y=y, query_x=x)
    np.testing.assert_allclose(whole['outputs'], answer['outputs'], rtol=1e-5, atol=1e-5)
    for wrong, words in ((y * 0.5, 'every row is one-hot'), (y * 0, 'no example of a task')):
        with pytest.raises(tf.errors.InvalidArgumentError, match=words):
            model.signatures['adapt'](support_x=x, support_y=wrong)


def test_fine_tuning_of_pixels_chooses_no_rate():
    """So no flag needs a given one, and none may be of a choice."""
    pixels = '--datasource=sen12ms', '--algorithm=fine_tuning'
    for flag in ('--ensemble=2', '--train_on=trainval', '--fine_tuning_decay=0.1'):
        command_line.check(parsed(*pixels, flag))
    for flag in ('--fine_tuning_choice_iterations=2', '--meta_batch_size=2'):
        with pytest.raises(UserError, match=f'^{flag}: '):
            command_line.check(parsed(*pixels, flag))


@pytest.mark.slow
@pytest.mark.parametrize(
    'method',
    [
        ('fine_tuning', '--fine_tuning_batch=4', '--fine_tuning_updates=3'),
        ('fine_tuning', '--fine_tuning_batch=4', '--fine_tuning_layers=last'),
        ('fine_tuning', '--fine_tuning_batch=4', '--fine_tuning_decay=1', '--train_on=trainval'),
        ('from_scratch', '--test_num_updates=3'),
        ('anil', '--num_updates=2'),
        ('meta_sgd',),
        ('reptile', '--reptile_inner_batch=2', '--reptile_evaluation_batch=2'),
        ('maml', '--stop_grad'),
        ('maml', '--strategy=mirrored'),
        ('maml', '--transductive=False', '--norm=layer_norm'),
    ],
    ids=' '.join,
)
def test_methods(world, tmp_path, method):
    folder, _ = world
    name, *flags = method
    given = [flag for flag in RUN if name != 'fine_tuning' or 'num_updates' not in flag]
    given = [flag for flag in given if name != 'fine_tuning' or 'meta_batch' not in flag]
    result = run_here(
        *(*given, *flags, f'--algorithm={name}', f'--data_dir={folder}', '--test_set'),
        *(f'--split_file={folder}/split.csv', f'--export_dir={tmp_path}/saved'),
        cwd=tmp_path,
    )
    assert 'Mean IoU on 6 sen12ms test tasks' in result.stdout
    saved_model(tmp_path / 'saved')


@pytest.mark.parametrize(
    'flags, words',
    [
        (['--algorithm=prototypical'], '--datasource=sen12ms is learnt by anil, fine_tuning, from'),
        (['--max_pool'], '--max_pool=True: means nothing to --datasource=sen12ms'),
        (['--tasks_file=x'], '--tasks_file=x: means nothing to --datasource=sen12ms'),
        (['--datasource=omniglot', '--bands=s2'], '--bands=s2: means nothing to --datasource=omn'),
        (['--train_shot_from=1'], 'tasks of one size only'),
        (['--image_size=24'], '--image_size=24: a divisor of 256'),
        (['--datasource=deepglobe', '--image_size=60'], '--image_size=60: the network halves til'),
        (['--num_classes=4'], 'no region of the train split has so many classes'),
    ],
)
def test_refused_in_one_line(world, tmp_path, flags, words):
    folder, _ = world
    data = f'--data_dir={folder}', f'--split_file={folder}/split.csv'
    result = run_here(*RUN, *data, *flags, cwd=tmp_path, expect=1)
    assert words in result.stderr and result.stderr.count('\n') == 1
