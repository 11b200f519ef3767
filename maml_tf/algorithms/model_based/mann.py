"""MANN (Santoro, Bartunov, Botvinick, Wierstra, Lillicrap, "Meta-learning with memory-augmented
neural networks", ICML 2016, arXiv 1605.06065)."""

import dataclasses
import math
from collections.abc import Sequence as Several
from typing import Any

import keras
import tensorflow as tf

from maml_tf.algorithms.model_based.mann_labels import KINDS, Labels
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.order import counting, random_order, take
from maml_tf.episodes.task import EpisodeSpec, Sequence, SequenceSpec, Task
from maml_tf.errors import ArgumentError, UserError, check_one_of
from maml_tf.learner import Learner, State
from maml_tf.networks.sequence_models.late_labels import late, mean_by_instance
from maml_tf.networks.sequence_models.lrua_cell import (
    CONTROLLERS,
    LRUACell,
    controller_cell,
    state_names,
)
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.metric import Axis
from maml_tf.ops.shapes import sizes
from maml_tf.training import shares
from maml_tf.training.outer_optimizers import OuterOptimizer
from maml_tf.training.phases import Loss, OuterLoop, Phase

PROTOCOLS = ('sequences', 'episodes')
# Sequences of a share, see training/shares.py. A step of the recurrence is many small operations:
# with shares of 8 an iteration of 16 takes 1.4 times as long, as it waits for them.
AT_ONCE = 16


