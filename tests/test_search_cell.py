"""The search for a cell: its space, its surrogate, its order, its end, and the program."""

import json
import math
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from command import run_maml
from test_directory import NAMES, write_classes

from maml_tf.algorithms.optimisation.reptile import Reptile
from maml_tf.commands.cell_search import comparison, pictures, search, space
from maml_tf.commands.cell_search.looped_reptile import LoopedReptile
from maml_tf.commands.cell_search.records import (
    AGAIN,
    CHILDREN,
    FINAL,
    PLAN,
    RANDOM,
    START,
    SearchDirectory,
    cell_of,
)
from maml_tf.commands.cell_search.surrogate import Surrogate
from maml_tf.episodes.task import Task
from maml_tf.errors import UserError
from maml_tf.networks.cells.cell import OPERATIONS, Cell, read_cell
from maml_tf.networks.cells.cell_net import CellNet
from maml_tf.objectives.classification import Classification

STEP = tf.constant(0, tf.int64)
WORTH = {'conv3x3': 0.1, 'separable3x3': 0.05, 'identity': 0.02, 'average3x3': -0.05}
SETTINGS = search.Settings(blocks=3, children=12, keep=2, random_every=4, seed=0)


def rule(cell):
    """An accuracy that is the sum of what a cell's operations are worth."""
    operations = [operation for block in cell.blocks for operation in block[1::2]]
    return 0.3 + sum(WORTH.get(operation, 0.0) for operation in operations) / len(operations)


class Scores:
    """Scores cells by the rule, and fails at a call."""

    def __init__(self, fails_at=None, seconds=lambda cell: 10.0):
        self.calls, self._fails_at, self._seconds = [], fails_at, seconds

    def __call__(self, cell, seed):
        if len(self.calls) == self._fails_at:
            raise KeyboardInterrupt
        self.calls.append((cell, seed))
        seconds = self._seconds(cell)
        return {'accuracy': rule(cell), 'ci95': 0.01, 'parameters': 7, 'seconds': seconds}


def searched(path, settings=SETTINGS, scores=None):
    """The rows of a search by the rule."""
    directory = SearchDirectory(path)
    directory.open({'seed': '0'}, ())
    search.run(directory, settings, scores or Scores(), lambda row: None)
    return directory.rows[CHILDREN]


# The space.


def test_cells_of_one_block_are_counted():
    cells = space.cells_of_one_block()
    sides = 2 * len(OPERATIONS)
    assert len({*cells}) == len(cells) == sides * (sides + 1) // 2
    assert all(cell == cell.canonical() for cell in cells)


def test_extensions_are_one_block_larger_and_distinct():
    (cell,) = {Cell(((0, 'conv3x3', 1, 'identity'),))}
    cells = space.extensions(cell)
    sides = 3 * len(OPERATIONS)
    assert len({*cells}) == len(cells) == sides * (sides + 1) // 2
    assert all(c.size == 2 and cell.blocks[0] in c.blocks for c in cells)
    assert Cell((*cell.blocks, (2, 'max3x3', 0, 'conv1x1'))).canonical() in cells


def test_random_cells_use_all_inputs_and_operations():
    rng = np.random.default_rng(0)
    cells = [space.random_cell(3, rng) for _ in range(200)]
    assert all(cell.size == 3 and cell == cell.canonical() for cell in cells)
    used = {part for cell in cells for block in cell.blocks for part in block}
    assert used == {*OPERATIONS, 0, 1, 2, 3}


# The surrogate.


@pytest.mark.slow
def test_surrogate_learns_a_known_rule():
    rng = np.random.default_rng(1)
    known = [space.random_cell(1 + i % 2, rng) for i in range(60)]
    new = [space.random_cell(2, rng) for _ in range(60)]
    guesses = Surrogate(known, [rule(cell) for cell in known]).predict(new)
    truth = np.array([rule(cell) for cell in new])
    assert np.corrcoef(guesses, truth)[0, 1] > 0.7
    best = np.argsort(-guesses)[:10]
    assert truth[best].mean() > truth.mean() + truth.std() / 2


