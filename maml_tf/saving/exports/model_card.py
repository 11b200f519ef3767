"""What people should know of an exported model, as a page beside it: MODEL_CARD.md.

The page is made of the content of maml_tf.json. What that does not say, the page does not either.
"""

import json
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from maml_tf.datasets.flags import episode_specs
from maml_tf.datasets.sources import SOURCES
from maml_tf.learner import Learner
from maml_tf.terminal.text import counted, listed, shown

# The entries of maml_tf.json that say of a learner what stays true of what is made of it.
ABOUT = ('method', 'batch_norm', 'data', 'training', 'evaluation', 'iteration')
# What the page is about, and where the same is written for programs.
SAVED_MODEL = (
    'A TensorFlow SavedModel that maml_tf wrote. It needs TensorFlow alone; `maml_tf.json` '
    'says the same to programs.'
)
LITE = (
    'A LiteRT (TensorFlow Lite) model that maml_tf wrote: one image in, the scores of all classes '
    'out. It needs an interpreter alone. `unzip` finds in it `classes.txt`, the classes in their '
    'order, and `maml_tf.json`, which says the same to programs.'
)


def of_learner(learner: Learner) -> dict[str, Any]:
    """Returns {name: JSON value} of what a learner knows of itself: its method and batch norm."""
    name = type(learner).__module__.rsplit('.', 1)[-1]
    # The first paragraph of every method's file names the method and its paper.
    page = sys.modules[type(learner).__module__].__doc__ or type(learner).__name__
    title = ' '.join(page.split('\n\n')[0].split())
    return {'method': {'name': name, 'title': title}, 'batch_norm': _batch_norm(learner)}


def _batch_norm(learner: Learner) -> str:
    norm = getattr(getattr(learner, 'network', None), 'norm', None)
    averages = any('moving_mean' in variable.path for variable in learner.variables)
    if norm != 'batch_norm' and not averages:
        return 'none'
    if learner.transductive:
        return (
            'statistics of the images predicted together: a prediction depends on the other '
            'queries of the call (transductive)'
        )
    kind = 'running averages of training' if averages else 'statistics of the task'
    return f'{kind}: each query is predicted by itself'


def of_run(flags: Any, results: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns {name: JSON value} of a run: its data, its tasks, and what it was scored with.

    Args:
      flags: of the command line.
      results: the content of results.json; None: it was not evaluated.
    """
    row = SOURCES[flags.datasource]
    training, evaluation = episode_specs(flags, row)
    sizes = lambda spec: {
        **({'way': spec.way} if row.classification else {}),
        'shot': spec.shot,
        'query': spec.query,
    }
    about = {
        'data': {
            'datasource': flags.datasource,
            'classes': flags.train_on if row.classification else None,
            'licence': row.licence,
        },
        'training': {**sizes(training), 'meta_batch_size': flags.meta_batch_size},
    }
    if results:
        is_sequence = 'length' in results['protocol']
        about['evaluation'] = ({} if is_sequence else sizes(evaluation)) | _last(results)
    return about


def of_run_directory(directory: pathlib.Path, flags: Any, iteration: int | None) -> dict[str, Any]:
    """Returns what `of_run` does, with the scores where they are of this iteration."""
    try:
        results = json.loads((directory / 'results.json').read_text('utf-8'))
        last = results if results['iteration'] == iteration and _last(results) else None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        last = None  # It was not evaluated, or by another version: nothing is known of it.
    return {**of_run(flags, last), 'iteration': iteration}


def _last(results):
    """Returns of results.json what holds after all of adaptation."""
    protocol, axis = results['protocol'], results['axis']
    own = {name: protocol[name] for name in ('way', 'shot', 'query') if name in protocol}
    return {
        **own,
        **{name: results[name] for name in ('split', 'tasks', 'metric', 'unit')},
        'after': f'{axis["values"][-1]} {axis["name"]}' if len(axis['values']) > 1 else None,
        'mean': results['mean'][-1],
        'ci95': results['ci95'][-1],
        'transductive': results.get('transductive', False),
    }


def text(name: str, content: Mapping[str, Any], what: str = SAVED_MODEL) -> str:
    """Returns the page.

    Args:
      name: of the model.
      content: of maml_tf.json.
      what: SAVED_MODEL or LITE.
    """
    lines = [
        f'# {shown(name)}',
        '',
        what,
        '',
        '| | |',
        '|---|---|',
        *(f'| {title} | {_cell(value)} |' for title, value in _rows(content)),
        '',
        '## Files',
        '',
        '| file | SHA-256 |',
        '|---|---|',
        *(f'| {_cell(file)} | `{digest}` |' for file, digest in content['sha256'].items()),
    ]
    return '\n'.join(lines) + '\n'


def _cell(value: object) -> str:
    return shown(value).replace('|', '\\|')


def _rows(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if method := content.get('method'):
        yield 'method', f'`{method["name"]}`: {method["title"]}'
    data = content.get('data', {})
    if data:
        classes = f', its {data["classes"]} classes' if data.get('classes') else ''
        yield 'data', f'{data["datasource"]}{classes}'
        yield 'licence of the data', data['licence']
    if training := content.get('training'):
        yield 'trained on', f'{_size(training)}, {training["meta_batch_size"]} a meta-batch'
    if content.get('iteration') is not None:
        yield 'iterations', f'{content["iteration"]:,}'
    if scores := content.get('evaluation'):
        yield _metric(scores), _score(scores)
    if classes := content.get('classes'):
        counts = content.get('photos', {})
        named = [f'{name} ({counts[name]})' if name in counts else name for name in classes]
        yield 'adapted to (photos)', listed(named, 50)
    if content.get('inner_steps') is not None:
        yield 'inner steps', str(content['inner_steps'])
    if 'batch_norm' in content:
        yield 'batch norm', content['batch_norm']
    if 'input_shape' in content:
        side = list(content['input_shape'])
        yield 'inputs', f'{side}, {content.get("inputs", "as in training")}'
    if preparation := content.get('preparation'):
        yield 'an image file is', preparation['in_words']
    versions = content['versions']
    yield 'versions', ', '.join(f'{name} {version}' for name, version in versions.items())


def _size(sizes: Mapping[str, Any]) -> str:
    way = f'{sizes["way"]}-way ' if 'way' in sizes else ''
    shot = f'{sizes["shot"]}-shot tasks' if 'shot' in sizes else 'tasks'
    if 'query' not in sizes:
        return f'{way}{shot}'
    return f'{way}{shot}, {counted(sizes["query"], "query")}{" a class" if way else ""}'


def _metric(scores: Mapping[str, Any]) -> str:
    return scores['metric'].replace('_', ' ') if scores['unit'] == '%' else scores['metric']


def _score(scores: Mapping[str, Any]) -> str:
    mean, half = scores['mean'], scores['ci95']
    if mean is None or half is None:
        value = 'no finite number'
    elif scores['unit'] == '%':
        value = f'{100 * mean:.2f} ± {100 * half:.2f} %'
    else:
        value = f'{mean:.4f} ± {half:.4f}{scores["unit"]}'
    where = f'{scores["tasks"]:,} {scores["split"]} tasks, {_size(scores)}'
    after = f', after {scores["after"]}' if scores['after'] else ''
    together = ', the queries of a task predicted together' if scores['transductive'] else ''
    return f'{value} (the mean and its 95 % interval over {where}{after}{together})'
