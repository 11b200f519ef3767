"""What gradient-based learners share: which weights adapt, by which rule, from where."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import ArgumentError
from maml_tf.inner_loop import (
    InnerProblem,
    adapt_in_graph,
    read_out_every_step,
    stack_over_tasks,
)
from maml_tf.learner import Learner, State, shots
from maml_tf.networks.network import Network
from maml_tf.objectives.objective import Objective
from maml_tf.training import shares
from maml_tf.update_rules import GradientDescent, Tensors, UpdateRule


class GradientLearner(Learner):
    """Adapts weights of a network by gradient steps on the support set, with all tasks at once.

    The state of a task is its fast weights. Relatives of MAML override what differs: `adapts`,
    `learns`, `at_step`, `update_rule`, `inner_problem`, `meta_loss` or `meta_gradients`.

    Args:
      network: see networks/network.py.
      inner_lr: alpha, on the objective's loss.
      inner_steps: steps of adaptation in training, and of `adapt` unless told.
      evaluation_steps: steps of adaptation in evaluation; None: the method's own number.
      seed: of the initial weights.
      transductive: queries are predicted together, so that batch norm sees their statistics (the
        authors' code, and always so in training); False: each by itself, beside the support set
        (Reptile's other protocol). The state then carries the support set.
      clip: bounds every entry of the meta-gradient by +-clip.
      tasks_at_once: what `share` returns at most, see training/shares.py; None: by the size of the
        tasks.
    """

    heeds = (
        *Learner.heeds,
        *('network', 'cell', 'cells'),
        *('norm', 'conv', 'max_pool', 'num_filters', 'bfloat16'),
        *('update_lr', 'num_updates', 'test_num_updates', 'tasks_at_once', 'clip'),
    )
    fixed_way = True  # by the last layer
    # Inner steps in evaluation unless told; None: as many as in training.
    steps_in_evaluation: int | None = 10

    def __init__(
        self,
        network: Network,
        objective: Objective,
        inner_lr: float = 1e-3,
        inner_steps: int = 1,
        evaluation_steps: int | None = None,
        seed: int = 0,
        transductive: bool = True,
        clip: float | None = None,
        tasks_at_once: int | None = None,
        **kwargs,
    ):
        super().__init__(objective, **kwargs)
        self.network = network
        if inner_steps < 1:
            raise ArgumentError('inner_steps', inner_steps, 'at least 1')
        self.inner_lr, self.inner_steps = inner_lr, inner_steps
        self.evaluation_lr = inner_lr
        own = self.steps_in_evaluation or inner_steps
        self.evaluation_steps = own if evaluation_steps is None else evaluation_steps
        self.transductive, self._tasks_at_once = transductive, tasks_at_once
        self.clip = clip
        self.update_rule: UpdateRule = GradientDescent(inner_lr)
        self.evaluation_rule: UpdateRule = self.update_rule
        self.meta_weights = {
            name: self.add_weight(
                name=name,
                shape=value.shape,
                initializer=self.starting_from(value),
                trainable=self.learns(name),
            )
            for name, value in self.starting_weights(seed).items()
        }

    @staticmethod
    def arguments_of(flags, problem: Problem, inner_steps: int = 1) -> dict[str, Any]:
        """Returns the constructor arguments that relatives share, from the command line.

        inner_steps: where the command line leaves them to the method.
        """
        return {
            'inner_steps': flags.num_updates or inner_steps,
            'evaluation_steps': problem.evaluation_steps
            if flags.test_num_updates is None
            else flags.test_num_updates,
            'seed': flags.seed,
            'transductive': flags.transductive is not False,
            'clip': (problem.clip if flags.clip is None else flags.clip) or None,
            'tasks_at_once': flags.tasks_at_once,
        }

    # What adapts, and how.

    def adapts(self, name: str) -> bool:
        """Says whether the inner loop changes this weight; by default as the network has it."""
        return self.network.adapted(name)

    def starting_weights(self, seed: int) -> dict[str, np.ndarray]:
        """Returns initial values of all weights by name; by default the network's."""
        return self.network.construct_weights(seed)

    def learns(self, name: str) -> bool:
        """Says whether the outer loop changes this weight; by default it changes all."""
        return True

    def at_step(self, weights: Tensors, step: tf.Tensor | int) -> Tensors:
        """Returns the weights of a forward pass that belongs to an inner step.

        step: from 0; of the step's support loss, and of query losses after it. By default it plays
          no part.
        """
        return weights

    def forward(self, x: tf.Tensor, weights: Tensors, step: tf.Tensor | int) -> tf.Tensor:
        """Returns the network's outputs [tasks, n, out]; step: as of `at_step`."""
        return self.network.forward(x, self.at_step(weights, step))

    def weights_of_the_network(self) -> tuple[Tensors, Tensors]:
        """Returns (weights that the inner loop adapts, weights that all tasks share)."""
        weights = {name: tf.convert_to_tensor(w) for name, w in self.meta_weights.items()}
        adapted = {name: w for name, w in weights.items() if self.adapts(name)}
        return adapted, {name: w for name, w in weights.items() if name not in adapted}

    def inner_problem(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        mask: tf.Tensor | None,
        key: tf.Tensor | None,
        steps: int,
        training: bool = False,
    ) -> InnerProblem:
        """Returns what the inner loop of these tasks works on.

        Args: as of `adapt`, and
          steps: how many will be taken.
          training: by the rule of training, else by that of evaluation.
        """
        del key, steps
        adapted, shared = self.weights_of_the_network()
        per_class = shots(support_y, mask)

        def support_loss(fast_weights, step, shared):
            outputs = self.forward(support_x, shared | fast_weights, step)
            return self.objective.loss(support_y, outputs, per_class, mask), outputs

        rule = self.update_rule if training else self.evaluation_rule
        stacked = stack_over_tasks(adapted, tf.shape(support_x)[0])
        return InnerProblem(support_loss, stacked, rule, shared, rule.parameters())

    def inner_problem_of(self, task: Task, steps: int, training: bool = False) -> InnerProblem:
        """Returns the `inner_problem` of a meta-batch."""
        return self.inner_problem(
            task.support_x, task.support_y, task.support_mask, task.key, steps, training
        )

    # The contract.

    @property
    def example_shape(self) -> tuple[int, ...]:
        return self.network.input_shape

    @property
    def takes_masks(self) -> bool:
        """Says that tasks may differ in size, unless batch norm would see the filling examples."""
        return self.network.norm != 'batch_norm'

    def adapt(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        steps: int | None = None,
        mask: tf.Tensor | None = None,
        key: tf.Tensor | None = None,
    ) -> State:
        """Returns the fast weights, {name: [tasks, ...]}, after `steps` (default: inner_steps).

        It is a loop in the graph, for the use of what was learnt: no tape sees through it.
        """
        steps = self.inner_steps if steps is None else steps
        problem = self.inner_problem(support_x, support_y, mask, key, steps)
        fast_weights, _ = adapt_in_graph(problem, steps)
        return self._state(fast_weights, support_x, steps)

    def predict_query(self, state: State, query_x: tf.Tensor) -> tf.Tensor:
        _, shared = self.weights_of_the_network()
        if self.transductive:
            return self.network.forward(query_x, shared | state)
        support_x = state['support_x']
        weights = shared | {name: w for name, w in state.items() if name != 'support_x'}

        def one_query(x):  # [tasks, ...] -> [tasks, out]
            return self.network.forward(tf.concat([support_x, x[:, None]], 1), weights)[:, -1]

        queries_first = [1, 0, *range(2, query_x.shape.rank)]
        outputs = tf.map_fn(
            one_query,
            tf.transpose(query_x, queries_first),
            fn_output_signature=self.compute_dtype,
        )
        return tf.transpose(outputs, [1, 0, *range(2, outputs.shape.rank)])

    def query_outputs(self, task: Task, steps: int | None = None) -> tf.Tensor:
        steps = self.inner_steps if steps is None else steps
        problem = self.inner_problem_of(task, steps)

        def read_out(fast_weights, step):
            return self.predict_query(self._state(fast_weights, task.support_x, step), task.query_x)

        return read_out_every_step(problem, steps, read_out)

    def share(self, tasks: int, spec: EpisodeSpec) -> int:
        if self._tasks_at_once is None and self.network.light:
            return tasks
        examples = spec.way * (spec.shot + spec.query)
        return shares.share(tasks, examples, self._tasks_at_once)

    def clip_gradients(self, gradients: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        if self.clip is None:
            return gradients
        return [tf.clip_by_value(g, -self.clip, self.clip) for g in gradients]

    def support_loss_and_log(
        self, task: Task, outputs: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns the mean support loss, and it and its score as `pre_...`."""
        return self.loss_and_log(
            'pre', task.support_y, outputs, self.shots(task), task.support_mask
        )

    def _state(self, fast_weights: Tensors, support_x: tf.Tensor, steps: tf.Tensor | int) -> State:
        """Returns what queries are predicted by; steps: how many were taken."""
        del steps
        return fast_weights if self.transductive else fast_weights | {'support_x': support_x}
