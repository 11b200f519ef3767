"""The optimizers and schedules of the outer loop that the papers use, from Keras."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from maml_tf.errors import ArgumentError, UserError

OPTIMIZERS = ('adam', 'sgd', 'rmsprop')
# The flags of this module, besides --meta_lr.
FLAGS = (
    *('meta_lr_halve_every', 'meta_lr_factor', 'meta_lr_factors', 'meta_lr_cosine_to'),
    *('meta_optimizer', 'meta_weight_decay'),
)
MOMENTUM = 0.9


def adam(
    meta_lr: float | Callable[[], tf.Tensor],
    halve_every: int | None = None,
    epsilon: float = 1e-8,
) -> keras.optimizers.Optimizer:
    """Returns TF1's Adam, whose epsilon is 1e-8 where Keras' default is 1e-7.

    halve_every: iterations after which the rate is halved, again and again; None: it is constant.
    """
    if halve_every:
        meta_lr = OuterOptimizer(meta_lr, decay_every=halve_every).rate(1)
    return keras.optimizers.Adam(meta_lr, epsilon=epsilon)


@dataclasses.dataclass(frozen=True)
class OuterOptimizer:
    """Describes an outer optimizer and the course of its rate; of the three courses at most one.

    Attributes:
      meta_lr: the rate as it starts.
      kind: one of OPTIMIZERS. sgd has Nesterov's momentum of 0.9; as Keras has it, steps that it
        remembers keep the rate they had. rmsprop averages squares by 0.9, from 0.
      weight_decay: times the weights, is added to their gradients.
      decay_every, decay: so many iterations after which the rate is multiplied by `decay`.
      factors: ((iteration, factor), ...): from that iteration on the rate is meta_lr * factor.
      cosine_to: the rate at the end of training, to which it falls along a cosine.
      momentum: of rmsprop; the others do not heed it.
    """

    meta_lr: float = 1e-3
    kind: str = 'adam'
    weight_decay: float = 0.0
    decay_every: int | None = None
    decay: float = 0.5
    factors: tuple[tuple[int, float], ...] = ()
    cosine_to: float | None = None
    momentum: float = 0.0

    def __post_init__(self):
        if self.kind not in OPTIMIZERS:
            raise ArgumentError('meta_optimizer', self.kind, f'one of {", ".join(OPTIMIZERS)}')

    def rate(self, iterations: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
        """Returns the rate, or its schedule over a training of so many iterations."""
        schedules = keras.optimizers.schedules
        if self.decay_every:
            return schedules.ExponentialDecay(
                self.meta_lr, self.decay_every, self.decay, staircase=True
            )
        if self.factors:
            # Keras has the old rate at the boundary itself.
            starts = [iteration - 1 for iteration, _ in self.factors]
            values = [self.meta_lr, *(self.meta_lr * factor for _, factor in self.factors)]
            return schedules.PiecewiseConstantDecay(starts, values)
        if self.cosine_to is not None:
            least = self.cosine_to / self.meta_lr if self.meta_lr else 1.0
            return schedules.CosineDecay(self.meta_lr, max(iterations, 1), alpha=least)
        return self.meta_lr

    def make(self, iterations: int) -> keras.optimizers.Optimizer:
        """Returns a new optimizer for a training of so many iterations.

        Weight decay is not the optimizer's: see Phase in phases.py.
        """
        rate = self.rate(iterations)
        if self.kind == 'sgd':
            return keras.optimizers.SGD(rate, momentum=MOMENTUM, nesterov=True)
        if self.kind == 'rmsprop':
            return keras.optimizers.RMSprop(rate, rho=0.9, momentum=self.momentum, epsilon=1e-10)
        return adam(rate)


def from_flags(flags, own: OuterOptimizer) -> OuterOptimizer:
    """Returns what the command line asks for.

    own: the method's, of which all holds that the command line does not say.
    """
    changes = {}
    if flags.meta_lr is not None:
        changes['meta_lr'] = flags.meta_lr
    if flags.meta_optimizer:
        changes['kind'] = flags.meta_optimizer
    if flags.meta_weight_decay is not None:
        changes['weight_decay'] = flags.meta_weight_decay
    courses = {
        'decay_every': flags.meta_lr_halve_every,
        'factors': _factors(flags.meta_lr_factors),
        'cosine_to': flags.meta_lr_cosine_to,
    }
    if any(value not in (None, ()) for value in courses.values()):
        changes |= courses | {'decay': flags.meta_lr_factor}
    asked = dataclasses.replace(own, **changes)
    if asked.cosine_to is not None and asked.cosine_to > asked.meta_lr:
        raise UserError(
            f'--meta_lr_cosine_to={asked.cosine_to}: the rate falls to it, from '
            f'--meta_lr={asked.meta_lr}; no more than that'
        )
    return asked


def own_values(own: OuterOptimizer) -> dict[str, Any]:
    """Returns {flag: value} of what a command line could say of a method's own optimizer."""
    return {
        'meta_lr': own.meta_lr,
        'meta_optimizer': own.kind,
        'meta_weight_decay': own.weight_decay,
        'meta_lr_halve_every': own.decay_every,
        'meta_lr_factors': ','.join(f'{start}:{factor}' for start, factor in own.factors),
    }


