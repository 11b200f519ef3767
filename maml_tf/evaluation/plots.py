"""Pictures: the learning curve, the metric after every step, and the sinusoid's fit."""

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402  (the backend comes first: there may be no screen)

LABELS = {'loss': 'mean squared error', 'accuracy': 'accuracy'}


def _save(figure, path):
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def learning_curve(path, rows, metric):
    """Metric over iterations from the rows of metrics.csv: before and after the inner updates, and
    validation."""
    if not rows:
        return
    figure, axes = plt.subplots(figsize=(7, 4))
    column = lambda name: [
        (int(row['iteration']), float(row[name])) for row in rows if row.get(name)
    ]
    curves = {
        f'pre_{metric}': 'training support, before the updates',
        f'post_{metric}': 'training query, after',
        f'val_{metric}': 'validation query, after',
    }
    for name, label in curves.items():
        if points := column(name):
            axes.plot(
                *zip(*points),
                label=label,
                marker='o' if name.startswith('val') else None,
                markersize=3,
            )
    axes.set_xlabel('iteration')
    axes.set_ylabel(LABELS[metric])
    if metric == 'loss':
        axes.set_yscale('log')
        for axis in ('major', 'minor'):
            getattr(axes.yaxis, f'set_{axis}_formatter')('{x:g}')
    axes.grid(alpha=0.3)
    axes.legend()
    axes.set_title('Learning curve')
    _save(figure, path)


def metric_by_step(path, means, ci95, metric, title):
    """The metric before adaptation and after every gradient step, with 95% intervals."""
    figure, axes = plt.subplots(figsize=(6, 4))
    axes.errorbar(range(len(means)), means, yerr=ci95, marker='o', capsize=3)
    axes.set_xlabel('gradient steps')
    axes.set_ylabel(f'{LABELS[metric]} (mean, 95% interval)')
    axes.set_xticks(range(len(means)))
    axes.grid(alpha=0.3)
    axes.set_title(title)
    _save(figure, path)


def fits(path, task, predictions, title):
    """For each task the true curve, the support points, and the predictions after some numbers of
    steps.

    task: a Task whose query lies on an even grid of x, the first input; predictions: {steps:
      [tasks, n, 1]}.
    """
    count = len(task.query_x)
    figure, grid = plt.subplots(1, count, figsize=(4.5 * count, 4), sharey=True, squeeze=False)
    styles = dict(
        zip(
            predictions,
            [
                {'color': 'tab:gray', 'linestyle': ':'},
                {'color': 'yellowgreen'},
                {'color': 'darkgreen'},
            ],
        )
    )
    for i, axes in enumerate(grid[0]):
        x = task.query_x[i, :, 0]
        axes.plot(
            x, task.query_y[i, :, 0], color='tab:red', linewidth=3, alpha=0.5, label='true function'
        )
        for steps, prediction in predictions.items():
            label = {0: 'before adaptation', 1: 'after 1 step'}.get(steps, f'after {steps} steps')
            axes.plot(x, prediction[i, :, 0], label=label, **styles[steps])
        axes.plot(
            task.support_x[i, :, 0],
            task.support_y[i, :, 0],
            '^',
            color='tab:purple',
            markersize=8,
            label='support points',
        )
        axes.set_xlabel('x')
        axes.grid(alpha=0.3)
    grid[0][0].set_ylabel('y')
    handles = grid[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc='lower center', ncol=len(handles[0]), frameon=False)
    figure.suptitle(title)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)
