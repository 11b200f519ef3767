"""MAML++ (Antoniou, Edwards, Storkey, "How to train your MAML", ICLR 2019, arXiv 1810.09502)."""

import functools

import numpy as np
import tensorflow as tf

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import UserError
from maml_tf.inner_loop import rates, stack_over_tasks
from maml_tf.learner import State
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.networks.network import Network
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.objective import Objective
from maml_tf.training import outer_optimizers
from maml_tf.training.outer_optimizers import OuterOptimizer
from maml_tf.training.phases import Loss, OuterLoop, Phase, Update
from maml_tf.update_rules import RatesByStep, Tensors

EPOCH = 500  # iterations
INNER_LR, INNER_STEPS = 0.1, 5  # The authors'.


class MAMLPlusPlus(MAML):
    """MAML++: MAML with five changes, each a switch of its own.

    - Multi-step loss (section 4): L = sum_s w_s L_query(theta^s). Its weights move from all steps
      to the last, which counts alone afterwards.
    - Rates: learnt, one for each weight tensor and step.
    - Norms: each step has its own offsets and scales. Statistics are always those of the batch, so
      the authors' running statistics for each step play no part.
    - Order: the first iterations may be first-order.
    - Schedule: the outer rate falls along a cosine, at every iteration.

    The authors' code allocates rates for one step more, which no loss reaches. Their released
    settings have second order from the start, and so has this by default. `fit` takes no
    iteration of first order, and has the schedule of its own optimizer.

    Args: MAML's without evaluation_lr, and
      inner_lr: the rates as they start.
      multi_step_iterations: iterations with the multi-step loss, whose weights change every 500
        (an epoch); 0: none.
      learnt_rates, step_norms: see above.
      first_order_iterations: at the start.
      meta_lr_end: of the outer rate, at the last iteration; None: it is constant.
    """

    steps_in_evaluation = None
    heeds = tuple(
        name
        for name in MAML.heeds
        if name
        not in ('train_update_lr', 'pretrain_iterations', 'baseline', *outer_optimizers.FLAGS)
    )

    def __init__(
        self,
        network: Network,
        objective: Objective,
        inner_lr: float = INNER_LR,
        inner_steps: int = INNER_STEPS,
        multi_step_iterations: int = 10 * EPOCH,
        learnt_rates: bool = True,
        step_norms: bool = True,
        first_order_iterations: int = 0,
        meta_lr_end: float | None = 1e-5,
        **kwargs,
    ):
        self.step_norms = step_norms  # before the weights are made
        super().__init__(network, objective, inner_lr, inner_steps, evaluation_lr=None, **kwargs)
        self.multi_step_iterations = multi_step_iterations
        self.first_order_iterations = first_order_iterations
        self.meta_lr_end, self.scheduled = meta_lr_end, meta_lr_end is not None
        self.rates = {}
        if learnt_rates:
            adapted, _ = self.weights_of_the_network()
            start = self.starting_from(np.full([inner_steps], inner_lr))
            self.rates = {
                name: self.add_weight(name=f'rate_{name}', shape=[inner_steps], initializer=start)
                for name in adapted
            }
            self.update_rule = self.evaluation_rule = RatesByStep(self.rates)

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'MAMLPlusPlus':
        """Returns the learner that the command line describes, with the authors' network."""
        objective = problem.objective
        changes = {'head': 'flatten', 'negative_slope': 0.01}
        if flags.norm == 'batch_norm':
            changes |= {'scale': True, 'epsilon': 1e-5}
        inner_lr, _ = rates(flags, INNER_LR)
        return cls(
            problem.network(**changes),
            objective.averaged() if objective.classification else objective,
            inner_lr=inner_lr,
            multi_step_iterations=flags.mamlpp_multi_step_iterations,
            learnt_rates=flags.mamlpp_learnt_rates,
            step_norms=flags.mamlpp_step_norms,
            first_order_iterations=flags.mamlpp_first_order_iterations,
            meta_lr_end=flags.mamlpp_meta_lr_end,
            **cls.arguments_of(flags, problem, INNER_STEPS),
        )

    @classmethod
    def tiny(cls) -> tuple['MAMLPlusPlus', EpisodeSpec]:
        spec = EpisodeSpec(way=3, shot=2, query=2)
        network = FullyConnected((8, 8, 1), spec.way, (32,), 'batch_norm', scale=True)
        own = {'inner_steps': 2, 'multi_step_iterations': 300}
        return cls(network, MeanClassification(), inner_lr=0.3, **own), spec

    @classmethod
    def check_flags(cls, flags) -> None:
        """Raises UserError for switches that contradict each other."""
        super().check_flags(flags)
        meta_lr = outer_optimizers.from_flags(flags, cls.outer).meta_lr
        if flags.mamlpp_meta_lr_end > meta_lr:
            raise UserError(
                f'--mamlpp_meta_lr_end={flags.mamlpp_meta_lr_end}: the rate falls to it from '
                f'--meta_lr={meta_lr}; no more than that'
            )
        if flags.stop_grad and flags.mamlpp_first_order_iterations:
            raise UserError(
                f'--mamlpp_first_order_iterations={flags.mamlpp_first_order_iterations}: with '
                '--stop_grad all iterations are first-order'
            )

    # Weights that differ by step.

    def starting_weights(self, seed: int) -> dict[str, np.ndarray]:
        """Returns initial values; those of normalisations are [inner_steps, channels]."""
        weights = super().starting_weights(seed)
        return weights | {
            name: np.stack([weights[name]] * self.inner_steps)
            for name in weights
            if self._by_step(name)
        }

    def at_step(self, weights: Tensors, step: tf.Tensor | int) -> Tensors:
        """Returns the weights with this step's normalisations, after the last step with its."""
        row = tf.minimum(step, self.inner_steps - 1)
        return {
            name: tf.gather(w, row) if self._by_step(name) else w for name, w in weights.items()
        }

    def _state(self, fast_weights: Tensors, support_x: tf.Tensor, steps: tf.Tensor | int) -> State:
        """Returns what queries are predicted by: with the normalisations of the last step taken."""
        state = super()._state(fast_weights, support_x, steps)
        _, shared = self.weights_of_the_network()
        norms = {name: w for name, w in shared.items() if self._by_step(name)}
        of_step = self.at_step(norms, tf.maximum(steps - 1, 0))
        return state | stack_over_tasks(of_step, tf.shape(support_x)[0])

    def _by_step(self, name: str) -> bool:
        return self.step_norms and self.network.is_norm(name)

    # The multi-step loss.

    def step_weights(self, iteration: tf.Tensor) -> tf.Tensor:
        """Returns what the query loss after each step counts, [inner_steps]; the sum is 1."""
        steps, dtype = self.inner_steps, self.compute_dtype
        last = tf.one_hot(steps - 1, steps, dtype=dtype)
        if not self.multi_step_iterations:
            return last
        epochs = tf.constant(self.multi_step_iterations / EPOCH, dtype)
        moved = tf.cast(iteration // EPOCH, dtype) / (steps * epochs)
        least = 0.03 / steps
        of_others = tf.maximum(1 / steps - moved, least)
        of_last = tf.minimum(1 / steps + moved * (steps - 1), 1 - least * (steps - 1))
        weights = of_others * (1 - last) + of_last * last
        return tf.where(iteration < self.multi_step_iterations, weights, last)

    def meta_loss(self, task: Task, step: tf.Tensor) -> Loss:
        """Returns the multi-step loss of this iteration; logs the query loss after the last."""
        return self._loss(task, step, bool(self.multi_step_iterations), self.stop_grad)

    def _loss(self, task: Task, step: tf.Tensor, multi_step: bool, stop_grad: bool) -> Loss:
        problem = self.inner_problem_of(task, self.inner_steps, training=True)
        support_outputs, path = self.take_steps(problem, stop_grad, every=multi_step)
        _, before = self.support_loss_and_log(task, support_outputs)
        steps = range(self.inner_steps) if multi_step else [self.inner_steps - 1]
        losses = [
            self.query_loss(task, self.forward(task.query_x, problem.others | fast_weights, step))
            for step, fast_weights in zip(steps, path, strict=True)
        ]
        value = losses[-1].value
        if multi_step:
            value = tf.tensordot(
                self.step_weights(step), tf.stack([loss.value for loss in losses]), 1
            )
        return Loss(value, before | losses[-1].log)

    def phases(self, outer: OuterLoop) -> list[Phase]:
        """Returns a phase for each stretch whose iterations are alike; they share one Adam."""
        end = outer.metatrain_iterations
        cosine_to = self.meta_lr_end if self.scheduled else None
        optimizer, phases = OuterOptimizer(outer.meta_lr, cosine_to=cosine_to).make(end), []
        cuts = {0, self.multi_step_iterations, self.first_order_iterations}
        starts = sorted(cut for cut in cuts if cut < max(end, 1))
        for start, stop in zip(starts, [*starts[1:], end]):
            gradients = functools.partial(
                self._gradients,
                start=start,
                multi_step=start < self.multi_step_iterations,
                stop_grad=self.stop_grad or start < self.first_order_iterations,
            )
            name = f'metatrain_from_{start}' if start else 'metatrain'
            phase = Phase(name, stop - start, gradients, optimizer, outer.spec, first=start)
            phases.append(phase)
        return phases

    def _gradients(
        self, task: Task, step: tf.Tensor, start: int, multi_step: bool, stop_grad: bool
    ) -> Update:
        def loss(task, step):
            return self._loss(task, step + start, multi_step, stop_grad)

        return self.gradients_of(loss, task, step)


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_integer(
        'mamlpp_multi_step_iterations',
        10 * EPOCH,
        'mamlpp: so many iterations have the multi-step loss; 0: none',
        lower_bound=0,
    )
    flags.DEFINE_bool(
        'mamlpp_learnt_rates', True, 'mamlpp: learn a rate for every weight tensor and inner step'
    )
    flags.DEFINE_bool(
        'mamlpp_step_norms', True, 'mamlpp: normalisations have offsets and scales for every step'
    )
    flags.DEFINE_integer(
        'mamlpp_first_order_iterations',
        0,
        'mamlpp: so many iterations at the start are first-order',
        lower_bound=0,
    )
    flags.DEFINE_float(
        'mamlpp_meta_lr_end',
        1e-5,
        'mamlpp: --meta_lr falls to this along a cosine; as large as --meta_lr: it is constant',
        lower_bound=0,
    )
