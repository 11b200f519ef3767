"""What an evaluation leaves behind: a table on the screen, results.json, the reference's csv."""

import csv
import io
import json

from maml_tf.evaluation.intervals import summarise
from maml_tf.saving.run_directory import write_atomically

TITLES = {'loss': 'Mean squared error', 'accuracy': 'Accuracy'}


def table(scores, metric, heading):
    """The screen's table: one row per gradient step, one alone without steps. scores: [tasks, steps
    + 1]."""
    form = '{:>14}{:>10}{:>10}{:>16}' if scores.shape[1] > 1 else '{:.0}{:>10}{:>10}{:>16}'
    show = '{:.2%}'.format if metric == 'accuracy' else '{:.4f}'.format
    lines = [
        f'{TITLES[metric]} {heading}',
        form.format('gradient steps', 'mean', 'std', '95% interval'),
    ]
    for step, (mean, deviation, half) in enumerate(zip(*summarise(scores))):
        lines.append(form.format(str(step), show(mean), show(deviation), '± ' + show(half)))
    return '\n'.join(lines)


def results(scores, metric, protocol, seed, iteration, flags):
    """The content of results.json; accuracy is a fraction, entry 0 is before adaptation.

    protocol: {name: value} that decides the tasks, among them 'split'.
    """
    means, deviations, ci95 = summarise(scores)
    return {
        'metric': metric,
        'inner_steps': list(range(len(means))),
        'mean': means.tolist(),
        'std': deviations.tolist(),
        'ci95': ci95.tolist(),
        'tasks': len(scores),
        'split': protocol['split'],
        'seed': seed,
        'iteration': iteration,
        'protocol': protocol,
        'flags': flags,
    }


def write(directory, scores, content, update_batch_size, update_lr):
    """Writes results.json, scores.csv with each task's score, and test_ubs<K>_stepsize<alpha>.csv
    into `directory`.

    The last is the reference's file. Its column update0 is the *query* set before adaptation, where
    the reference put the support set.
    """
    write_atomically(directory / 'results.json', json.dumps(content, indent=1) + '\n')
    header = [f'update{step}' for step in content['inner_steps']]
    write_atomically(directory / 'scores.csv', _csv(header, scores))
    summary = _csv(header, summarise(scores))
    write_atomically(directory / f'test_ubs{update_batch_size}_stepsize{update_lr}.csv', summary)


def _csv(header, rows):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(header)
    writer.writerows(row.tolist() for row in rows)
    return text.getvalue()
