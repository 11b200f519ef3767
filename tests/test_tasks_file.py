"""A list of tasks knows its own way, shots, queries and number."""

import json

import numpy as np
import pytest

from maml_tf.commands import command_line
from maml_tf.commands.run_evaluation import task_count
from maml_tf.datasets.flags import episode_specs
from maml_tf.datasets.sources import SOURCES
from maml_tf.episodes import manifest
from maml_tf.episodes.images import ImageClasses
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import ArgumentError

SOURCE = ImageClasses.from_arrays(
    np.random.default_rng(0).integers(0, 256, (6, 5, 4, 4, 1), np.uint8), {'test': range(6)}
)


@pytest.fixture
def file(tmp_path):
    tasks = SOURCE.tasks('test', EpisodeSpec(3, 1, 4), 1)
    manifest.write(tmp_path / 'tasks.jsonl', tasks, 7, {})
    return tmp_path / 'tasks.jsonl'


def parsed(file, *arguments):
    return command_line.parsed('--datasource=omniglot', f'--tasks_file={file}', *arguments)


def specs(file, *arguments):
    return episode_specs(parsed(file, *arguments), SOURCES['omniglot'])


def test_the_file_says_what_evaluation_takes(file):
    assert manifest.sizes(file) == (3, 1, 4, 7)
    training, evaluation = specs(file, '--num_classes=20', '--update_batch_size=5')
    assert evaluation == EpisodeSpec(3, 1, 4)
    assert (training.way, training.shot) == (20, 5)  # Training's are the flags'.
    assert manifest.read(file, SOURCE, 'test', evaluation)[1] == 7
    assert task_count(parsed(file)) == 7 and task_count(parsed(file, '--test_tasks=3')) == 3


def test_queries_that_are_asked_for_are_those_of_the_file(file):
    assert specs(file, '--test_query=4')[1].query == 4
    with pytest.raises(ArgumentError, match=r'^query=15: the tasks of --tasks_file=.* have 4'):
        specs(file, '--test_query=15')


def test_a_file_that_is_cut_short_is_refused(file):
    lines = file.read_text().splitlines()
    for content, words in [
        (lines[:5], 'has 4 tasks, and its first line says 7'),
        (lines[:1], 'no task in it'),
        ([lines[0], '{}'], 'line 2 is no task'),
        ([lines[0], lines[1][:20]], 'line 2 is no task'),
        ([json.dumps([])], 'not a list of tasks'),
    ]:
        file.write_text('\n'.join(content))
        with pytest.raises(ArgumentError, match=words):
            manifest.sizes(file)
