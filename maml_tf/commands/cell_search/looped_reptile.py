"""Reptile whose inner steps are a loop in the graph, which compiles in a fraction of the time."""

import tensorflow as tf

from maml_tf.algorithms.optimisation.reptile import Reptile
from maml_tf.episodes.task import Task
from maml_tf.inner_loop import adapt_in_graph
from maml_tf.training.phases import Update


class LoopedReptile(Reptile):
    """Learns what Reptile learns, up to rounding, and logs nothing of it.

    A child of a search lives for seconds, most of which compiling would take. Its queries are
    predicted once, after all steps.
    """

    def meta_gradients(self, task: Task, step: tf.Tensor) -> Update:
        """Returns theta - mean_i theta_i, and the moments' means as the state."""
        problem = self.inner_problem_of(task, self.inner_steps, training=True)
        del step
        if self.moments:
            before = tf.convert_to_tensor(self.steps_taken)
            problem = problem._replace(rule=self._adam(before))
        adapted, slots = adapt_in_graph(problem, self.inner_steps)
        moved = {name: problem.weights[name] - adapted[name] for name in adapted}
        gradients = [tf.reduce_mean(moved[name], 0) for name in self.meta_weights]
        state = {f'moment_{name}': tf.reduce_mean(v, 0) for name, v in slots.items()}
        if self.moments:
            state['steps_taken'] = before + self.inner_steps
        return Update(gradients, {}, state)

    def query_outputs(self, task: Task, steps: int | None = None) -> tf.Tensor:
        """Returns the predictions after all steps, [1, tasks, query, out]."""
        state = self.adapt(task.support_x, task.support_y, steps, key=task.key)
        return self.predict_query(state, task.query_x)[tf.newaxis]
