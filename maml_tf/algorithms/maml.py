"""Model-agnostic meta-learning (Finn, Abbeel, Levine, ICML 2017, arXiv 1703.03400)."""
import tensorflow as tf

from maml_tf.episodes.task import EpisodeSpec
from maml_tf.inner_loop import inner_loop, read_out_every_step, stack_over_tasks
from maml_tf.learner import Learner
from maml_tf.networks import ConvNet
from maml_tf.objectives import Classification
from maml_tf.update_rules import gradient_descent


class MAML(Learner):
    """MAML: theta_i' = theta - alpha grad L_support(theta), theta <- Adam(grad mean_i L_query(theta_i')).

    The state of a task is its `fast_weights`. With `stop_grad` this is first-order MAML. Normalisation
    variables are trained by the outer loop and not adapted, as in the authors' code.

    Args:
      network: see networks.py.
      inner_lr: alpha, on the objective's loss.
      inner_steps: steps of adaptation in training, and of `adapt` unless told.
      stop_grad: holds the inner gradients constant (section 5.2, "first-order approximation").
      seed: of the initial weights.
    """

    def __init__(self, network, objective, inner_lr=1e-3, inner_steps=1, stop_grad=False, seed=0, **kwargs):
        super().__init__(objective, **kwargs)
        self.network, self.inner_steps, self.stop_grad = network, inner_steps, stop_grad
        self.update_rule = gradient_descent(inner_lr)
        self.meta_weights = {
            name: self.add_weight(name=name, shape=value.shape,
                                  initializer=lambda shape, dtype, value=value: tf.cast(value, dtype))
            for name, value in network.construct_weights(seed).items()}

    @classmethod
    def from_flags(cls, flags, network, objective):
        """The learner that the command line describes."""
        return cls(network, objective, inner_lr=flags.update_lr, inner_steps=flags.num_updates,
                   stop_grad=flags.stop_grad, seed=flags.seed)

    @classmethod
    def tiny(cls):
        spec = EpisodeSpec(way=3, shot=2, query=2)
        network = ConvNet((16, 16, 1), spec.way, filters=8)
        return cls(network, Classification(), inner_lr=0.4, inner_steps=2), spec

    def _weights(self):
        """(weights that the inner loop adapts, weights that all tasks share), as tensors."""
        weights = {name: tf.convert_to_tensor(w) for name, w in self.meta_weights.items()}
        adapted = {name: w for name, w in weights.items() if self.network.adapted(name)}
        return adapted, {name: w for name, w in weights.items() if name not in adapted}

    def _inner_problem(self, support_x, support_y):
        """What every inner loop takes first: the support loss, the stacked weights, the update rule."""
        adapted, shared = self._weights()
        shots = self.shots(support_y)

        def support_loss(fast_weights, step):
            del step
            outputs = self.network.forward(support_x, shared | fast_weights)
            return self.objective.loss(support_y, outputs, shots), outputs

        return support_loss, stack_over_tasks(adapted, tf.shape(support_x)[0]), self.update_rule

    def adapt(self, support_x, support_y, steps=None):
        """Returns fast_weights, {name: [tasks, ...]}, after `steps` (default: inner_steps) steps."""
        steps = self.inner_steps if steps is None else steps
        problem = self._inner_problem(support_x, support_y)
        return inner_loop(*problem, steps, self.stop_grad).fast_weights[-1]

    def predict_query(self, state, query_x):
        _, shared = self._weights()
        return self.network.forward(query_x, shared | state)

    def query_outputs(self, task, steps=None):
        steps = self.inner_steps if steps is None else steps
        return read_out_every_step(*self._inner_problem(task.support_x, task.support_y), steps,
                                   lambda fast_weights: self.predict_query(fast_weights, task.query_x))

    def meta_loss(self, task):
        return self._post_update_loss(task, self.stop_grad)

    def pretrain_loss(self, task):
        """The support loss before any update; the loss after the updates is logged beside it."""
        _, log = self._post_update_loss(task, stop_grad=True)
        adapted, shared = self._weights()
        outputs = self.network.forward(task.support_x, adapted | shared)
        loss, pre = self._loss_and_log(task.support_y, outputs, self.shots(task.support_y), 'pre')
        return loss, log | pre

    def _post_update_loss(self, task, stop_grad):
        """Query loss after the inner steps; in the log beside it the support loss before them."""
        problem, shots = self._inner_problem(task.support_x, task.support_y), self.shots(task.support_y)
        adaptation = inner_loop(*problem, self.inner_steps, stop_grad)
        _, pre = self._loss_and_log(task.support_y, adaptation.support_outputs[0], shots, 'pre')
        outputs = self.predict_query(adaptation.fast_weights[-1], task.query_x)
        loss, post = self._loss_and_log(task.query_y, outputs, shots, 'post')
        return loss, pre | post
