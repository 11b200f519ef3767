"""The command that looks at a folder before training: what it says of folders that the test
writes."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from command import ROOT
from PIL import Image
from test_directory import NAMES, pixels, save, truncate, write_classes

from maml_tf.commands.folders import advice, inspect_folder, report, timing
from maml_tf.datasets.directory import directory
from maml_tf.datasets.raw.folder_split import split_by_name


def inspect(folder, capsys, expect=0):
    """{label: [texts of the rows]} of what is printed; what follows the rows is under ''."""
    with pytest.raises(SystemExit) as ended:
        inspect_folder.main([str(folder), '--no_timing'])
    assert ended.value.code == expect
    printed, rows, label = capsys.readouterr(), {}, None
    assert not printed.err
    for line in filter(None, printed.out.splitlines()):
        if re.match(r' {4}\S|To train|Cannot', line):
            rows.setdefault('', []).append(line)
        else:
            label = line[:12].strip() or label
            rows.setdefault(label, []).append(line[12:])
    return rows


@pytest.fixture
def folder(tmp_path):
    return write_classes(tmp_path / 'my photos', [*NAMES, 'm', 'n', 'o'], count=20)


def test_a_good_folder(folder, capsys):
    rows = inspect(folder, capsys)
    assert rows['classes'] == ['15'] and rows['images'] == ['300']
    assert rows['per class'][0] == '20 to 20, median 20'
    assert [text.split() for text in rows['per class'][1:]] == [
        ['20', 'to', '49', '#' * report.BAR, '15']
    ]
    assert rows['pixels'] == ['12x12 (285), 36x24 (15)'] and rows['colours'] == [
        'RGB (285), grey (15)'
    ]
    assert rows['at 84x84'] == [
        '7 MB, 300 smaller images enlarged, the square in the centre of 15 that are not square'
    ]
    assert rows['split'][0].startswith('train 5, val 5, test 5 classes, by their names')
    split = split_by_name([*NAMES, 'm', 'n', 'o'])
    for part in ('train', 'val', 'test'):
        assert rows[part] == [', '.join(sorted(name for name in split if split[name] == part))]
    assert 'few' in rows['note'][0] and 'maml_tf.adapt' in rows['note'][0]
    assert rows[''] == [
        'To train, 5-way 1-shot:',
        f"    run_maml.py --datasource=directory --data_dir='{folder}' --algorithm=prototypical "
        '--num_classes=5 --update_batch_size=1 --train_query=15 --meta_batch_size=1 '
        '--metatrain_iterations=2000',
    ]
    assert not {'unreadable', 'duplicates', 'left out', 'tasks'} & set(rows)
    # What it proposes can be had.
    directory(folder, 84, way=5, least={'train': 16, 'val': 2, 'test': 2})


def test_everything_that_can_be_amiss(folder, capsys):
    save(folder / 'loose.png', pixels(3, 3))
    (folder / 'nothing').mkdir()
    for name in ('a.heic', 'b.HEIC', 'Thumbs.db', '.DS_Store', 'README'):
        (folder / NAMES[0] / name).write_bytes(b'')
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder / NAMES[0] / 'turned.jpg', pixels(100, 200, 3), exif=exif)
    save(folder / NAMES[0] / 'clear.png', np.dstack([pixels(90, 90, 3), pixels(90, 90)]))
    truncate(folder / NAMES[1] / '0.png')
    shutil.copy(folder / NAMES[2] / '0.png', folder / NAMES[3] / 'same.png')
    shutil.copy(folder / NAMES[4] / '0.png', folder / NAMES[4] / 'again.png')
    shutil.copy(folder / NAMES[4] / '0.png', folder / NAMES[4] / 'and again.png')
    for number in range(3, 20):
        (folder / NAMES[7] / f'{number}.png').unlink()
    (folder / NAMES[6] / 'inner').mkdir()
    (folder / NAMES[6] / '0.png').rename(folder / NAMES[6] / 'inner' / '0.png')
    rows = inspect(folder, capsys)
    assert rows['classes'] == ['15'] and rows['images'] == ['288']
    assert rows['nested'] == [
        f'1 image in folders inside class folders, which count for the class, such as '
        f'{folder / NAMES[6]}/inner/0.png'
    ]
    assert rows['smallest'][0].startswith(f'{NAMES[7]} (3), {NAMES[1]} (20)')
    assert [text.split()[-1] for text in rows['per class'][1:]] == ['1', '0', '0', '14']
    assert (
        rows['pixels'][0].endswith('90x90 (1), 100x200 (1)')
        and 'RGB with transparency (1)' in rows['colours'][0]
    )
    assert '1 photo turned upright as the camera noted' in rows['at 84x84'][0]
    assert rows['left out'][:3] == [
        '1 image in no class folder: loose.png',
        '1 class without images: nothing',
        '5 other files: .heic (2), hidden (1), without ending (1), .db (1) '
        '(.heic, .tif and the like can be converted to JPEG or PNG)',
    ]
    assert rows['unreadable'][0] == '1 file, which training leaves out'
    assert rows['unreadable'][1].startswith(f'  {folder / NAMES[1] / "0.png"}: not a whole image')
    across, first, within, second = rows['duplicates']
    assert across.startswith('1 image in more than one class')
    assert first == f'  {folder / NAMES[2] / "0.png"} = {folder / NAMES[3] / "same.png"}'
    assert within.startswith('1 image more than once in a class')
    assert second == '  ' + ' = '.join(
        str(folder / NAMES[4] / f'{name}.png') for name in ('0', 'again', 'and again')
    )


def test_a_small_class_does_not_make_all_tasks_small(tmp_path, capsys):
    names = [str(number) for number in range(10, 40)]
    write_classes(tmp_path, names, count=6)
    small = next(name for name in names if split_by_name(names)[name] == 'train')
    (tmp_path / small / '0.png').unlink()
    rows = inspect(tmp_path, capsys)
    assert rows['left out'] == [
        f'1 class with fewer images than a task takes of each: {small} (5 of 6)'
    ]
    assert '--train_query=5 ' in rows[''][1] and 'note' not in rows


def test_many_unreadable_files_are_counted(folder, capsys):
    for name in NAMES:
        truncate(folder / name / '7.png')
    rows = inspect(folder, capsys)
    assert rows['unreadable'][0].startswith('12 files') and rows['unreadable'][-1] == '  and 7 more'
    assert len(rows['unreadable']) == 7


@pytest.mark.parametrize('classes, way', [(6, 2), (9, 3), (14, 4), (16, 5)])
def test_the_way_that_the_classes_allow(tmp_path, capsys, classes, way):
    write_classes(tmp_path, [f'{number}' for number in range(classes)], count=3)
    rows = inspect(tmp_path, capsys)
    assert f'--num_classes={way} ' in rows[''][1] and ('tasks' in rows) == (way < 5)
    assert '--train_query=2 ' in rows[''][1]
    directory(tmp_path, 84, way=way, least={'train': 3, 'val': 2, 'test': 2})


def test_the_queries_that_most_classes_have_images_for():
    classes = {str(i): [None] * count for i, count in enumerate((2, 5, 9, 12, 12, 12, 30, 40))}
    assert advice.train_query(classes, 5) == 8  # six of eight classes
    assert advice.train_query(classes, 7) == 4
    assert advice.train_query(classes, 8) == 1
    assert advice.train_query({str(i): [None] * 40 for i in range(9)}, 5) == 15


def test_a_folder_that_is_split(tmp_path, capsys):
    for split, names in (('train', NAMES[:6]), ('val', NAMES[6:9]), ('test', NAMES[9:])):
        write_classes(tmp_path / split, names)
    rows = inspect(tmp_path, capsys)
    assert rows['split'] == ['train 6, val 3, test 3 classes, as the folders are']
    assert rows['val'] == [', '.join(NAMES[6:9])] and '--num_classes=3 ' in rows[''][1]


def test_what_cannot_be_trained_on(tmp_path, capsys):
    write_classes(tmp_path / 'few', NAMES[:4])
    rows = inspect(tmp_path / 'few', capsys, expect=1)
    assert rows['classes'] == ['4'] and rows['images'] == ['16']  # The report comes all the same.
    assert len(rows['']) == 1 and re.match(
        r'Cannot be trained on: .*few: 4 classes .* takes 6.* python -m maml_tf.adapt .* '
        r'--support=',
        rows[''][0],
    )
    write_classes(tmp_path / 'single', NAMES, count=1)
    assert (
        'has 0 classes with 2 images or more'
        in inspect(tmp_path / 'single', capsys, expect=1)[''][0]
    )
    (tmp_path / 'bare' / 'a').mkdir(parents=True)
    assert '0 classes with images' in inspect(tmp_path / 'bare', capsys, expect=1)[''][0]
    for path in (tmp_path / 'few' / NAMES[0]).iterdir():
        path.write_bytes(b'')
    rows = inspect(tmp_path / 'few', capsys, expect=1)
    assert rows['unreadable'][0].startswith('4 files')
    assert inspect(tmp_path / 'missing', capsys, expect=1)[''][0].endswith(
        'missing: no such folder'
    )


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, text=True, capture_output=True)


@pytest.mark.parametrize('command', ['inspect_folder', 'adapt'])
def test_help_starts_without_tensorflow(command):
    printed = run('-X', 'importtime', '-m', f'maml_tf.{command}', '--help')
    assert printed.returncode == 0 and f'usage: python -m maml_tf.{command}' in printed.stdout
    assert 'maml_tf.commands' in printed.stderr and 'tensorflow' not in printed.stderr


def test_the_command_starts_without_tensorflow(folder):
    printed = run('-X', 'importtime', '-m', 'maml_tf.inspect_folder', '--no_timing', str(folder))
    assert printed.returncode == 0 and 'To train' in printed.stdout
    assert 'PIL.Image' in printed.stderr and 'tensorflow' not in printed.stderr
    printed = run('-m', 'maml_tf.inspect_folder', str(folder / NAMES[0]))
    assert (
        printed.returncode == 1
        and printed.stdout.startswith('Cannot be trained on: ')
        and not printed.stderr
    )


def test_names_in_any_bytes(tmp_path):
    """A name that is not UTF-8, as old archives hold, and a terminal that knows only ASCII."""
    write_classes(tmp_path / 'set', ['é', '猫', *NAMES], count=2)
    (tmp_path / 'set' / NAMES[0]).rename(
        tmp_path / 'set' / b'caf\xe9'.decode('utf-8', 'surrogateescape')
    )
    printed = subprocess.run(
        [sys.executable, '-m', 'maml_tf.inspect_folder', '--no_timing', str(tmp_path / 'set')],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env={'PYTHONIOENCODING': 'ascii', 'PATH': ''},
    )
    assert printed.returncode == 0, printed.stderr
    assert 'caf\\udce9' in printed.stdout and '\\u732b' in printed.stdout


@pytest.mark.parametrize(
    'seconds, iterations, words',
    [
        (0.3, 2000, ', about 10 minutes here (0.3 seconds an iteration):'),
        (7.0, 500, ', about 59 minutes here (7 seconds an iteration); 2,000 iterations would be b'),
        (100.0, 100, 'and take 55.6 hours:'),
    ],
)
def test_it_proposes_what_is_affordable(folder, capsys, seconds, iterations, words):
    asked = []

    def measure(arguments):
        asked.append(arguments)
        return seconds

    assert inspect_folder.inspect(folder, measure)
    *_, heading, command = filter(None, capsys.readouterr().out.splitlines())
    assert heading.startswith('To train, 5-way 1-shot') and words in heading
    assert command.endswith(f' --metatrain_iterations={iterations}')
    # What is timed is what is proposed.
    (timed,) = asked
    assert set(timed) <= set(command.split()) and '--algorithm=prototypical' in timed


@pytest.mark.slow
def test_steps_are_timed_by_the_clock_after_one_that_compiles():
    times = iter([100.0, 101.5])
    arguments = ['--datasource=directory', '--algorithm=prototypical', '--num_classes=2']
    arguments += ['--update_batch_size=1', '--train_query=1', '--meta_batch_size=1']
    arguments += ['--image_size=16', '--num_filters=2']
    seconds = timing.seconds_per_iteration(arguments, lambda: next(times))
    assert seconds == 1.5 / timing.STEPS


def test_inner_folders_that_look_like_the_classes(tmp_path, capsys, monkeypatch):
    """Apples and pears in a folder of fruit: the commands that are proposed make them classes."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / 'my photos'
    names = [f'class {letter}' for letter in 'abcdefgh']
    write_classes(folder / 'Fruit' / 'Apple', names[:4])
    write_classes(folder / 'Fruit', names[4:6])
    write_classes(folder / 'Vegetables', names[6:])
    rows = inspect(folder, capsys, expect=1)
    assert rows['classes?'] == [f'8 folders inside look like the classes: {", ".join(names)}']
    heading, links, look, refused = rows['']
    assert heading == 'To train on these as classes:' and refused.startswith('Cannot be trained on')
    subprocess.run(['bash', '-c', links], check=True)
    assert look.split('inspect_folder ')[1] == "'my photos-classes'"
    assert inspect(tmp_path / 'my photos-classes', capsys)['classes'] == ['8']


def test_one_folder_too_many(tmp_path, capsys):
    write_classes(tmp_path / 'photos' / 'photos', NAMES)
    rows = inspect(tmp_path / 'photos', capsys, expect=1)
    assert rows[''][1] == f'    python -m maml_tf.inspect_folder {tmp_path}/photos/photos'


def test_parts_of_classes_are_no_classes(tmp_path, capsys):
    for name in NAMES:
        write_classes(tmp_path / name, ['2023', '2024'])
    rows = inspect(tmp_path, capsys)
    assert 'classes?' not in rows and rows['classes'] == ['12']
