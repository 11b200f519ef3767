"""A folder of class folders: files that the test writes, of every kind that people have."""

import hashlib
import json
import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.datasets.directory import directory
from maml_tf.datasets.raw import folder_images, memory_map
from maml_tf.datasets.raw.folder_split import sizes, split_by_name
from maml_tf.datasets.raw.image_files import read_image
from maml_tf.datasets.raw.listing import list_folder
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import UserError
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import metatrain_op
from maml_tf.training.outer_optimizers import adam

SIDE = 12
SPEC = EpisodeSpec(way=2, shot=1, query=2)
NAMES = [f'class {letter}' for letter in 'abcdefghijkl']


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path, image, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **kwargs)
    return path


def write_classes(folder, names, count=4):
    """`count` images in each class: PNGs of the wanted size, one of them grey and one larger."""
    for i, name in enumerate(names):
        for number in range(count):
            image = pixels(SIDE, SIDE, 3, seed=1000 * i + number)
            if number == 1:
                image = image[..., 0]
            elif number == 2:
                image = np.kron(image, np.ones((2, 3, 1), np.uint8))
            save(folder / name / f'{number}.png', image)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_classes(tmp_path / 'photos', NAMES)


def names_of(listed):
    return {name: [path.name for path in paths] for name, paths in listed.items()}


def one_line(raised, *words):
    message = str(raised.value)
    assert len(message.splitlines()) == 1 and all(word in message for word in words), message


# Listing


def test_what_counts_as_a_class_and_as_an_image(tmp_path):
    for path in (
        'b/2.JPG',
        'b/10.jpeg',
        'b/1.Png',
        'b/x.gif',
        'b/x.webp',
        'b/x.bmp',
        'b/x.jfif',
        'b/deep/er/0.png',
        'b/.thumbs/1.png',
        'b/._1.png',
        'b/Thumbs.db',
        'b/notes.txt',
        'b/photo.heic',
        'b/@eaDir/1.png',
        '.hidden/1.png',
        '__MACOSX/1.png',
        'loose.png',
        'readme.txt',
        'B/1.png',
        'empty/notes.txt',
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b'')
    (tmp_path / 'linked').symlink_to(tmp_path / 'B')
    (tmp_path / 'b' / 'circle').symlink_to(tmp_path)
    listing = list_folder(tmp_path)
    assert list(names_of(listing.classes).items()) == [
        ('B', ['1.png']),
        ('b', ['1.Png', '10.jpeg', '2.JPG', '0.png', 'x.bmp', 'x.gif', 'x.jfif', 'x.webp']),
        ('empty', []),
        ('linked', ['1.png']),
    ]
    assert [path.name for path in listing.loose] == ['loose.png']
    assert {path.name for path in listing.skipped} == {
        '.hidden',
        '__MACOSX',
        'readme.txt',
        '.thumbs',
        '._1.png',
        'Thumbs.db',
        'notes.txt',
        'photo.heic',
        '@eaDir',
        'circle',
    }
    assert list_folder(str(tmp_path)) == listing


def test_names_are_the_same_however_a_system_writes_them(tmp_path):
    """macOS may give é as e and an accent, which would sort before f, and after z if composed."""
    listed = []
    for form in ('NFC', 'NFD'):
        for path in ('étude/é.png', 'étude/f.png', 'étude/z.png', 'f/1.png', 'zebra/1.png'):
            path = tmp_path / form / unicodedata.normalize(form, path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b'')
        listed.append(
            {
                name: [unicodedata.normalize('NFC', path.name) for path in paths]
                for name, paths in list_folder(tmp_path / form).classes.items()
            }
        )
    assert list(listed[0].items()) == list(listed[1].items())
    assert list(listed[0]) == ['f', 'zebra', 'étude'] and listed[0]['étude'] == [
        'f.png',
        'z.png',
        'é.png',
    ]
    shutil.move(tmp_path / 'NFD' / unicodedata.normalize('NFD', 'étude'), tmp_path / 'NFC')
    with pytest.raises(UserError) as raised:
        list_folder(tmp_path / 'NFC')
    one_line(raised, 'NFC: two folders are named étude')


