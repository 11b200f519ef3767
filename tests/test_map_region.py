"""Maps of a region of one's own, and training on regions in plain folders."""

import errno
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import rasterio
import tensorflow as tf
from command import ROOT, run_here
from landcover_files import IGBP, TRANSFORM, blocks, reflectances, write_sen12ms, write_tif
from PIL import Image

from maml_tf.commands.folders import trained
from maml_tf.commands.maps import map_region
from maml_tf.commands.maps.mapper import Mapper, adapt, corners
from maml_tf.datasets.landcover import folder as folders
from maml_tf.datasets.landcover import rasters
from maml_tf.datasets.landcover.bands import TOP
from maml_tf.datasets.landcover.folder import label_images
from maml_tf.datasets.raw import memory_map
from maml_tf.episodes.segmentation.label_images import unpacked
from maml_tf.episodes.segmentation.values import UNLABELLED
from maml_tf.errors import ArgumentError, UserError
from maml_tf.evaluation import maps
from maml_tf.terminal import quiet

SIDE, VALUES = 16, {1: 3, 12: 7, 17: 40}  # of a label image, by IGBP's class
SCENES = [('ROIs1868_summer', 17), ('ROIs1868_summer', 4), ('ROIs1970_fall', 17)]


def write_region(folder, count, side=SIDE, seed=0, ending='.tif', bands=13):
    """Writes images and labels of a region; returns the values of each image's labels."""
    rng, written = np.random.default_rng(seed), {}
    for i in range(count):
        igbp = blocks(rng, side, IGBP[:3])
        values = np.vectorize(VALUES.get)(igbp).astype(np.uint8)
        values[0, 0] = 0  # no label
        image = reflectances(rng, igbp, bands)
        if ending == '.tif':
            write_tif(folder / f'images/{i}.tif', image)
            write_tif(folder / f'labels/{i}.tif', values[..., np.newaxis])
        else:
            for part, pixels in (('images', (image // 16).astype(np.uint8)), ('labels', values)):
                (folder / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / part / f'{i}{ending}')
        written[i] = values
    return written


class Setting:
    """A run on SEN12MS, its export, a region with few labelled tiles, and images to map."""

    def __init__(self, root):
        write_sen12ms(root / 'sen12ms', SCENES, patches=6, s1=False)
        flags = (
            *('--datasource=sen12ms', '--num_classes=3', '--update_batch_size=1', '--bands=s2'),
            *(f'--data_dir={root}/sen12ms', f'--image_size={SIDE}', '--num_filters=4'),
            # It needs no training to be good enough to tell maps that are right.
            *('--algorithm=from_scratch', '--meta_batch_size=2', '--test_tasks=4'),
            *('--test_num_updates=100', '--norm=layer_norm', '--metatrain_iterations=1'),
            *('--transductive=False', f'--export_dir={root}/saved', f'--logdir={root}/logs'),
        )
        run_here(*flags, cwd=root)
        (self.run,) = (root / 'logs').iterdir()
        self.root, self.saved, self.support = root, root / 'saved', root / 'few'
        self.values = write_region(self.support, 2, side=2 * SIDE)
        (self.support / 'classes.csv').write_text('value,name\n3,Forest\n7,Croplands\n40,Water\n')
        self.tiles = root / 'tiles'
        self.truth = write_region(root / 'other', 2, side=40, seed=9)
        (root / 'other/images').rename(self.tiles)
        picture = np.random.default_rng(3).integers(0, 9, (SIDE, SIDE, 13)).astype(np.uint16)
        write_tif(self.tiles / 'nowhere.tif', picture, crs=None)

    def arguments(self, **changes):
        paths = {
            'init_from': self.run,
            'support': self.support,
            'classify': self.tiles,
            'out': self.root / 'maps',
        }
        return [f'--{name}={value}' for name, value in (paths | changes).items()]


@pytest.fixture(scope='module')
def setting(tmp_path_factory):
    return Setting(tmp_path_factory.mktemp('region'))


def test_corners_cover_an_image():
    for height, width in ((16, 16), (40, 17), (33, 48)):
        seen = np.zeros([height, width], int)
        for top, left in corners(height, width, SIDE):
            assert top + SIDE <= height and left + SIDE <= width
            seen[top : top + SIDE, left : left + SIDE] += 1
        assert seen.all()
    assert len(corners(32, 48, SIDE)) == 6


@pytest.mark.slow
def test_maps_are_the_learner_s(setting):
    """Tile by tile by hand, from the run as from the export."""
    labelled = folders.pairs(setting.support)
    names = folders.read_classes(setting.support, labelled)
    assert names == {3: 'Forest', 7: 'Croplands', 40: 'Water'}
    image = folders.read_bands(setting.tiles / '0.tif', 's2')
    found = []
    for path in (setting.run, setting.saved):
        learner = trained.load(path, pixels=True)
        mapper = adapt(learner, labelled, names)
        assert mapper.tiles == 8 and sum(mapper.shares.values()) == pytest.approx(1)
        found.append(mapper.map(image))
    assert np.mean(found[0] == found[1]) > 0.98  # A hundred steps enlarge the last digit.
    x = np.concatenate(
        [
            (folders.read_bands(path, 's2') / TOP).reshape(2, SIDE, 2, SIDE, 13).swapaxes(1, 2)
            for path in labelled.values()
        ]
    ).reshape(1, 8, SIDE, SIDE, 13)
    values = np.concatenate(
        [values.reshape(2, SIDE, 2, SIDE).swapaxes(1, 2) for values in setting.values.values()]
    ).reshape(1, 8, SIDE, SIDE)
    y = (values[..., np.newaxis] == [3, 7, 40]).astype(np.float32)
    state = learner.adapt(tf.constant(x, tf.float32), tf.constant(y))
    last = Mapper.scaled(image[-SIDE:, -SIDE:])[np.newaxis, np.newaxis]
    outputs = learner.predict_query(state, tf.constant(last))['outputs'][0, 0]
    assert np.mean(found[1][-SIDE:, -SIDE:] == tf.argmax(outputs, -1).numpy()) > 0.98


@pytest.mark.slow
def test_as_a_user_types_it(setting, tmp_path):
    command = [sys.executable, '-m', 'maml_tf.map_region', *setting.arguments(out=tmp_path / 'm')]
    result = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert 'Adapted to 8 tiles of 2 images (Forest ' in result.stdout
    assert 'Mapped 3 images (Forest ' in result.stdout
    names = {path.name for path in (tmp_path / 'm').iterdir()}
    assert names == {
        *('0.png', '0_labels.tif', '1.png', '1_labels.tif'),
        *('nowhere.png', 'nowhere_labels.png'),
    }
    right = []
    for i, truth in setting.truth.items():
        with rasterio.open(tmp_path / f'm/{i}_labels.tif') as file:
            assert file.crs.to_epsg() == 32632 and file.transform == TRANSFORM
            labels = file.read(1)
        assert labels.shape == (40, 40) and set(np.unique(labels)) <= {3, 7, 40}
        right.append((labels == truth)[truth > 0].mean())
    assert np.mean(right) > 0.6, right  # A third would be luck.
    with Image.open(tmp_path / 'm/nowhere_labels.png') as picture:
        assert np.asarray(picture).shape == (SIDE, SIDE)


def test_pixels_without_data_are_in_no_class(tmp_path, monkeypatch):
    image = np.full([SIDE, SIDE, 13], 500, np.uint16)
    image[:4] = 0
    write_tif(tmp_path / 'tiles/a.tif', image, nodata=0)
    write_tif(tmp_path / 'tiles/b.tif', image)
    numbers = np.ones([SIDE, SIDE], np.uint8)
    numbers[:4], numbers[12:] = 0, 2
    mapper = types.SimpleNamespace(
        **{'bands': 's2', 'side': SIDE, 'scaled': Mapper.scaled, 'map': lambda bands: numbers},
        **{'values': [3, 7, 40], 'class_names': ['Forest', 'Croplands', 'Water']},
    )
    drawn = []
    monkeypatch.setattr(maps, 'draw', lambda *arguments: drawn.append(arguments))
    out = lambda name: map_region._map(tmp_path / f'tiles/{name}.tif', mapper, tmp_path)
    assert out('a').tolist() == [0, 128, 64] and out('b').tolist() == [64, 128, 64]
    assert [title for *_, title, _ in drawn] == [
        'a.tif: Croplands, Water',
        'b.tif: Forest, Croplands, Water',
    ]
    expected = np.array([3, 7, 40])[numbers]
    for name, rows, first in (('a', drawn[0][1], UNLABELLED), ('b', drawn[1][1], 0)):
        assert (rows[0][1]['map'][:4] == first).all() and (rows[0][1]['map'][4:] != first).all()
        with rasterio.open(tmp_path / f'{name}_labels.tif') as file:
            assert file.nodata == 0
            labels = file.read(1)
        np.testing.assert_array_equal(labels[4:], expected[4:])
        assert (labels[:4] == (0 if name == 'a' else 3)).all()


def test_a_map_is_whole_or_not_there(tmp_path, monkeypatch):
    labels, path = np.ones([SIDE, SIDE], np.uint8), tmp_path / 'a_labels.tif'
    rasters.write_labels(path, labels, {})
    before = path.read_bytes()

    def fails(self, *arguments, **kwargs):
        raise rasterio.errors.RasterioIOError('no space left')

    with monkeypatch.context() as patch:
        patch.setattr(rasterio.io.DatasetWriter, 'write', fails)
        with pytest.raises(UserError, match=r'a_labels.tif: could not be written \(Raster.* space'):
            rasters.write_labels(path, labels, {})
    with pytest.raises(UserError, match='gone/a_labels.tif: could not be written'):
        rasters.write_labels(tmp_path / 'gone/a_labels.tif', labels, {})

    def breaks_off(self, to, *arguments, **kwargs):
        pathlib.Path(to).write_bytes(b'half')
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(Image.Image, 'save', breaks_off)
    with pytest.raises(OSError, match='a_labels.png'):
        rasters.write_picture(tmp_path / 'a_labels.png', labels)
    assert [*tmp_path.iterdir()] == [path] and path.read_bytes() == before


def refused(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        map_region.main(arguments)
    assert '\n' not in str(end.value)
    return str(end.value)


@pytest.mark.slow
def test_refused_in_one_line(setting, tmp_path, capsys):
    say = lambda **changes: refused(capsys, setting.arguments(out=tmp_path / 'm', **changes))
    assert 'no folder images in it' in say(support=tmp_path)
    assert '--classify=' in say(classify=tmp_path) and 'no image in it' in say(classify=tmp_path)
    assert '--steps=-1' in say(steps=-1)
    assert 'neither a SavedModel of --export_dir' in say(init_from=tmp_path)
    assert 'takes 100; name the run directory' in say(init_from=setting.saved, steps=2)
    four = tmp_path / 'four'
    write_region(four, 1)
    labels = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE, 1) // 64 + 1
    write_tif(four / 'labels/0.tif', labels)
    assert '4 classes, but the learner was trained 3-way' in say(support=four)
    (four / 'classes.csv').write_text('value,name\n1,a\n2,b\n3,c\n')
    assert 'the value 4 is not in classes.csv' in say(support=four)
    (four / 'classes.csv').write_text('value,name\n1,a\n2,b\n0,c\n')
    assert 'line 4 should be a value from 1 to 254' in say(support=four)
    (four / 'classes.csv').write_text('value,name\n1,a\n2,b\n9,Water\n')
    write_tif(four / 'labels/0.tif', np.minimum(labels, 2))
    assert '--support: no pixel of Water in its label images; leave it out' in say(support=four)
    (four / 'classes.csv').unlink()
    write_tif(four / 'labels/0.tif', labels * 0)
    assert 'all are 0' in say(support=four)
    write_tif(four / 'labels/0.tif', labels[:8])
    assert '8x16, and 0.tif is 16x16' in say(support=four)
    rgb = tmp_path / 'rgb'
    write_region(rgb, 1, ending='.png', bands=3)
    assert '3 bands, and s2 takes 13' in say(support=rgb)
    (rgb / 'images/0.png').unlink()
    assert '0 images of this name in images' in say(support=rgb)
    small = tmp_path / 'small'
    write_tif(small / 'a.tif', np.zeros([8, 20, 13], np.uint16))
    assert '8x20, and the learner labels tiles of 16 pixels and more' in say(classify=small)
    (small / 'a.png').write_bytes(b'')
    assert 'two images are called a' in say(classify=small)


def test_inputs_are_never_written_over(tmp_path, capsys, monkeypatch):
    """It is refused before TensorFlow starts."""
    monkeypatch.setattr(quiet, 'import_tensorflow', lambda: pytest.fail('started'))
    few, tiles = tmp_path / 'few', tmp_path / 'tiles'
    write_region(few, 1, ending='.png', bands=3)
    tiles.mkdir()
    shutil.copy(few / 'images/0.png', tiles / '0.png')
    before = {path: path.read_bytes() for path in tmp_path.rglob('*.*')}
    (tmp_path / 'link').symlink_to(tiles)
    say = lambda out: refused(
        capsys,
        [f'--init_from={tmp_path}', f'--support={few}', f'--classify={tiles}', f'--out={out}'],
    )
    for out in (tiles, tmp_path / 'link', few / 'images', few / 'labels'):
        assert f'--out={out}: 0.png in it is an input' in say(out)
    assert before == {path: path.read_bytes() for path in before}
    shutil.copy(tiles / '0.png', tiles / '0_labels.png')
    words = '--classify: maps of 0.png and 0_labels.png would both be called 0_labels.png'
    assert words in say(tmp_path / 'new') and not (tmp_path / 'new').exists()


@pytest.mark.slow
def test_adapt_and_map_do_not_take_each_other_s_learners(setting):
    for path in (setting.run, setting.saved):
        with pytest.raises(ArgumentError, match='map_region makes maps by it'):
            trained.load(path)


# Training on regions in plain folders


def test_regions_in_plain_folders(tmp_path):
    written = {name: write_region(tmp_path / name, 2, 40, seed) for seed, name in enumerate('abc')}
    source = label_images(tmp_path, SIDE, 's2')
    assert source.class_names == ['class 3', 'class 7', 'class 40']
    parts = [source.split(split).tiles for split in source.splits]
    assert sorted(name for tiles in parts for name in tiles.class_names) == ['a', 'b', 'c']
    for tiles in parts:
        (name,) = tiles.class_names
        assert tiles.sizes.tolist() == [8]  # two images of 2x2 tiles
        x, labels = unpacked(tiles.images, 13)
        bottom_left = written[name][1][SIDE : 2 * SIDE, :SIDE]
        table = np.full(256, UNLABELLED)
        table[[3, 7, 40]] = 0, 1, 2
        np.testing.assert_array_equal(labels[6], table[bottom_left])
        image = folders.read_bands(tmp_path / name / 'images/1.tif', 's2')
        np.testing.assert_allclose(x[6], image[SIDE : 2 * SIDE, :SIDE] / TOP, atol=1e-6)
    (tmp_path / 'classes.csv').write_text('value,name\n3,Forest\n7,Croplands\n')
    made = label_images(tmp_path, SIDE, 's2')
    assert made.class_names == ['Forest', 'Croplands']
    with pytest.raises(UserError, match='0.tif: the value 40 is not in classes.csv; name it'):
        made.split('test')
    (tmp_path / 'classes.csv').unlink()
    with pytest.raises(ArgumentError, match='image_size=64: larger than the images, 40x40'):
        label_images(tmp_path, 64)
    write_tif(tmp_path / 'c/labels/0.tif', np.ones([20, 40, 1], np.uint8))
    write_tif(tmp_path / 'c/images/0.tif', np.ones([20, 40, 13], np.uint16))
    with pytest.raises(UserError, match='all are to be of one size'):
        made = label_images(tmp_path, SIDE, 's2')
        for split in made.splits:
            made.split(split)


def test_tiles_of_changed_files_are_read_anew(tmp_path, monkeypatch):
    """Sizes of files say nothing: a label image keeps its size when other pixels are labelled."""
    for seed, name in enumerate('abc'):
        write_region(tmp_path / name, 1, SIDE, seed, '.png', bands=3)
    (tmp_path / 'classes.csv').write_text('value,name\n3,Forest\n7,Croplands\n40,Water\n')
    first = label_images(tmp_path, SIDE).split('test').tiles
    assert not (tmp_path / '.maml_tf').exists()  # It fits in memory.
    monkeypatch.setattr(memory_map, 'IN_MEMORY', 0)
    tiles = lambda: np.array(label_images(tmp_path, SIDE).split('test').tiles.images)
    np.testing.assert_array_equal(tiles(), first.images)
    (name,) = first.class_names
    image, label = (tmp_path / name / part / '0.png' for part in ('images', 'labels'))

    times = itertools.count(1)

    def write(path, pixels):
        Image.fromarray(pixels).save(path, compress_level=0)  # always of one size
        os.utime(path, (1, next(times)))

    before = tiles()
    for path, pixels in (
        (label, np.full([SIDE, SIDE], 3, np.uint8)),
        (label, np.full([SIDE, SIDE], 40, np.uint8)),
        (image, np.full([SIDE, SIDE, 3], 9, np.uint8)),
        (image, np.full([SIDE, SIDE, 3], 8, np.uint8)),
    ):
        write(path, pixels)
        after = tiles()
        assert (after != before).any()
        kept = [file.suffix for file in (tmp_path / '.maml_tf').glob('test-*')]
        assert sorted(kept) == ['.counts', '.npy'], 'outdated ones go'
        before = after
    # The same names of other values.
    assert (before[..., -1] == 2).all()
    (tmp_path / 'classes.csv').write_text('value,name\n40,Forest\n50,Croplands\n60,Water\n')
    assert (tiles()[..., -1] == 0).all()


def test_label_images_hold_whole_numbers(tmp_path):
    labels = np.ones([SIDE, SIDE, 1], np.float32)
    write_tif(tmp_path / 'a.tif', labels)
    assert folders.read_labels(tmp_path / 'a.tif').dtype == np.uint8
    labels[3, 3] = 1.5
    write_tif(tmp_path / 'a.tif', labels)
    with pytest.raises(UserError, match='a.tif: a value of 1.5; classes are whole numbers'):
        folders.read_labels(tmp_path / 'a.tif')


@pytest.mark.slow
def test_trained_on_pictures(tmp_path):
    for seed, name in enumerate('abc'):
        write_region(tmp_path / 'world' / name, 3, 32, seed, '.png', bands=3)
    result = run_here(
        *('--datasource=label_images', f'--data_dir={tmp_path}/world', f'--image_size={SIDE}'),
        *('--num_classes=2', '--update_batch_size=1', '--num_filters=2', '--meta_batch_size=1'),
        *(
            '--metatrain_iterations=2',
            '--test_tasks=2',
            '--test_num_updates=1',
            '--stop_grad',
            '--logdir=logs',
        ),
        cwd=tmp_path,
    )
    assert 'Mean IoU on 2 label_images validation tasks, 2-way 1-shot' in result.stdout