@pytest.mark.slow
def test_surrogate_is_decided_by_its_seed_and_takes_few_cells():
    cells = space.cells_of_one_block()[:2]
    first, again, other = (Surrogate(cells, [0.5, 0.6], seed).predict(cells) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.isfinite(other).all() and not np.array_equal(first, other)


# The order of a search.


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    return searched(tmp_path_factory.mktemp('undisturbed'))


def test_search_goes_size_by_size(undisturbed):
    first = [row for row in undisturbed if row['origin'] != AGAIN]
    assert [row['size'] for row in first] == [1] * 12 + [2] * 12 + [3] * 12
    assert [row['number'] for row in undisturbed] == list(range(38))
    for i, row in enumerate(first):
        assert (row['origin'] == RANDOM) == (i % 4 == 3)
        assert (row['origin'] == START) == (i % 4 != 3 and i < 12)
        assert (row['predicted'] is None) == (row['origin'] in (RANDOM, START))
        assert cell_of(row).size == row['size']
    chosen = [cell_of(row) for row in first if row['origin'] != RANDOM]
    assert len({*chosen}) == len(chosen)
    for size in (2, 3):
        parents = search.best_of([row for row in first if row['size'] == size - 1], 2)
        allowed = {cell for row in parents for cell in space.extensions(cell_of(row))}
        children = [row for row in search.searched(first) if row['size'] == size]
        assert {cell_of(row) for row in children} <= allowed
    again = [row for row in undisturbed if row['origin'] == AGAIN]
    assert [row['cell'] for row in again] == [r['cell'] for r in search.best_of(first, 2)]


def test_search_finds_better_cells_than_random_ones(undisturbed):
    control = [row['accuracy'] for row in undisturbed if row['origin'] == RANDOM]
    last = [row['accuracy'] for row in search.searched(undisturbed) if row['size'] == 3]
    assert np.median(last) > np.median(control) + 0.02
    assert search.found(undisturbed)['accuracy'] > np.median(control) + 0.02


def test_second_looks_come_from_another_seed(tmp_path):
    scores = Scores()
    searched(tmp_path, SETTINGS._replace(blocks=1), scores)
    assert [seed for _, seed in scores.calls] == [0] * 12 + [1] * 2


def test_found_is_best_by_the_mean_of_both_looks():
    cells = space.cells_of_one_block()
    row = lambda number, accuracy, origin: {
        'number': number,
        'cell': cells[number % 3].to_json(),
        'accuracy': accuracy,
        'origin': origin,
        'size': 1,
    }
    rows = [row(0, 0.8, START), row(1, 0.7, START), row(2, 0.9, RANDOM)]
    assert search.found(rows) is rows[0]
    rows += [row(3, 0.4, AGAIN), row(4, 0.7, AGAIN)]
    assert search.found(rows) == rows[1]
    rows[-1] = row(4, 0.65, AGAIN)
    assert search.found(rows) == rows[1] | {'accuracy': pytest.approx(0.675)}


@pytest.mark.slow
@pytest.mark.parametrize('stops', [[1], [13, 2], [24, 12]])
def test_an_interrupted_search_goes_on_where_it_was(tmp_path, undisturbed, stops):
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            searched(tmp_path, scores=Scores(stop))
        with open(tmp_path / 'children.jsonl', 'a') as file:
            file.write('{"number": 1')  # As a kill may leave it.
    scores = Scores()
    rows = searched(tmp_path, scores=scores)
    assert rows == undisturbed and len(scores.calls) == len(rows) - sum(stops)
    text = (tmp_path / 'children.jsonl').read_text()
    assert [json.loads(line) for line in text.splitlines()] == rows


@pytest.mark.slow
def test_time_is_shared_by_the_sizes(tmp_path):
    settings = SETTINGS._replace(seconds=150.0)
    rows = searched(tmp_path, settings)
    counts = [
        sum(row['size'] == size and row['origin'] != AGAIN for row in rows) for size in (1, 2, 3)
    ]
    assert counts[0] == 5 and all(4 <= count <= 5 for count in counts)  # Planning takes time, too.
    # What is over stays over.
    scores = Scores()
    assert searched(tmp_path, settings, scores) == rows and not scores.calls


@pytest.mark.slow
def test_no_time_tries_a_few_of_each_size(tmp_path):
    rows = searched(tmp_path, SETTINGS._replace(seconds=0.0, keep=1))
    first = [row for row in rows if row['origin'] != AGAIN]
    assert [row['size'] for row in first] == [1] * 4 + [2] * 4 + [3] * 4
    # Each size has a random cell, which what is found is compared with.
    assert [row['size'] for row in first if row['origin'] == RANDOM] == [1, 2, 3]


class KnowsTheRule:
    """In place of the surrogate, which takes seconds to learn it."""

    def __init__(self, *known):
        pass

    def predict(self, cells):
        return np.array([rule(cell) for cell in cells])


@pytest.mark.parametrize('end', [0.0, 12.0, 50.0])
def test_the_end_has_its_own_time(tmp_path, monkeypatch, end):
    """As much as it takes with the largest cells, which cost most."""
    monkeypatch.setattr(search, 'Surrogate', KnowsTheRule)
    monkeypatch.setattr(search.time, 'monotonic', lambda: 0.0)  # Planning takes no time.
    scores = Scores(seconds=lambda cell: 10.0 + 5.0 * cell.size)
    settings = SETTINGS._replace(seconds=1000.0, keep=1, children=40, end=end)
    directory = SearchDirectory(tmp_path)
    directory.open({}, ())
    # An earlier comparison takes nothing of it.
    directory.rows[FINAL] = [{'seconds': 1e4}]
    can = []
    tell = lambda row: can.append(not search.cannot_be_kept(directory, settings))
    search.run(directory, settings, scores, tell)
    rows = [row for row in directory.rows[CHILDREN] if row['origin'] != AGAIN]
    sizes = [row['size'] for row in rows]
    assert set(sizes) == {1, 2, 3}
    if end < 50:
        left = 1000 - sum(row['seconds'] for row in rows) - end * 25
        assert -25 < left <= 0 and all(can)
        return
    # 50 networks of 20 seconds, by cells of two blocks, are all of the time. So four of each size
    # are tried, and it is said after three.
    assert sizes.count(2) == sizes.count(3) == 4
    assert can.index(False) == sizes.index(2) + 2


@pytest.mark.parametrize(
    'kind, line',
    [
        (CHILDREN, 'nonsense'),
        (CHILDREN, '{"cell": {"blocks": []}, "accuracy": 1, "seconds": 1}'),
        (CHILDREN, '[]'),
        (FINAL, '{}'),
        (PLAN, '{"children": [{"cell": 3}]}'),
    ],
    ids=str,
)
def test_a_damaged_line_is_named(tmp_path, kind, line):
    (tmp_path / f'{kind}.jsonl').write_text(f'{line}\n')
    with pytest.raises(UserError, match=f'{kind}.jsonl: line 1 is none that the search wrote'):
        SearchDirectory(tmp_path).open({}, ())


CELL = Cell(((0, 'identity', 1, 'conv3x3'),)).to_json()
SCORED = {'cell': CELL, 'size': 1, 'accuracy': 0.5, 'ci95': 0, 'parameters': 7, 'seconds': 1.5}
ROWS = {
    CHILDREN: SCORED | {'number': 0, 'origin': START, 'predicted': None},
    PLAN: {
        'size': 1,
        'children': [{'cell': CELL, 'origin': START, 'predicted': 0.5}],
        'seconds': 0.0,
    },
    FINAL: SCORED | {'origin': RANDOM, 'seed': 2},
}


def opened(path, kind, row):
    """The rows of a directory that holds this one."""
    (path / f'{kind}.jsonl').write_text(json.dumps(row) + '\n')
    directory = SearchDirectory(path)
    directory.open({}, ())
    return directory.rows[kind]


@pytest.mark.parametrize('kind', ROWS)
def test_a_line_has_all_of_its_fields(tmp_path, kind):
    row = ROWS[kind]
    assert opened(tmp_path, kind, row) == [row]
    damaged = [{name: value for name, value in row.items() if name != lost} for lost in row]
    # A word is a good origin.
    damaged += [
        row | {name: wrong}
        for name in row
        for wrong in ('1', True, [1])
        if (name, wrong) != ('origin', '1')
    ]
    if kind == PLAN:
        (child,) = row['children']
        damaged += [row | {'children': [child | {'predicted': 'x'}]}, row | {'children': [{}]}]
    for other in damaged:
        with pytest.raises(UserError, match=f'{kind}.jsonl: line 1 is none that the search wrote'):
            opened(tmp_path, kind, other)


def test_other_flags_are_another_search(tmp_path):
    # A command that tried nothing, of which the data may have been refused, binds none.
    SearchDirectory(tmp_path).open({'seed': '3'}, ('minutes',))
    directory = SearchDirectory(tmp_path)
    directory.open({'seed': '0', 'minutes': '5'}, ('minutes',))
    directory.append(PLAN, ROWS[PLAN])
    SearchDirectory(tmp_path).open({'seed': '0', 'minutes': '9'}, ('minutes',))
    with pytest.raises(UserError, match='--seed=1: the search in .* has --seed=0. Name another'):
        SearchDirectory(tmp_path).open({'seed': '1'}, ('minutes',))


# The end of a search.


def test_comparison(tmp_path, undisturbed):
    directory = SearchDirectory(tmp_path)
    directory.open({}, ())
    directory.rows[CHILDREN] = list(undisturbed)
    noise = {5: 0.01, 6: -0.03}
    score = lambda cell, seed: Scores()(cell, seed) | {'accuracy': rule(cell) + noise[seed]}
    results = comparison.run(directory, 4, [5, 6], score, lambda row: None)
    entrants = comparison.finalists(undisturbed, 4)
    assert entrants[0] == search.found(undisturbed)
    # Random cells of the size that was found first, in the order in which they were drawn.
    assert [row['size'] for row in entrants[1:]] == [3, 3, 3, 2]
    assert all(row['origin'] == RANDOM for row in entrants[1:])
    assert [r['number'] for r in entrants[1:4]] == sorted(r['number'] for r in entrants[1:4])
    truth = [rule(cell_of(row)) - 0.01 for row in entrants]
    np.testing.assert_allclose([cell['mean'] for cell in results['cells']], truth)
    np.testing.assert_allclose(
        [cell['deviation'] for cell in results['cells']], 0.04 / math.sqrt(2)
    )
    assert results['median_of_random'] == pytest.approx(np.median(truth[1:]))
    assert results['best_of_random'] == pytest.approx(max(truth[1:]))
    better = sum(truth[0] > other for other in truth[1:])
    assert results['better_than'] == better and results['random_cells'] == 4
    table = comparison.table(results)
    assert f'found is better than {better} of them' in table and '±' in table
    # What is done is not done again.
    scores = Scores()
    again = comparison.run(directory, 4, [5, 6], scores, lambda row: None)
    assert again == results and not scores.calls


def test_no_random_cells_and_one_seed(tmp_path, undisturbed):
    directory = SearchDirectory(tmp_path)
    directory.open({}, ())
    directory.rows[CHILDREN] = list(undisturbed)
    results = comparison.run(directory, 0, [5], Scores(), lambda row: None)
    assert results['median_of_random'] is None and results['cells'][0]['deviation'] is None
    assert 'random' not in comparison.table(results)


def test_pictures(tmp_path, undisturbed):
    cell = Cell(
        ((0, 'conv3x3', 1, 'max3x3'), (2, 'conv5x5', 1, 'identity'), (0, 'conv1x1', 2, 'identity'))
    )
    pictures.draw_cell(tmp_path / 'cell.png', cell, 'A cell')
    pictures.draw_cell(tmp_path / 'small.png', Cell(cell.blocks[:1]), 'A cell')
    pictures.draw_search(tmp_path / 'search.png', undisturbed, 'A search')
    for name in ('cell', 'small', 'search'):
        assert (tmp_path / f'{name}.png').read_bytes().startswith(b'\x89PNG')


def test_sizes_of_a_search_that_went_on_begin_with_their_first_child(
    tmp_path, monkeypatch, undisturbed
):
    """Second looks, here two at one minute each, stand between three blocks and four."""
    drawn = []
    monkeypatch.setattr(pictures.figures, 'save', lambda figure, *_: drawn.append(figure))
    more = [row | {'size': 4} for row in undisturbed if row['size'] == 3 and row['origin'] != AGAIN]
    rows = [row | {'seconds': 60} for row in (*undisturbed, *more)]
    pictures.draw_search(tmp_path / 'search.png', rows, 'A search')
    (axes,) = drawn[0].axes
    assert {text.get_text(): text.xy[0] for text in axes.texts} == {
        '1 block': 0,
        '2 blocks': 12,
        '3 blocks': 24,
        '4 blocks': 38,
    }
    lines = [line.get_xdata() for line in axes.lines if line.get_linestyle() == ':']
    assert [x[0] for x in lines] == [12, 24, 38]


# What trains the children.


@pytest.mark.parametrize('optimizer', ['adam', 'sgd'])
def test_looped_reptile_is_reptile(optimizer):
    cell = Cell(((0, 'conv3x3', 1, 'average3x3'),))
    learners = [
        method(
            CellNet((6, 6, 1), 2, cell, filters=3, cells=1, scale=True),
            Classification(),
            inner_lr=0.01,
            inner_steps=3,
            inner_batch=3,
            evaluation_steps=2,
            inner_optimizer=optimizer,
            dtype='float64',
        )
        for method in (Reptile, LoopedReptile)
    ]
    rng = np.random.default_rng(0)
    labels = np.tile(np.repeat(np.eye(2), 2, axis=0), (2, 1, 1))
    images = lambda: rng.normal(size=(2, 4, 6, 6, 1))
    key = tf.constant(rng.integers(2**32, size=(2, 2)), tf.uint32)
    task = Task(*map(tf.constant, (images(), labels, images(), labels)), key=key)
    theirs, ours = (learner.meta_gradients(task, STEP) for learner in learners)
    for one, other in zip(ours.gradients, theirs.gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)
    assert ours.state.keys() == theirs.state.keys()
    for name, value in theirs.state.items():
        np.testing.assert_allclose(ours.state[name], value, atol=1e-10)
    theirs, ours = (learner.query_outputs(task, 2) for learner in learners)
    np.testing.assert_allclose(ours[0], theirs[-1], atol=1e-10)


# The program.

TINY = (
    *('--datasource=directory', '--data_dir=photos', '--image_size=12', '--num_classes=2'),
    *('--train_update_batch_size=2', '--test_query=1', '--num_filters=2', '--cells=1'),
    *('--num_updates=2', '--test_num_updates=2', '--meta_batch_size=2', '--reptile_inner_batch=2'),
    *('--blocks=2', '--children=3', '--keep=1', '--random_every=3', '--child_iterations=2'),
    *('--child_tasks=4', '--finalists=1', '--final_seeds=1', '--test_tasks=4'),
)


def command(logdir, *arguments):
    program = [sys.executable, '-m', 'maml_tf.commands.search_cell']
    return [*program, *TINY, f'--logdir={logdir}', *arguments]


def run_search(cwd, logdir, *arguments, expect=0):
    result = subprocess.run(
        command(logdir, *arguments), cwd=cwd, text=True, capture_output=True, timeout=900
    )
    assert result.returncode == expect, result.stdout + result.stderr
    return result


def rows_of(path):
    """The rows of a file but for what the clock says."""
    lines = map(json.loads, path.read_text().splitlines())
    return [{name: row[name] for name in row if name != 'seconds'} for row in lines]


@pytest.mark.slow
def test_a_killed_search_ends_as_an_undisturbed_one(tmp_path):
    write_classes(tmp_path / 'photos', NAMES)
    said = run_search(tmp_path, 'whole')
    printed = said.stdout
    assert 'retracing' not in said.stderr and 'cannot be kept' not in printed
    assert 'random cells' in printed and 'Train it: run_maml.py --network=cell' in printed
    whole = tmp_path / 'whole'
    cell = read_cell(whole / 'best_cell.json')
    results = json.loads((whole / 'results.json').read_text())
    assert results['cells'][0]['cell'] == cell.to_json() and results['children'] == 7
    for name in ('cell.png', 'search.png'):
        assert (whole / name).read_bytes().startswith(b'\x89PNG')

    children = tmp_path / 'killed' / 'children.jsonl'
    process = subprocess.Popen(command('killed'), cwd=tmp_path, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (
        children.exists() and children.read_text().count('\n') >= 2
    ):
        time.sleep(0.1)
    process.kill()
    process.wait()
    before = rows_of(children)
    assert 2 <= len(before) < 7
    # With no time a few of each size are tried, here all.
    again = run_search(tmp_path, 'killed', '--minutes=0.01').stdout
    assert f'Going on after {len(before)} children' in again
    assert '--minutes=0.01 cannot be kept: second looks and comparison alone take about' in again
    for name in ('children', 'plan', 'final'):
        assert rows_of(tmp_path / 'killed' / f'{name}.jsonl') == rows_of(whole / f'{name}.jsonl')
    error = run_search(tmp_path, 'killed', '--keep=2', expect=1).stderr
    assert error.startswith('error: --keep=2: the search in killed has --keep=1')


@pytest.mark.slow
def test_what_was_found_trains_and_is_exported(tmp_path):
    """By MAML on the command line, on one device and on two strategies' names."""
    write_classes(tmp_path / 'photos', NAMES)
    cell = space.random_cell(2, np.random.default_rng(0))
    (tmp_path / 'cell.json').write_text(json.dumps(cell.to_json()))
    arguments = (
        *('--datasource=directory', '--data_dir=photos', '--image_size=12', '--num_classes=2'),
        *('--update_batch_size=1', '--network=cell', '--cell=cell.json', '--num_filters=2'),
        *('--meta_batch_size=2', '--metatrain_iterations=2', '--test_tasks=2', '--log=False'),
    )
    results = []
    for strategy in ('one_device', 'mirrored'):
        run_maml(
            *arguments,
            f'--strategy={strategy}',
            f'--logdir={strategy}',
            f'--export_dir=exported_{strategy}',
            cwd=tmp_path,
        )
        (path,) = (tmp_path / strategy).glob(f'*{cell.fingerprint()}*/results.json')
        results.append(json.loads(path.read_text())['mean'])
        assert (tmp_path / f'exported_{strategy}' / 'saved_model.pb').exists()
    np.testing.assert_allclose(*results, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    'argument, message',
    [
        ('--algorithm=maml', '--algorithm=maml: the children of a search are trained by reptile'),
        ('--train=False', '--train=False: means nothing to a search for a cell'),
        ('--datasource=sinusoid', '--cells=1: means nothing to --datasource=sinusoid'),
        ('--cells=9', '--cells=9: each halves the images, 12x12; take fewer, or larger images'),
        ('--num_classes=9', '--num_classes=9:'),
        ('--train_update_batch_size=9', '--num_classes=2: the train split of photos has 0 classes'),
    ],
)
def test_what_is_refused(tmp_path, argument, message):
    write_classes(tmp_path / 'photos', NAMES)
    error = run_search(tmp_path, 'logs', argument, expect=1).stderr
    assert error.startswith(f'error: {message}') and error.count('\n') == 1
    # No row binds the directory to these flags.
    assert not [*(tmp_path / 'logs').glob('*.jsonl')]