def test_a_folder_without_classes_is_named(tmp_path):
    save(tmp_path / 'flat' / '1.png', pixels(3, 3))
    (tmp_path / 'nothing').mkdir()
    for path, words in (
        ('missing', 'no such folder'),
        ('flat/1.png', 'not a folder'),
        ('nothing', 'no folder in it'),
        ('flat', '1 images, but no folder in it'),
    ):
        with pytest.raises(UserError) as raised:
            list_folder(tmp_path / path)
        one_line(raised, f'{tmp_path / path}: {words}')


# Reading


def lanczos(channel, first, last, side):
    """Resizes the columns from `first` to `last` of a [rows, columns] array, by the definition of
    the filter."""
    scale = (last - first) / side
    width = max(scale, 1)
    centres = first + (np.arange(side) + 0.5) * scale
    x = (np.arange(channel.shape[1]) + 0.5 - centres[:, None]) / width
    weights = np.where(abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)
    return channel @ (weights / weights.sum(1, keepdims=True)).T


def cut_and_resized(image, side):
    """float [side, side, channels] of an array, by brute force."""
    height, width = image.shape[:2]
    edge = min(height, width)
    left, top = (width - edge) / 2, (height - edge) / 2
    by_channel = []
    for channel in np.moveaxis(image.astype(float), -1, 0):
        rows = np.clip(
            lanczos(channel, left, left + edge, side).round(), 0, 255
        )  # as Pillow, which keeps bytes
        by_channel.append(lanczos(rows.T, top, top + edge, side).T)
    return np.clip(np.stack(by_channel, -1), 0, 255)


@pytest.mark.parametrize('shape', [(30, 30), (21, 40), (50, 29), (5, 7)])
def test_the_central_square_is_resized_with_lanczos(tmp_path, shape):
    image = pixels(*shape, 3)
    read = read_image(save(tmp_path / 'a.png', image), SIDE)
    assert read.shape == (SIDE, SIDE, 3) and read.dtype == np.uint8
    difference = abs(read - cut_and_resized(image, SIDE))
    assert (
        difference.mean() < 0.5 and difference.max() < 2
    )  # Pillow keeps whole numbers on the way.


def test_images_of_the_size_stay_as_they_are(tmp_path):
    image = pixels(SIDE, SIDE + 5, 3)
    np.testing.assert_array_equal(read_image(save(tmp_path / 'a.png', image), SIDE), image[:, 2:-3])
    np.testing.assert_array_equal(
        read_image(save(tmp_path / 'b.png', image[:, 2:-3]), SIDE), image[:, 2:-3]
    )


@pytest.mark.parametrize('ending', ['jpg', 'png'])
def test_photos_are_shrunk_fast_without_a_difference_to_see(tmp_path, ending):
    coarse = Image.fromarray(pixels(12, 16, 3)).resize((1203, 905), Image.BICUBIC)
    path = save(tmp_path / f'a.{ending}', coarse)
    with Image.open(path) as image:
        expected = cut_and_resized(np.asarray(image), 40)
    difference = abs(read_image(path, 40) - expected)
    assert difference.mean() < 0.6 and difference.max() < 6