def _factors(text):
    """Reads '20000:0.06,40000:0.012'."""
    if text is None:
        return ()
    try:
        pairs = [part.split(':') for part in text.split(',')]
        factors = tuple((int(iteration), float(factor)) for iteration, factor in pairs)
    except ValueError:
        factors = ()
    starts = [iteration for iteration, _ in factors]
    possible = all(math.isfinite(factor) and factor >= 0 for _, factor in factors)
    if not factors or not possible or starts != sorted({*starts}) or starts[0] < 1:
        raise UserError(
            f'--meta_lr_factors={text}: pairs like 20000:0.06,40000:0.012, iterations in order'
        )
    return factors


def check_flags(flags) -> None:
    """Raises UserError where two courses of the rate are asked for, or one that cannot be."""
    courses = ('meta_lr_halve_every', 'meta_lr_factors', 'meta_lr_cosine_to')
    asked = [name for name in courses if flags[name].value is not None]
    if len(asked) > 1:
        raise UserError(f'--{asked[0]}: not together with --{asked[1]}, both move --meta_lr')
    if flags.meta_lr_factor != 0.5 and flags.meta_lr_halve_every is None:
        raise UserError(
            f'--meta_lr_factor={flags.meta_lr_factor}: only with --meta_lr_halve_every, which it '
            'is the factor of'
        )
    _factors(flags.meta_lr_factors)


def define_flags(flags) -> None:
    """Defines the flags of the outer optimizer."""
    flags.DEFINE_float(
        'meta_lr',
        None,
        'learning rate of the outer optimizer (default: by method, mostly 0.001)',
        lower_bound=0,
    )
    flags.DEFINE_integer(
        'meta_lr_halve_every',
        None,
        'halve --meta_lr every so many iterations (default: by method, mostly constant)',
        lower_bound=1,
    )
    flags.DEFINE_float(
        'meta_lr_factor',
        0.5,
        'multiply by this instead of halving, with --meta_lr_halve_every',
        lower_bound=0,
        upper_bound=1,
    )
    flags.DEFINE_string(
        'meta_lr_factors',
        None,
        'pairs like 20000:0.06,40000:0.012: from that iteration on the rate is so many times '
        '--meta_lr',
    )
    flags.DEFINE_float(
        'meta_lr_cosine_to',
        None,
        'the rate at the end of training, to which --meta_lr falls along a cosine',
        lower_bound=0,
    )
    flags.DEFINE_enum(
        'meta_optimizer',
        None,
        OPTIMIZERS,
        "outer optimizer (default: by method, mostly adam); sgd has Nesterov's momentum of 0.9",
    )
    flags.DEFINE_float(
        'meta_weight_decay',
        None,
        'times the weights, is added to their gradients (default: by method, mostly 0)',
        lower_bound=0,
    )
