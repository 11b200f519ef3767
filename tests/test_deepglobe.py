"""DeepGlobe as it lies on disk."""

import numpy as np
import pytest
from landcover_files import write_deepglobe
from PIL import Image

from maml_tf.datasets.landcover.deepglobe import COLOURS, deepglobe, numbers_of, read_tiles
from maml_tf.episodes.segmentation.label_images import unpacked
from maml_tf.episodes.segmentation.values import UNLABELLED
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import ArgumentError, UserError

NAMES = ['119', '266', '1004', '2334']


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp('deepglobe')
    return folder, write_deepglobe(folder / 'train', NAMES)


def test_colours():
    mask = np.array([[*COLOURS.values(), (0, 0, 0), (255, 0, 0)]], np.uint8)
    assert numbers_of(mask).tolist() == [[*range(6), UNLABELLED, UNLABELLED]]
    # Of a compressed mask.
    assert numbers_of(np.array([[(20, 230, 240)]], np.uint8)).tolist() == [[0]]


def test_tiles_are_parts_of_the_image(world):
    folder, numbers = world
    tiles = read_tiles(folder / 'train/119_mask.png', 8)
    assert tiles.shape == (144, 8, 8, 4)
    expected = np.where(numbers['119'] == len(COLOURS), UNLABELLED, numbers['119'])
    with Image.open(folder / 'train/119_sat.jpg') as image:
        pixels = np.asarray(image).astype(float)
    for i, tile in enumerate(tiles):
        row, column = divmod(i, 12)
        part = np.s_[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        np.testing.assert_array_equal(tile[..., 3], expected[part][1::2, 1::2])
        means = pixels[part].reshape(8, 2, 8, 2, 3).mean((1, 3))
        np.testing.assert_allclose(tile[..., :3], means, atol=1)


def test_an_image_is_a_region(world):
    folder, _ = world
    source = deepglobe(folder, 8)
    parts = {split: source.split(split).tiles.class_names for split in source.splits}
    assert sorted(sum(parts.values(), [])) == sorted(NAMES) and source.input_shape == (8, 8, 3)
    assert source.split('val').tiles.sizes.tolist() == [144]
    draw = source.tasks('train', EpisodeSpec(3, shot=5, query=5), 0)
    task, picks = draw(0, 6), draw.pick(0, 6)
    assert task.support_x.shape == (6, 15, 8, 8, 3) and task.query_y.shape == (6, 15, 8, 8, 3)
    assert len(set(picks.regions.numpy().tolist())) == len(parts['train'])
    x, _ = unpacked(source.split('train').tiles.images, 3)
    np.testing.assert_array_equal(task.support_x[0, 0], x[picks.tiles[0, 0, 0]])
    names = source.split('train').tiles.image_names
    assert names[143].endswith('_143') and names[144].endswith('_0')


def test_bad_folders(world, tmp_path, capsys):
    folder, _ = world
    with pytest.raises(ArgumentError, match='name the folder'):
        deepglobe(None)
    with pytest.raises(ArgumentError, match='no image with a mask'):
        deepglobe(tmp_path)
    with pytest.raises(UserError, match='192x192 is too small to be cut into 12x12 tiles of 64'):
        deepglobe(folder).split('train')
    write_deepglobe(tmp_path, ['1', '2', '3', '4'], side=48)
    (tmp_path / '4_sat.jpg').unlink()
    Image.new('RGB', (40, 48)).save(tmp_path / '2_sat.jpg')
    source = deepglobe(tmp_path, 4)
    assert 'left out 1 mask without an image: 4' in capsys.readouterr().out
    with pytest.raises(UserError, match=r'2_mask.png: \[48, 48, 3\] does not fit 2_sat.jpg'):
        for split in source.splits:
            source.split(split)
    (tmp_path / '2_sat.jpg').write_bytes(b'\xff\xd8\xff no more')
    with pytest.raises(UserError, match='2_sat.jpg: no raster that can be read'):
        read_tiles(tmp_path / '2_mask.png', 4)
