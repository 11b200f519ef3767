"""The README's table of speeds, from what step_time.py measured.

python tests/benchmarks/speed_table.py step_time.json
"""

import json
import statistics
import sys

PEERS = {'torch_vmap': 'PyTorch vmap', 'torch_loop': 'PyTorch loop', 'map_fn': '`tf.map_fn`'}


def number(value):
    """Three digits, and no powers of ten."""
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def rows(report):
    """Yields the table's rows, lists of text."""
    yield [
        'training step of MAML',
        'ms',
        'tasks/s',
        *[f'{name}, ms' for name in PEERS.values()],
        'best of them / ours',
        'ours / limit',
        'GB: ours, PyTorch loop',
        'first step, s',
    ]
    for measurement in report['measurements']:
        sides = measurement['sides']
        median = {side: statistics.median(values['ms']) for side, values in sides.items()}
        limit = 1e3 * measurement['gflop'] / statistics.median(measurement['matmul_gflops'])
        peers = [median[side] for side in PEERS if side in median]
        order = 'first' if measurement['first_order'] else 'second'
        yield [
            f'{measurement["workload"]}, {order} order',
            f'**{number(median["ours"])}**',
            f'{1e3 * measurement["tasks"] / median["ours"]:,.0f}',
            *[
                f'{number(median[side])} (×{median[side] / median["ours"]:.1f})'
                if side in median
                else ''
                for side in PEERS
            ],
            f'**{min(peers) / median["ours"]:.1f}**' if peers else '',
            f'{median["ours"] / limit:.2f}',
            ', '.join(
                f'{sides[side]["peak_mb"] / 1e3:.1f}'
                for side in ('ours', 'torch_loop')
                if side in sides
            ),
            f'{sides["ours"]["seconds"]:.0f}',
        ]


def main():
    with open(sys.argv[1]) as file:
        report = json.load(file)
    for i, row in enumerate(rows(report)):
        print(f'| {" | ".join(row)} |')
        if i == 0:
            print('|---' * len(row) + '|')


if __name__ == '__main__':
    main()
