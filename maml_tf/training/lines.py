"""The lines that training prints, with names and units."""

from collections.abc import Mapping, Sequence

from maml_tf.objectives.metric import ACCURACY, Axis, Metric


def of_iteration(title: str, iteration: int, row: Mapping[str, float], metric: Metric) -> str:
    """Returns the line of an iteration: 'Iteration 100: accuracy 20.40% before, 71.20% after'.

    Args:
      title: of the phase.
      row: {name: mean}. Where it has the metric before and after adaptation (`pre_`, `post_`), the
        line has these; else all that there is.
    """
    names = [f'{when}_{metric.name}' for when in ('pre', 'post')]
    values = [metric.show(row[name]) for name in names if name in row]
    if len(values) == 2:
        text = f'{metric.name} {values[0]} before, {values[1]} after'
    elif values:
        text = f'{metric.name} {values[0]}'
    else:
        text = ', '.join(_named(name, value) for name, value in row.items())
    return f'{title} {iteration}: {text}'


def of_validation(scores: Sequence[float], metric: Metric, axis: Axis) -> str:
    """Returns the line of a validation: the first and the last score, and what they stand for.

    Args:
      scores: [entries]; axis: of the entries.
    """
    first = f'Validation results: {metric.name} {metric.show(scores[0])}'
    if len(scores) == 1:
        return first
    return f'{first} ({axis.name}: {axis.values[0]}), {metric.show(scores[-1])} ({axis.values[-1]})'


def _named(name, value):
    fraction = name == ACCURACY.name or name.endswith(f'_{ACCURACY.name}')
    return f'{name} {ACCURACY.show(value) if fraction else f"{value:.4f}"}'
