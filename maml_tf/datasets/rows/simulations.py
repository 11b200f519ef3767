"""The rows of environments, whose tasks are learnt by policies."""

from maml_tf.datasets.source import Source
from maml_tf.objectives.objective import Return
from maml_tf.rl import flags as rl_flags
from maml_tf.rl import simulation
from maml_tf.rl.policy import GaussianPolicy


def _policy(flags, input_shape, output_dim, **changes):
    # Of what methods change in a network, these belong to every kind.
    of_all = ('joined', 'start')
    changes = {name: value for name, value in changes.items() if name in of_all}
    return GaussianPolicy(input_shape, output_dim, **changes)


def _simulation(name, observations, actions, task) -> Source:
    """A row of an environment; the numbers are the sizes that it says of itself."""
    return Source(
        load=lambda flags: simulation.load(name, flags),
        input_shape=lambda flags: (observations + task * (flags.baseline == 'oracle'),),
        network=_policy,
        objective=Return(),
        output_dim=actions,
        print_every=1,
        iterations_per_call=1,
        validate_every=10,
        save_every=10,
        inner_lr=0.1,
        evaluation_steps=3,
        algorithms=(
            *('maml', 'anil', 'meta_sgd', 'cavia', 'bias_transformation'),
            *('multi_task', 'from_scratch'),
        ),
        foreign=rl_flags.FOREIGN,
        inputs=lambda flags: 'observations',
        reads=('baseline', *rl_flags.OF_TRAINING, *rl_flags.OF_TASKS),
    )


ROWS = {
    'navigation2d': _simulation('navigation2d', 2, 2, 2),
    'half_cheetah_dir': _simulation('half_cheetah_dir', 20, 6, 1),
    'half_cheetah_vel': _simulation('half_cheetah_vel', 20, 6, 1),
    'ant_dir': _simulation('ant_dir', 125, 8, 1),
    'ant_vel': _simulation('ant_vel', 125, 8, 1),
}