ORIENTED = {
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: np.swapaxes(x, 0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(np.swapaxes(x, 0, 1), 2),
    8: np.rot90,
}


@pytest.mark.parametrize('orientation', ORIENTED)
def test_photos_stand_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.kron(pixels(2, 2, 3), np.ones((32, 32, 1), np.uint8))
    path = save(tmp_path / 'a.jpg', stored, exif=exif, quality=100, subsampling=0)
    assert abs(read_image(path, 64).astype(int) - ORIENTED[orientation](stored)).max() < 5
    small = ORIENTED[orientation](stored)[16::32, 16::32]
    assert (
        abs(read_image(path, 8).astype(int)[1::4, 1::4] - small).max() < 40
    )  # decoded at a smaller scale


def test_transparent_pictures_stand_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = np.dstack([pixels(SIDE, SIDE, 3), np.full((SIDE, SIDE), 255, np.uint8)])
    np.testing.assert_array_equal(
        read_image(save(tmp_path / 'a.png', image, exif=exif), SIDE), np.rot90(image[..., :3], -1)
    )


@pytest.mark.filterwarnings('ignore:Corrupt EXIF data')
def test_damaged_exif_around_a_whole_picture(tmp_path):
    image = np.full((SIDE, SIDE, 3), 90, np.uint8)
    for number, exif in enumerate((b'Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12', b'Exif\0\0nothing')):
        path = save(tmp_path / f'{number}.jpg', image, exif=exif)
        assert abs(read_image(path, SIDE).astype(int) - 90).max() < 3


def test_kinds_of_colour(tmp_path):
    rgb, alpha = pixels(SIDE, SIDE, 3), pixels(SIDE, SIDE, seed=1)
    on_white = (rgb * (alpha[..., None] / 255) + 255 - alpha[..., None]).round()
    grey = rgb[..., 0]
    deep = pixels(SIDE, SIDE, seed=2).astype(np.uint16) * 256 + 77
    palette = Image.fromarray(grey // 64, 'P')
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    colours = np.array([[10, 20, 30], [255, 255, 255], [70, 80, 90], [100, 110, 120]])
    repeated = lambda image: np.repeat(image[..., None], 3, -1)
    cases = {
        'rgba.png': (np.dstack([rgb, alpha]), on_white, {}),
        'grey.png': (grey, repeated(grey), {}),
        'la.png': (
            np.dstack([grey, alpha]),
            repeated((grey * (alpha / 255.0) + 255 - alpha).round()),
            {},
        ),
        'deep.png': (deep, repeated(deep // 256), {}),
        'one_bit.png': (Image.fromarray(grey > 99), repeated(255 * (grey > 99)), {}),
        'palette.png': (palette, colours[grey // 64], {'transparency': 1}),
        'palette.gif': (palette, colours[grey // 64], {'transparency': 1}),
        'rgb.bmp': (rgb, rgb, {}),
        'rgb.webp': (rgb, rgb, {'lossless': True}),
    }
    for name, (image, expected, kwargs) in cases.items():
        read = read_image(save(tmp_path / name, image, **kwargs), SIDE).astype(int)
        assert abs(read - expected).max() <= 1, name
    cmyk = save(
        tmp_path / 'cmyk.jpg', Image.new('CMYK', (SIDE, SIDE), (0, 255, 255, 0)), quality=100
    )
    assert abs(read_image(cmyk, SIDE) - np.array([255.0, 0, 0])).max() < 5
    only_grey = read_image(tmp_path / 'rgba.png', SIDE, channels=1)
    assert only_grey.shape == (SIDE, SIDE, 1)
    assert abs(only_grey[..., 0] - on_white @ [0.299, 0.587, 0.114]).max() <= 1
    np.testing.assert_array_equal(read_image(tmp_path / 'grey.png', SIDE, 1)[..., 0], grey)


def test_a_bad_file_is_named(tmp_path):
    whole = save(tmp_path / 'a\nb.jpg', pixels(60, 60, 3)).read_bytes()
    for content in (whole[:-200], b'', b'no image', whole[:20]):
        (tmp_path / 'a\nb.jpg').write_bytes(content)
        with pytest.raises(UserError) as raised:
            read_image(tmp_path / 'a\nb.jpg', SIDE)
        one_line(raised, f'{tmp_path}/a b.jpg: not a whole image', 'replace it or remove it')
    with pytest.raises(UserError, match='missing.png: .*No such file'):
        read_image(tmp_path / 'missing.png', SIDE)


# The source


def assert_holds(classes, folder, names):
    """The ClassImages has the images of these class folders, in order."""
    assert classes.class_names == names
    files = [sorted((folder / name).glob('*.png')) for name in names]
    assert list(classes.sizes) == [len(paths) for paths in files]
    assert classes.image_names == [path.name for paths in files for path in paths]
    expected = np.stack([read_image(path, SIDE) for paths in files for path in paths])
    np.testing.assert_array_equal(classes.images, expected)


def test_tasks(folder):
    images = directory(folder, SIDE)
    task = images.tasks('train', SPEC, seed=1)(0, 20)
    where = {}
    for path in folder.glob('*/*'):
        with Image.open(path) as image:
            square = image.convert('RGB')
            if square.size != (SIDE, SIDE):
                square = square.resize((SIDE, SIDE), Image.LANCZOS, box=(6, 0, 30, 24))
        where[np.asarray(square).tobytes()] = path
    shown = [
        (images.numpy() * 255).round().astype(np.uint8) for images in (task.support_x, task.query_x)
    ]
    for i in range(20):
        support, query = ([where[image.tobytes()] for image in images[i]] for images in shown)
        classes = [path.parent.name for path in support]
        assert (
            len(set(classes)) == 2
            and [path.parent.name for path in query] == np.repeat(classes, 2).tolist()
        )
        assert len({*support, *query}) == 6
        assert split_by_name(NAMES)[classes[0]] == split_by_name(NAMES)[classes[1]] == 'train'


def test_the_split_hangs_on_the_names_alone(tmp_path):
    order = sorted(NAMES, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    expected = {'test': sorted(order[:4]), 'val': sorted(order[4:8]), 'train': sorted(order[8:])}
    for seed in (0, 1):
        write_classes(
            tmp_path / str(seed),
            np.random.default_rng(seed).permutation(NAMES).tolist(),
            count=2 + seed,
        )
        images = directory(tmp_path / str(seed), SIDE, way=2 + seed, least=2)
        assert {split: images.split(split).class_names for split in expected} == expected
        for split, names in expected.items():
            assert_holds(images.split(split), tmp_path / str(seed), names)


def test_every_number_of_classes_is_split_so_that_each_part_can_give_a_task():
    for count in range(6, 400):
        of_split = sizes(count).values()
        assert sum(of_split) == count and min(of_split) >= min(5, count // 3)
    assert sizes(100) == {'train': 64, 'val': 16, 'test': 20}
    assert sizes(15) == {'train': 5, 'val': 5, 'test': 5}
    names = [str(number) for number in range(200)]
    before, after = split_by_name(names), split_by_name(names[1:])
    assert sum(before[name] != after[name] for name in after) <= 2


def test_what_is_made_only_lists_the_files(folder, monkeypatch):
    read = []
    monkeypatch.setattr(
        folder_images,
        'read_image',
        lambda path, *args: read.append(path) or read_image(path, *args),
    )
    images = directory(folder, SIDE)
    assert not read and images.input_shape == (SIDE, SIDE, 3)
    images.split('val')
    images.tasks('val', SPEC, 0)
    assert {path.parent.name for path in read} == set(images.split('val').class_names) and len(
        read
    ) == 4 * 4


def test_folders_that_are_split(tmp_path, capsys):
    parts = {'train': NAMES[:5], 'val': NAMES[5:8], 'test': NAMES[8:]}
    for split, names in parts.items():
        write_classes(tmp_path / split, names)
    (tmp_path / 'raw').mkdir()
    images = directory(tmp_path, SIDE)
    for split, names in parts.items():
        assert_holds(images.split(split), tmp_path / split, names)
    assert (
        capsys.readouterr().out
        == f'{tmp_path}: left out 1 folder beside train, val and test: raw\n'
    )
    with pytest.raises(UserError) as raised:
        directory(tmp_path, SIDE, way={'train': 5, 'val': 4, 'test': 4})
    one_line(
        raised,
        'way=4: the val split of',
        'has 3 classes',
        'train 5, val 3, test 4',
        '13 such in all',
        'maml_tf.adapt',
    )
    with pytest.raises(UserError) as raised:
        directory(tmp_path, SIDE, split_file='any.csv')
    one_line(raised, 'split_file=any.csv', 'split already')
    shutil.copytree(tmp_path / 'train' / NAMES[0], tmp_path / 'test' / NAMES[0])
    with pytest.raises(UserError) as raised:
        directory(tmp_path, SIDE)
    one_line(
        raised,
        f'1 class in more than one split, such as {NAMES[0]} in train and test',
        f'name {tmp_path}/train instead',
    )
    shutil.rmtree(tmp_path / 'raw')
    (tmp_path / 'val').rename(tmp_path / 'valid')
    with pytest.raises(UserError) as raised:
        directory(tmp_path, SIDE)
    one_line(raised, 'test and train and valid look like a split', 'train, val and test')


def test_too_few_classes(tmp_path):
    write_classes(tmp_path / 'set' / 'images', NAMES[:5])
    with pytest.raises(UserError) as raised:
        directory(tmp_path / 'set' / 'images')
    one_line(
        raised,
        '5 classes with images',
        'takes 6, and 15 for 5-way',
        'python -m maml_tf.adapt',
    )
    with pytest.raises(UserError) as raised:
        directory(tmp_path / 'set')
    one_line(raised, f'1 class with images (do you mean {tmp_path}/set/images')
    with pytest.raises(UserError, match='^data_dir: name the folder'):
        directory(None)


def test_small_and_empty_classes_are_left_out_in_one_line(folder, capsys):
    (folder / 'nothing').mkdir()
    save(folder / 'loose.png', pixels(3, 3))
    split = split_by_name(NAMES)
    train = [name for name in NAMES if split[name] == 'train']
    for name in train[:2]:
        (folder / name / '0.png').unlink()
    images = directory(folder, SIDE, way=2, least={'train': 4, 'val': 3, 'test': 3})
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f'{folder}: left out 1 image in no class folder: loose.png',
        f'{folder}: left out 1 class without images: nothing',
        f'{folder}: left out 2 classes with fewer images than a task takes of each: '
        f'{train[0]} (3 of 4), {train[1]} (3 of 4)',
    ]
    assert_holds(images.split('train'), folder, train[2:])
    assert len(images.split('test').class_names) == 4  # Leaving classes out moves none.
    with pytest.raises(UserError) as raised:
        directory(folder, SIDE, way=3, least=4)
    one_line(
        raised,
        'way=3: the train split',
        'has 2 classes with 4 images or more',
        'val 4, test 4',
    )
    directory(folder, SIDE, way=3, least=3)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.fixture(params=['in memory', 'in a file'])
def streams(request, monkeypatch):
    monkeypatch.setattr(memory_map, 'IN_MEMORY', 10**9 if request.param == 'in memory' else 0)
    return request.param == 'in a file'


def test_files_that_cannot_be_read_are_left_out_and_said(folder, capsys, streams):
    split = split_by_name(NAMES)
    train = [name for name in NAMES if split[name] == 'train']
    bad = [folder / train[0] / '0.png', folder / train[0] / '3.png', folder / train[2] / '1.png']
    for path in bad:
        truncate(path)
    for _ in range(2):  # also where the file has been written before
        images = directory(folder, SIDE, least=3)
        assert not capsys.readouterr().out
        classes = images.split('train')
        assert isinstance(classes.images, np.memmap) == streams
        said = [
            line for line in capsys.readouterr().out.splitlines() if not line.startswith('Writing ')
        ]
        assert said == [
            f'train: left out 3 files; {bad[0]}: not a whole image (OSError: image file is '
            'truncated); '
            'replace it or remove it',
            f'train: left out 1 class with too few images without them: {train[0]}',
        ]
        expected = {
            name: sorted(set((folder / name).glob('*.png')) - set(bad)) for name in train[1:]
        }
        assert classes.class_names == train[1:] and list(classes.sizes) == [4, 3, 4]
        np.testing.assert_array_equal(
            classes.images,
            [read_image(path, SIDE) for paths in expected.values() for path in paths],
        )
        assert classes.image_names == [path.name for paths in expected.values() for path in paths]
    with pytest.raises(UserError) as raised:
        directory(folder, SIDE, way=4, least=3).tasks('train', SPEC, 0)
    one_line(raised, 'way=4: only 3 classes of the train split', '3 images that can be read')


# A set larger than memory


def cached(folder):
    return sorted(path.name for path in (folder / '.maml_tf').iterdir())


def test_a_large_set_is_written_once_and_gives_the_same_tasks(folder, monkeypatch):
    draw = lambda: directory(folder, SIDE).tasks('train', SPEC, 3)(5, 4)
    expected = draw()
    assert not (folder / '.maml_tf').exists()
    monkeypatch.setattr(memory_map, 'IN_MEMORY', 0)
    for _ in range(2):
        for whole, part in zip(expected, draw()):
            if whole is not None:
                np.testing.assert_array_equal(whole, part)
        monkeypatch.setattr(folder_images, 'read_image', None)
    assert [name.rsplit('.')[-1] for name in cached(folder)] == ['json', 'npy']


def test_a_changed_set_is_written_anew(folder, monkeypatch):
    monkeypatch.setattr(memory_map, 'IN_MEMORY', 0)
    directory(folder, SIDE).split('train')
    name = directory(folder, SIDE).split('train').class_names[1]
    other = directory(folder, SIDE, least=3).split('train')
    changes = {
        'content': lambda: save(folder / name / '0.png', pixels(SIDE, SIDE, 3, seed=77)),
        'time': lambda: os.utime(folder / name / '3.png', (1, 1)),
        'name': lambda: (folder / name / '3.png').rename(folder / name / '5.png'),
        'number': lambda: (folder / name / '1.png').unlink(),
    }
    before = cached(folder)
    assert len(before) == 4
    for change in changes.values():
        change()
        classes = directory(folder, SIDE).split('train')
        assert_holds(classes, folder, classes.class_names)
        after = cached(folder)
        # The outdated one is gone, another setting's stays.
        assert len(after) == 4 and len(set(after) & set(before)) == 2
        before = after
    assert isinstance(other.images, np.memmap)


def test_where_the_folder_cannot_be_written(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(memory_map, 'IN_MEMORY', 0)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    (folder / '.maml_tf').write_bytes(b'in the way')
    classes = directory(folder, SIDE).split('train')
    assert_holds(classes, folder, classes.class_names)
    (place,) = (tmp_path / 'cache' / 'maml_tf').iterdir()
    assert place.name.startswith('photos-') and len(list(place.iterdir())) == 2


def test_an_interrupted_reading_leaves_nothing(folder, monkeypatch):
    monkeypatch.setattr(memory_map, 'IN_MEMORY', 0)
    with monkeypatch.context() as patch:
        patch.setattr(
            folder_images, 'read_image', lambda *args: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            directory(folder, SIDE).split('train')
    assert not cached(folder)
    directory(folder, SIDE).split('train')
    record = next((folder / '.maml_tf').glob('*.json'))
    assert list(json.loads(record.read_text())) == ['kept', 'unreadable']
    record.unlink()
    classes = directory(folder, SIDE).split('train')
    assert_holds(classes, folder, classes.class_names)


# The split file


def rows(*lines):
    return '\n'.join(lines) + '\n'


CHOSEN = [
    f'{name},{split}' for name, split in zip(NAMES, ['test'] * 3 + ['train'] * 6 + ['val'] * 3)
]


@pytest.mark.parametrize(
    'text',
    [
        rows('class,split', *CHOSEN),
        rows('\ufeffclass;split', *CHOSEN).replace(',', ';'),
        rows(
            ' class , split ',
            '',
            *(f' "{line.split(",")[0]}" , {line.split(",")[1]} ' for line in CHOSEN),
            ',',
        ).replace(' "', '"'),
    ],
)
def test_split_file(folder, tmp_path, text):
    (tmp_path / 'split.csv').write_text(text, 'utf-8')
    images = directory(folder, SIDE, str(tmp_path / 'split.csv'))
    for split, names in (('test', NAMES[:3]), ('train', NAMES[3:9]), ('val', NAMES[9:])):
        assert_holds(images.split(split), folder, names)


def test_split_file_names_accented_classes(tmp_path):
    composed = [f'é{number}' for number in range(6)]
    write_classes(tmp_path / 'set', [unicodedata.normalize('NFD', name) for name in composed], 3)
    (tmp_path / 'set' / 'left empty').mkdir()
    lines = [f'{name},{split}' for name, split in zip(composed, ['train', 'val', 'test'] * 2)]
    (tmp_path / 'split.csv').write_text(rows('class,split', 'left empty,train', *lines), 'utf-8')
    assert directory(tmp_path / 'set', SIDE, tmp_path / 'split.csv').split('val').class_names == [
        'é1',
        'é4',
    ]


BAD = {
    'unknown class': (
        rows('class,split', *CHOSEN, 'zebra,val'),
        'line 14: there is no class folder zebra',
    ),
    'twice': (rows('class,split', *CHOSEN, CHOSEN[0]), 'line 14: class class a is there twice'),
    'missing': (rows('class,split', *CHOSEN[:-2]), 'class class k is missing, 2 of 12 are'),
    'unknown split': (
        rows('class,split', 'class a,valid'),
        "line 2: 'valid' is no split, only train, val and test",
    ),
    'other header': (
        rows('name,part', *CHOSEN),
        "the first line is 'name,part'; it should be class,split",
    ),
    'no header': (rows(*CHOSEN), "the first line is 'class a,test'"),
    'empty': ('', "the first line is ''"),
    'three columns': (rows('class,split', 'class a,val,'), 'line 2 has 3 columns'),
    'other encoding': (b'class,split\nclass \xe9,val\n', 'not in UTF-8'),
    'no file': (None, 'No such file'),
    'too few of a split': (
        rows('class,split', *(line.replace('val', 'train') for line in CHOSEN)),
        'the val split of',
    ),
}


@pytest.mark.parametrize('content, message', BAD.values(), ids=BAD)
def test_bad_split_file(folder, tmp_path, content, message):
    path = tmp_path / 'split.csv'
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as raised:
        directory(folder, SIDE, path)
    one_line(raised, message, 'split.csv' if 'val split' not in message else 'split file')


# Training


def test_training(folder):
    """Classes differ in brightness."""
    for i, path in enumerate(sorted(folder.iterdir())):
        for number in range(4):
            save(path / f'{number}.png', pixels(6, 6, 3, seed=100 * i + number) // 8 + 18 * i)
    images = directory(folder, 6, way=SPEC.way, least=SPEC.shot + SPEC.query)
    learner = MAML(
        FullyConnected((6, 6, 3), SPEC.way, (16,), 'batch_norm'), images.objective, inner_lr=0.1
    )
    run = iterate(metatrain_op(learner, adam(0.01)), images.tasks('train', SPEC, 0), 4)
    before, after = run(0, 1), run(1, 30)
    assert (
        float(after['post_loss']) < 0.5 * float(before['post_loss'])
        and float(after['post_accuracy']) > 0.9
    )
