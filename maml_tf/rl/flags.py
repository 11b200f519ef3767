"""The flags of reinforcement learning, and what they ask for."""

from maml_tf.rl.meta_policy import Settings
from maml_tf.rl.trpo import TrustRegion

# Flags of the outer loop by gradients, of networks and of labelled data: nothing to a policy.
FOREIGN = (
    *('meta_lr', 'meta_lr_halve_every', 'meta_lr_factor', 'meta_lr_factors', 'meta_lr_cosine_to'),
    *('meta_optimizer', 'meta_weight_decay', 'clip', 'tasks_at_once', 'rematerialise', 'strategy'),
    *('norm', 'conv', 'num_filters', 'max_pool', 'bfloat16', 'transductive', 'ensemble'),
    *('train_query', 'test_query', 'train_shot_from', 'train_query_from', 'iterations_per_call'),
    'export_embedding_dir',
)
# What makes another training.
OF_TRAINING = (
    *('rl_discount', 'rl_gae_lambda', 'rl_max_kl', 'rl_cg_iterations', 'rl_cg_damping'),
    *('rl_shrink', 'rl_tries'),
)
# What makes other tasks, or another test of them.
OF_TASKS = ('rl_squared_distance', 'rl_later_steps')


def settings(flags) -> Settings:
    """Returns the settings that the command line asks for."""
    region = TrustRegion(
        flags.rl_max_kl,
        flags.rl_cg_iterations,
        flags.rl_cg_damping,
        flags.rl_shrink,
        flags.rl_tries,
    )
    return Settings(flags.rl_discount, flags.rl_gae_lambda, region, flags.rl_later_steps)


def define_flags(flags) -> None:
    """Defines the flags of reinforcement learning."""
    default = Settings()
    region = default.region
    flags.DEFINE_float('rl_discount', default.discount, 'of rewards', lower_bound=0, upper_bound=1)
    flags.DEFINE_float(
        'rl_gae_lambda',
        default.gae_lambda,
        'lambda of the advantage estimate',
        lower_bound=0,
        upper_bound=1,
    )
    flags.DEFINE_float(
        'rl_max_kl',
        region.max_kl,
        'how far an outer step may move the adapted policies, in mean divergence',
    )
    flags.DEFINE_integer(
        'rl_cg_iterations',
        region.iterations,
        'iterations of conjugate gradients in an outer step',
        lower_bound=1,
    )
    flags.DEFINE_float(
        'rl_cg_damping', region.damping, 'is added to the Fisher matrix', lower_bound=0
    )
    flags.DEFINE_float(
        'rl_shrink', region.shrink, 'the line search shortens the outer step by this factor'
    )
    flags.DEFINE_integer(
        'rl_tries', region.tries, 'lengths that the line search tries', lower_bound=1
    )
    flags.DEFINE_float(
        'rl_later_steps',
        default.later_steps,
        'in evaluation, the inner steps after the first are by --update_lr times this',
        lower_bound=0,
    )
    flags.DEFINE_bool(
        'rl_squared_distance',
        False,
        "navigation2d: the reward is minus the squared distance, as in the paper's text; the "
        "authors' code has the distance",
    )
