"""MR-MAML, MAML with meta-regularisation (Yin, Tucker, Zhou, Levine, Finn, ICLR 2020,
arXiv 1912.03820).
"""

import math
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.random_bits import keyed_bits, normal
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import ArgumentError, UserError, check_one_of
from maml_tf.networks.encoded import NOISE, EncodedNetwork
from maml_tf.networks.network import Network
from maml_tf.objectives.objective import Objective, mean_of_counted
from maml_tf.training.phases import Loss
from maml_tf.update_rules import Tensors

KINDS = ('weights', 'activations', 'none')
# The released code's: of weights for poses, of activations in the notebook of the sinusoid.
BETA = {'weights': 1e-3, 'activations': 5.0, 'none': 0.0}
RAW_SCALE = -20.0
SUPPORT, QUERY = 0, 1


class MRMAML(MAML):
    """MR-MAML: MAML whose encoder costs something for what it knows. Where tasks can be told apart
    by their inputs, MAML may remember each and pass its support set over; to remember takes
    information in the weights that all tasks share, and here that has a price.

    The network is an encoder theta, which all tasks share, and a head phi, which adapts
    (`Network.is_encoder`; of networks without an encoder of their own the body and the last layer):

      phi_i = phi - alpha grad_phi L_support(phi, theta)
      minimise over phi and q  E mean_i L_query(phi_i, theta) + beta KL

    'weights': every kernel of theta is drawn from q = N(mu, sigma^2), and KL is the sum over its
    entries of KL(q || N(0, 1)) = (sigma^2 + mu^2 - 1) / 2 - log sigma (MR-MAML (W)).
    'activations': the code z of an input is drawn from N(mu(x), sigma(x)^2), and KL is that of the
    queries' codes from N(0, 1), the mean over queries and numbers of the code (MR-MAML (A)); it
    takes an EncodedNetwork with a bottleneck. 'none': nothing is drawn and nothing costs anything;
    what differs from MAML is that the encoder does not adapt.

    From the released code (google-research, meta_learning_without_memorization) are: that kernels
    are drawn and biases not, a draw for the support sets and another for the queries that all tasks
    of a meta-batch share, sigma = softplus(rho) + epsilon with rho from -20, and that KL of
    activations is a mean. Ours: all rho start alike, there with a deviation of 0.1. Draws of
    weights belong to (seed, iteration), those of codes to the task's key and the iteration, so that
    a run resumes.
    Evaluation takes the means. The released code draws there, too, but for the notebook's
    activations. By reading, its pose code adds up KL of four calls of the encoder, so that its beta
    of 0.001 is 0.004 here, where KL counts once.

    Args: MAML's, and
      on: what is regularised, one of KINDS.
      beta: weight of KL; None: BETA.
      raw_scale: rho before training.
      seed: of the initial weights and of the draws.
    Raises: ArgumentError for a value out of range or a network that does not fit.
    """

    heeds = tuple(name for name in MAML.heeds if name not in ('pretrain_iterations', 'baseline'))

    def __init__(
        self,
        network: Network,
        objective: Objective,
        inner_lr: float = 1e-3,
        inner_steps: int = 1,
        on: Literal['weights', 'activations', 'none'] = 'weights',
        beta: float | None = None,
        raw_scale: float = RAW_SCALE,
        seed: int = 0,
        **kwargs,
    ):
        check_one_of('on', on, KINDS)
        if on == 'activations' and not getattr(network, 'bottleneck', False):
            raise ArgumentError('on', repr(on), 'only with a network that has a bottleneck')
        beta = BETA[on] if beta is None else beta
        if not 0 <= beta < math.inf:
            raise ArgumentError('beta', beta, 'a finite number, at least 0')
        if not math.isfinite(raw_scale):
            raise ArgumentError('raw_scale', raw_scale, 'a finite number')
        self.on, self.beta, self.seed = on, beta, seed
        super().__init__(network, objective, inner_lr, inner_steps, seed=seed, **kwargs)
        self.raw_scales = {}
        if on == 'weights':
            self.raw_scales = {
                name: self.add_weight(
                    name=f'scale_{name}',
                    shape=weight.shape,
                    initializer=self.starting_from(np.full(weight.shape, raw_scale)),
                )
                for name, weight in self.meta_weights.items()
                if self.draws(name)
            }
            if not self.raw_scales:
                reason = f'{type(network).__name__} has no encoder: its last layer is all'
                raise ArgumentError('network', None, reason)

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'MRMAML':
        """Returns the learner that the command line describes."""
        network, on = problem.network(), flags.mr_maml_on
        if on == 'activations':
            if not isinstance(network, EncodedNetwork):
                reason = 'only where the network has a code: --datasource=pose or rendered_pose'
                raise ArgumentError('on', on, reason)
            network = problem.network(bottleneck=True)
        arguments = cls.arguments_of(flags, problem) | cls.rates_of(flags, problem.inner_lr or 1e-3)
        own = {'beta': flags.mr_maml_beta, 'raw_scale': flags.mr_maml_scale_from}
        return cls(network, problem.objective, on=on, **own, **arguments)

    @classmethod
    def check_flags(cls, flags: Any) -> None:
        """Raises UserError for a flag that means nothing to what is regularised."""
        super().check_flags(flags)
        without = {'weights': (), 'activations': ('scale_from',), 'none': ('beta', 'scale_from')}
        for name in without[flags.mr_maml_on]:
            flag = flags[f'mr_maml_{name}']
            if flag.value != flag.default:
                given = f'--{flag.name}={flag.value}'
                raise UserError(f'{given}: means nothing with --mr_maml_on={flags.mr_maml_on}')

    @classmethod
    def tiny(cls) -> tuple['MRMAML', EpisodeSpec]:
        learner, spec = MAML.tiny()
        arguments = {'inner_lr': 0.1, 'inner_steps': 2, 'beta': 1e-5, 'raw_scale': -3.0}
        return cls(learner.network, learner.objective, **arguments), spec

    def adapts(self, name: str) -> bool:
        """Says whether this weight adapts: those of the head."""
        return self.network.adapted(name) and not self.network.is_encoder(name)

    def draws(self, name: str) -> bool:
        """Says whether this weight would be drawn: a kernel of the encoder."""
        is_kernel = len(self.meta_weights[name].shape) > 1
        return is_kernel and self.network.is_encoder(name) and not self.network.is_norm(name)

    def meta_loss(self, task: Task, step: tf.Tensor) -> Loss:
        """Returns the query loss after the inner steps plus beta KL; logs KL and MAML's losses."""
        problem = self.inner_problem_of(task, self.inner_steps, training=True)
        others = problem.others | self.drawn(task, step, SUPPORT)
        support_outputs, path = self.take_steps(problem._replace(others=others), self.stop_grad)
        _, before = self.support_loss_and_log(task, support_outputs)
        weights = problem.others | self.drawn(task, step, QUERY) | path[-1]
        outputs = self.forward(task.query_x, weights, self.inner_steps - 1)
        loss, after, _ = self.query_loss(task, outputs)
        if self.on == 'none':
            return Loss(loss, before | after)
        divergence = self.divergence(task)
        return Loss(loss + self.beta * divergence, before | after | {'kl': divergence})

    def drawn(self, task: Task, step: tf.Tensor, which: int) -> Tensors:
        """Draws what is random, by name: kernels without a task axis, or the noise of codes.

        Args:
          step: int64, the iteration.
          which: SUPPORT or QUERY.
        """
        iteration = tf.cast(step, tf.uint32)
        if self.on == 'activations':
            key = tf.zeros([1, 2], tf.uint32) if task.key is None else task.key
            key = tf.stack([key[:, 0], key[:, 1] + iteration], 1)
            x = (task.support_x, task.query_x)[which]
            noise = _noise(key, which, [x.shape[1], self.network.code])
            return {NOISE: tf.cast(noise, self.compute_dtype)}
        key = tf.stack([tf.constant(self.seed, tf.uint32), iteration])[tf.newaxis]
        scales = self.scales()
        return {
            name: self.meta_weights[name]
            + scale * tf.cast(_noise(key, 2 * i + which, scale.shape)[0], scale.dtype)
            for i, (name, scale) in enumerate(scales.items())
        }

    def scales(self) -> Tensors:
        """Returns the deviations of what is drawn of the encoder, {name: sigma}."""
        # As TensorFlow Probability's layers do: never 0.
        return {
            name: np.finfo(self.compute_dtype).eps + tf.nn.softplus(raw)
            for name, raw in self.raw_scales.items()
        }

    def divergence(self, task: Task) -> tf.Tensor:
        """Returns KL in nats: of the encoder's kernels, or of the codes of the task's queries."""
        if self.on == 'weights':
            scales = self.scales().items()
            entries = [divergence(self.meta_weights[name], scale) for name, scale in scales]
            return tf.add_n([tf.reduce_sum(kl) for kl in entries])
        _, shared = self.weights_of_the_network()
        of_codes = tf.reduce_mean(divergence(*self.network.encode(task.query_x, shared)), -1)
        return tf.reduce_mean(mean_of_counted(of_codes, task.query_mask))


def divergence(mean: tf.Tensor | keras.Variable, deviation: tf.Tensor) -> tf.Tensor:
    """Returns KL(N(mean, deviation**2) || N(0, 1)) of every entry, in nats."""
    squares = tf.square(deviation) + tf.square(tf.convert_to_tensor(mean))
    return (squares - 1) / 2 - tf.math.log(deviation)


def _noise(key, stream, shape):
    """Draws standard normals [keys, *shape]; more rows begin with those of fewer."""
    first, *rest = shape
    size = math.prod(rest)
    bits = keyed_bits(key, 2 * first * size, stream)
    return tf.reshape(normal(tf.reshape(bits, [-1, first, 2 * size])), [-1, first, *rest])


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_enum(
        'mr_maml_on',
        'weights',
        list(KINDS),
        "mr_maml: what costs information: the encoder's weights, its activations (a code of each "
        'input), or nothing',
    )
    flags.DEFINE_float(
        'mr_maml_beta',
        None,
        'mr_maml: price of a nat; default: 0.001 of weights, 5 of activations',
        lower_bound=0,
    )
    flags.DEFINE_float(
        'mr_maml_scale_from',
        RAW_SCALE,
        "mr_maml: where the weights' deviations start, before softplus",
    )