class MANN(Learner):
    """Reads a sequence of examples, whose labels come one step late, into a memory.

    The input of step t is (x_t, y_t-1), and y_0 is zero. The outputs of the step, W [h_t, r_t] + b,
    are of the controller and of what it reads from the memory (networks/sequence_models/
    lrua_cell.py). The loss is the mean cross-entropy of all steps. Classes, their labels and the
    order are drawn for each sequence, so that only its own past tells what a label means.

    With the protocol `sequences`, the paper's, it trains and is evaluated on these. Entry k of a
    result is the accuracy at the k-th example of a class, the mean over the classes. With
    `episodes` it trains and is evaluated on tasks of a support set and queries, as other methods.
    Either way it takes both: `adapt` reads the support set in a random order that the task's key
    decides, and each query is one more step, by itself, from the state that is left.

    Labels are one-hot, or strings of five letters of {a ... e}, which the key draws for each class
    and which are predicted letter by letter. Then the loss of a step is the sum over the letters,
    and a prediction in a sequence is right when all letters are. Of a query the outputs are the
    log-probabilities of its classes' strings, of any number of classes.

    Without `memory` the controller alone is the paper's LSTM baseline or, since it sees nothing of
    the past but the last label, its feed-forward baseline.

    The paper turns and moves each class a little at random in training; here nothing does.

    Args:
      input_shape: of one example, which is flattened.
      way: the number of classes where labels are one-hot.
      instances: examples of each class in a sequence.
      controller: one of lrua_cell.CONTROLLERS. memory: whether it has one.
      labels: one of mann_labels.KINDS. protocol: one of PROTOCOLS.
      units, slots, width, heads, decay: see LRUACell.
    Raises: ArgumentError for a value that is none of these, and for fewer than one instance.
    """

    # XLA compiles an iteration of 16 sequences of 50 for more than a minute, and then the iteration
    # takes 0.8 s in place of 0.18 s (two busy cores).
    xla = False
    outer = OuterOptimizer(1e-4, kind='rmsprop', momentum=0.9)
    takes_masks = True  # An example that does not count is a step that is left out.
    ordered = True
    fixed_way = True  # by the last layer, where labels are one-hot

    def __init__(
        self,
        input_shape: Several[int],
        way: int,
        instances: int = 10,
        controller: str = 'lstm',
        memory: bool = True,
        labels: str = 'one_hot',
        protocol: str = 'sequences',
        units: int = 200,
        slots: int = 128,
        width: int = 40,
        heads: int = 4,
        decay: float = 0.95,
        **kwargs,
    ):
        check_one_of('protocol', protocol, PROTOCOLS)
        if instances < 1:
            raise ArgumentError('instances', instances, 'at least 1')
        super().__init__(MeanClassification(), **kwargs)
        self._example_shape, self.instances = tuple(input_shape), instances
        self.protocol, self.labels = protocol, Labels(labels, way)
        self.fixed_way = self.labels.fixed_way
        if memory:
            cell = LRUACell(controller, units, slots, width, heads, decay)
        else:
            cell = controller_cell(controller, units)
        self._state_names = state_names(controller, memory)
        self.recurrence = keras.layers.RNN(
            cell, return_sequences=True, return_state=True, name='recurrence'
        )
        self.recurrence.build((None, None, math.prod(input_shape) + self.labels.width))
        self.readout = keras.layers.Dense(self.labels.width, name='readout')
        self.readout.build((None, cell.output_size))

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'MANN':
        """Returns the learner that the command line describes. Raises ArgumentError in
        regression."""
        if not problem.objective.classification:
            reason = 'MANN tells classes apart, and this source is regression'
            raise ArgumentError('datasource', flags.datasource, reason)
        return cls(
            problem.input_shape,
            problem.output_dim,
            instances=flags.mann_instances,
            controller=flags.mann_controller,
            memory=flags.mann_memory,
            labels=flags.mann_labels,
            protocol=flags.mann_protocol,
        )

    @classmethod
    def check_flags(cls, flags: Any) -> None:
        default = flags['mann_instances'].default
        if flags.mann_protocol == 'episodes' and flags.mann_instances != default:
            raise UserError(
                f'--mann_instances={flags.mann_instances}: means nothing with '
                '--mann_protocol=episodes, where --update_batch_size says how many are shown'
            )

    @classmethod
    def tiny(cls) -> tuple['MANN', EpisodeSpec]:
        # An LSTM would take thousands of iterations.
        small = {'units': 128, 'slots': 32, 'width': 16, 'heads': 2}
        learner = cls((8, 8, 1), 2, instances=5, controller='feed_forward', **small)
        return learner, EpisodeSpec(way=2, shot=3, query=3)

    @property
    def example_shape(self) -> tuple[int, ...]:
        return self._example_shape

    # Sequences.

    def evaluation_draws(self, spec: EpisodeSpec) -> EpisodeSpec | SequenceSpec:
        if self.protocol == 'episodes':
            return spec
        return SequenceSpec(spec.way, spec.way * self.instances)

    def phases(self, outer: OuterLoop) -> list[Phase]:
        """Returns meta-training, on what the protocol says."""
        (phase,) = super().phases(outer)
        return [dataclasses.replace(phase, draws=self.evaluation_draws(outer.spec))]

    def axis(self, entries: int) -> Axis:
        """Returns the instance numbers; of tasks the one entry that there is."""
        if self.protocol == 'episodes':
            return super().axis(entries)
        return Axis('instance', tuple(range(1, entries + 1)))

    def query_outputs(self, task: Task | Sequence, steps: int | None = None) -> tf.Tensor:
        """Returns [1, tasks, n, out]: of the queries, or of all steps of sequences."""
        if isinstance(task, Task):
            return super().query_outputs(task, steps)
        outputs, _ = self._run(self._inputs(task.x, self._codes(task)), None)
        return outputs[tf.newaxis]

    def scores_of(self, task: Task | Sequence, outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns (losses, scores) of `query_outputs`, of sequences [instances, tasks]."""
        if isinstance(task, Task):
            return super().scores_of(task, outputs)
        judged = self.labels.judge(self._codes(task), outputs[0])
        return tuple(mean_by_instance(values, task.y, self.instances) for values in judged)

    def meta_loss(self, task: Task | Sequence, step: tf.Tensor) -> Loss:
        """Returns the loss of all steps or, of tasks, of the queries.

        Of sequences the log has the accuracy at the first example of a class and at the last.
        """
        if isinstance(task, Task):
            return super().meta_loss(task, step)
        outputs = self.query_outputs(task)
        losses, _ = self.labels.judge(self._codes(task), outputs[0])
        loss, (_, scores) = tf.reduce_mean(losses), self.scores_of(task, outputs)
        name = self.metric.name
        log = {f'pre_{name}': scores[0], f'post_{name}': scores[-1]}
        log = {key: tf.reduce_mean(value) for key, value in log.items()}
        return Loss(loss, {'post_loss': loss} | log)

    def share(self, tasks: int, spec: EpisodeSpec) -> int:
        return shares.share(tasks, 1, AT_ONCE)

    def evaluation_share(self, tasks: int, spec: EpisodeSpec) -> int:
        return tasks

    # Tasks of a support set and queries.

    def adapt(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        steps: int | None = None,
        mask: tf.Tensor | None = None,
        key: tf.Tensor | None = None,
    ) -> State:
        """Returns the states of the recurrence after the support set, in a random order; the label
        that is still to be shown, [tasks, width]; and with strings those of the classes."""
        del steps, mask  # An example that does not count has a label of zeros.
        order = random_order(support_y, key)
        x, y = take(support_x, order), take(support_y, order)
        tasks, _, way = sizes(y)
        codes, there = self.labels.of_classes(tasks, way, key, y.dtype), counting(y)
        labels = tf.matmul(y, codes)
        _, states = self._run(self._inputs(x, labels), there > 0)
        last = tf.cast(tf.reduce_sum(there, axis=-1), tf.int32) - 1
        state = dict(zip(self._state_names, states))
        state['label'] = tf.gather(labels, last, axis=1, batch_dims=1)
        return state if self.fixed_way else state | {'strings': codes}

    def predict_query(self, state: State, query_x: tf.Tensor) -> tf.Tensor:
        """Returns the logits of the classes; every query is one step from the state."""
        tasks, queries = sizes(query_x)[:2]
        for_each = lambda x: tf.repeat(x, queries, axis=0)
        x = tf.reshape(query_x, [-1, math.prod(self._example_shape)])
        inputs = tf.concat([x, for_each(state['label'])], axis=-1)
        states = [for_each(state[name]) for name in self._state_names]
        output, _ = self.recurrence.cell(inputs, states)
        outputs = tf.reshape(self.readout(output), [tasks, queries, self.labels.width])
        return self.labels.by_class(outputs, state.get('strings'))

    # The recurrence.

    def _codes(self, sequence):
        """Returns the label of each step, [tasks, length, width]."""
        tasks, _, way = sizes(sequence.y)
        codes = self.labels.of_classes(tasks, way, sequence.key, sequence.y.dtype)
        return tf.matmul(sequence.y, codes)

    def _inputs(self, x, labels):
        tasks, length = sizes(x)[:2]
        flat = tf.reshape(x, [tasks, length, math.prod(self._example_shape)])
        return tf.concat([flat, late(labels)], axis=-1)

    def _run(self, inputs, mask):
        """Returns (the outputs of all steps [tasks, length, width], the states after the last)."""
        outputs, *states = self.recurrence(inputs, mask=mask)
        return self.readout(outputs), states


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_enum(
        'mann_protocol',
        'sequences',
        PROTOCOLS,
        'mann: train and evaluate on sequences whose labels come one step late, or on episodes of '
        'support and queries',
    )
    flags.DEFINE_enum('mann_controller', 'lstm', CONTROLLERS, 'mann: what uses the memory')
    flags.DEFINE_bool('mann_memory', True, 'mann: False: the controller alone, a baseline')
    flags.DEFINE_integer(
        'mann_instances', 10, 'mann: examples of each class in a sequence', lower_bound=1
    )
    flags.DEFINE_enum(
        'mann_labels',
        'one_hot',
        KINDS,
        'mann: labels as inputs and outputs; strings: five letters, drawn for each class',
    )
