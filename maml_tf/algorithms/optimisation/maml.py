"""Model-agnostic meta-learning (Finn, Abbeel, Levine, ICML 2017, arXiv 1703.03400)."""

import tensorflow as tf

from maml_tf.datasets.sources import SOURCES
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.inner_loop import inner_loop, read_out_every_step, stack_over_tasks
from maml_tf.learner import Learner
from maml_tf.networks.reference import FullyConnected
from maml_tf.objectives import Classification
from maml_tf.rematerialise import rematerialised_inner_loop
from maml_tf.training import shares
from maml_tf.update_rules import gradient_descent


class MAML(Learner):
    """MAML: theta_i' = theta - alpha grad L_support(theta), theta <- Adam(grad mean_i
    L_query(theta_i')).

    The state of a task is its `fast_weights`. With `stop_grad` this is first-order MAML.
    Normalisation variables are trained by the outer loop and not adapted, as in the authors' code.

    Args:
      network: see networks.py.
      inner_lr: alpha, on the objective's loss.
      inner_steps: steps of adaptation in training, and of `adapt` unless told.
      stop_grad: holds the inner gradients constant (section 5.2, "first-order approximation").
      seed: of the initial weights.
      transductive: queries are predicted together, so that batch norm sees their statistics (the
        authors' code, and always so in training); False: each by itself, beside the support set
        (Reptile's other protocol). The state then carries the support set.
      clip: bounds every entry of the meta-gradient by +-clip.
      tasks_at_once: what `share` returns at most, see shares.py; None: by the size of the tasks.
      rematerialise: trains in the memory of one inner step, see rematerialise.py; not with update
        rules that learn.
    """

    fixed_way = True  # by the last layer
    pretrains = True

    def __init__(
        self,
        network,
        objective,
        inner_lr=1e-3,
        inner_steps=1,
        stop_grad=False,
        seed=0,
        transductive=True,
        clip=None,
        tasks_at_once=None,
        rematerialise=False,
        **kwargs,
    ):
        super().__init__(objective, **kwargs)
        self.network, self.inner_steps, self.stop_grad = network, inner_steps, stop_grad
        self.transductive, self.clip = transductive, clip
        self.rematerialise, self._tasks_at_once = rematerialise, tasks_at_once
        self.update_rule = gradient_descent(inner_lr)
        self.meta_weights = {
            name: self.add_weight(
                name=name,
                shape=value.shape,
                initializer=lambda shape, dtype, value=value: tf.cast(value, dtype),
            )
            for name, value in network.construct_weights(seed).items()
        }

    @classmethod
    def from_flags(cls, flags, network, objective):
        """The learner that the command line describes."""
        return cls(
            network,
            objective,
            inner_lr=flags.update_lr,
            inner_steps=flags.num_updates,
            stop_grad=flags.stop_grad,
            seed=flags.seed,
            transductive=flags.transductive is not False,
            clip=SOURCES[flags.datasource].clip,
            tasks_at_once=flags.tasks_at_once,
            rematerialise=flags.rematerialise,
        )

    @classmethod
    def tiny(cls):
        spec = EpisodeSpec(way=3, shot=2, query=2)
        network = FullyConnected((8, 8, 1), spec.way, (32, 32), 'batch_norm')
        return cls(network, Classification(), inner_lr=0.1, inner_steps=1), spec

    def share(self, tasks, spec):
        if self._tasks_at_once is None and getattr(self.network, 'light', False):
            return tasks
        return shares.share(tasks, spec.way * (spec.shot + spec.query), self._tasks_at_once)

    def _weights(self):
        """(weights that the inner loop adapts, weights that all tasks share), as tensors."""
        weights = {name: tf.convert_to_tensor(w) for name, w in self.meta_weights.items()}
        adapted = {name: w for name, w in weights.items() if self.network.adapted(name)}
        return adapted, {name: w for name, w in weights.items() if name not in adapted}

    @property
    def takes_masks(self):
        """Batch norm would see the filling examples."""
        return getattr(self.network, 'norm', 'batch_norm') != 'batch_norm'

    def _inner_problem(self, support_x, support_y, mask):
        """What every inner loop takes first: the support loss, the stacked weights, the update
        rule."""
        adapted, shared = self._weights()
        shots = self.shots(support_y, mask)

        def support_loss(fast_weights, step, shared=shared):
            del step
            outputs = self.network.forward(support_x, shared | fast_weights)
            return self.objective.loss(support_y, outputs, shots, mask), outputs

        return support_loss, stack_over_tasks(adapted, tf.shape(support_x)[0]), self.update_rule

    def adapt(self, support_x, support_y, steps=None, mask=None):
        """Returns fast_weights, {name: [tasks, ...]}, after `steps` (default: inner_steps)
        steps."""
        steps = self.inner_steps if steps is None else steps
        problem = self._inner_problem(support_x, support_y, mask)
        return self._state(inner_loop(*problem, steps, self.stop_grad).fast_weights[-1], support_x)

    def _state(self, fast_weights, support_x):
        return fast_weights if self.transductive else fast_weights | {'support_x': support_x}

    def clip_gradients(self, gradients):
        return (
            [tf.clip_by_value(g, -self.clip, self.clip) for g in gradients]
            if self.clip
            else gradients
        )

    def predict_query(self, state, query_x):
        _, shared = self._weights()
        if self.transductive:
            return self.network.forward(query_x, shared | state)
        support_x = state['support_x']
        weights = shared | {name: w for name, w in state.items() if name != 'support_x'}

        def one_query(x):  # [tasks, ...] -> [tasks, out]
            return self.network.forward(tf.concat([support_x, x[:, None]], 1), weights)[:, -1]

        queries_first = [1, 0, *range(2, query_x.shape.rank)]
        outputs = tf.map_fn(
            one_query, tf.transpose(query_x, queries_first), fn_output_signature=self.compute_dtype
        )
        return tf.transpose(outputs, [1, 0, 2])

    def query_outputs(self, task, steps=None):
        steps = self.inner_steps if steps is None else steps
        return read_out_every_step(
            *self._inner_problem(task.support_x, task.support_y, task.support_mask),
            steps,
            lambda fast_weights: self.predict_query(
                self._state(fast_weights, task.support_x), task.query_x
            ),
        )

    def meta_loss(self, task):
        return self._post_update_loss(task, self.stop_grad)

    def pretrain_loss(self, task):
        """The support loss before any update; the loss after the updates is logged beside it."""
        _, log = self._post_update_loss(task, stop_grad=True)
        adapted, shared = self._weights()
        outputs = self.network.forward(task.support_x, adapted | shared)
        loss, pre = self._support_loss_and_log(task, outputs)
        return loss, log | pre

    def _post_update_loss(self, task, stop_grad):
        """Query loss after the inner steps; in the log beside it the support loss before them."""
        loss, weights, update_rule = self._inner_problem(
            task.support_x, task.support_y, task.support_mask
        )
        _, shared = self._weights()
        if self.rematerialise:
            _, support_outputs = loss(weights, 0)
            fast_weights = rematerialised_inner_loop(
                loss, weights, shared, update_rule, self.inner_steps, stop_grad
            )
        else:
            adaptation = inner_loop(loss, weights, update_rule, self.inner_steps, stop_grad)
            support_outputs, fast_weights = (
                adaptation.support_outputs[0],
                adaptation.fast_weights[-1],
            )
        _, pre = self._support_loss_and_log(task, support_outputs)
        outputs = self.network.forward(task.query_x, shared | fast_weights)
        loss, post = self._query_loss_and_log(task, outputs)
        return loss, pre | post

    def _support_loss_and_log(self, task, outputs):
        return self._loss_and_log(
            task.support_y,
            outputs,
            self.shots(task.support_y, task.support_mask),
            'pre',
            task.support_mask,
        )
