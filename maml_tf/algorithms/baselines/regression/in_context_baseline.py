"""Classical regression on each task's support set: what a transformer that learns in context is
compared with (Garg et al., NeurIPS 2022, section 3)."""

from typing import Any

import tensorflow as tf

from maml_tf.algorithms.baselines.from_scratch import FromScratch
from maml_tf.algorithms.baselines.regression import context_predictors
from maml_tf.algorithms.baselines.regression.context_predictors import Predictor, Support
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import ArgumentError, UserError, check_one_of
from maml_tf.learner import Learner, State
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.metric import Axis
from maml_tf.objectives.objective import Objective
from maml_tf.objectives.regression import Regression
from maml_tf.ops.shapes import sizes
from maml_tf.training.phases import OuterLoop, Phase

SIMPLE = {
    'least_squares': context_predictors.least_squares,
    'averaging': context_predictors.averaging,
    'nearest': context_predictors.nearest,
}
# Of scikit-learn, called from Python, which no SavedModel holds.
FITTED = ('lasso', 'tree', 'boosting')
METHODS = (*SIMPLE, *FITTED, 'network')
PENALTY = 0.01
# The authors' network and its training.
HIDDEN, STEPS, RATE = 100, 100, 5e-3


class InContextBaseline(Learner):
    """Fits one classical model to each task's support set; nothing is learnt from other tasks.

    Evaluation has an entry for each context length, as InContext has. From no points the prediction
    is 0. Nothing is trained: the one iteration of its training, which scores a meta-batch, is there
    to write a checkpoint.

    Args:
      input_dim: of x.
      by: one of METHODS. least_squares (of least norm), averaging (w = mean of x y), nearest (3),
        and of scikit-learn lasso, tree and boosting; network: one hidden layer of 100, 100 steps of
        Adam at 0.005 on the whole support set.
      penalty: of the Lasso.
      depth: of the tree; None: until its leaves are pure.
      seed: of the network's first weights, the same in all tasks.
    Raises: ArgumentError for another method; UserError where scikit-learn is missing.
    """

    heeds = ()
    xla = False
    ordered = True  # In the entries of fewer points, which are the first.

    def __init__(
        self,
        input_dim: int,
        objective: Objective,
        by: str = 'least_squares',
        penalty: float = PENALTY,
        depth: int | None = None,
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(objective, **kwargs)
        check_one_of('by', by, METHODS)
        self.input_dim = input_dim
        self._network = None
        if by == 'network':
            network = FullyConnected((input_dim,), 1, (HIDDEN,), start='glorot')
            self._network = FromScratch(
                network,
                Regression(),
                inner_lr=RATE,
                steps=STEPS,
                seed=seed,
                dtype=self.dtype_policy,
            )
        self._predict: Predictor | None = {
            **SIMPLE,
            'network': self._by_network,
        }.get(by)
        if by in FITTED:
            self._predict = {
                'lasso': lambda: context_predictors.lasso(penalty),
                'tree': lambda: context_predictors.tree(depth),
                'boosting': context_predictors.boosting,
            }[by]()

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'InContextBaseline':
        """Returns the learner that the command line describes.

        Raises: ArgumentError in classification, or for labels of several numbers.
        """
        if problem.objective.classification or problem.output_dim != 1:
            reason = 'in_context_baseline is for functions with one number as their value'
            raise ArgumentError('datasource', flags.datasource, reason)
        return cls(
            problem.input_shape[-1],
            problem.objective,
            flags.in_context_baseline_by,
            flags.in_context_baseline_penalty,
            flags.in_context_baseline_depth,
            flags.seed,
        )

    @classmethod
    def check_flags(cls, flags: Any) -> None:
        """Raises UserError for a flag of another method than the chosen one, or an export of what
        runs in Python."""
        by = flags.in_context_baseline_by
        for name, of in (('penalty', 'lasso'), ('depth', 'tree')):
            flag = flags[f'in_context_baseline_{name}']
            if by != of and flag.value != flag.default:
                raise UserError(
                    f'--{flag.name}={flag.value}: only with --in_context_baseline_by={of}'
                )
        if by in FITTED and flags.export_dir:
            raise UserError(
                f'--export_dir={flags.export_dir}: {by} is fitted by scikit-learn, which '
                'TensorFlow cannot save'
            )

    @classmethod
    def tiny(cls) -> tuple['InContextBaseline', EpisodeSpec]:
        return cls(1, Regression()), EpisodeSpec(1, 5, 3)

    @property
    def example_shape(self) -> tuple[int, ...]:
        return (self.input_dim,)

    def adapt(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        steps: int | None = None,
        mask: tf.Tensor | None = None,
        key: tf.Tensor | None = None,
    ) -> State:
        """Returns the support set itself."""
        del steps, mask, key
        return {'support_x': support_x, 'support_y': support_y}

    def predict_query(self, state: State, query_x: tf.Tensor) -> tf.Tensor:
        lengths = tf.reshape(sizes(state['support_x'])[1], [1])
        return self._predict(Support(state['support_x'], state['support_y'], lengths), query_x)[
            :, 0
        ]

    def query_outputs(self, task: Task, steps: int | None = None) -> tf.Tensor:
        """Returns the predictions from 0, ..., k support points, [k + 1, tasks, query, out]."""
        lengths = tf.range(sizes(task.support_x)[1] + 1)
        outputs = self._predict(Support(task.support_x, task.support_y, lengths), task.query_x)
        return tf.transpose(outputs, [1, 0, 2, 3])

    def axis(self, entries: int) -> Axis:
        return Axis('context points', tuple(range(entries)))

    def phases(self, outer: OuterLoop) -> list[Phase]:
        """Returns a phase of one iteration that changes nothing."""
        iterations = min(outer.metatrain_iterations, 1)
        return [Phase('start', iterations, None, None, outer.spec, op=self._scored)]

    def _scored(self, task, step):
        del step
        return self.query_loss(task, self.query_outputs(task)[-1]).log

    def _by_network(self, support, query):
        """Trains a network for each task and length, all stacked as tasks."""
        tasks, points, _ = sizes(support.x)
        lengths = sizes(support.lengths)[0]
        # From no points nothing is trained, and 0 is predicted.
        mask = support._replace(lengths=tf.maximum(support.lengths, 1)).counting()
        mask = tf.reshape(tf.tile(mask[tf.newaxis], [tasks, 1, 1]), [tasks * lengths, points])
        x, y, wide = (tf.repeat(part, lengths, 0) for part in (*support[:2], query))
        weights = self._network.adapt(x, y, STEPS, mask)
        outputs = self._network.predict_query(weights, wide)
        outputs = tf.reshape(outputs, [tasks, lengths, *sizes(outputs)[1:]])
        some = support.lengths[:, tf.newaxis, tf.newaxis] > 0
        return tf.where(some, outputs, tf.zeros_like(outputs))


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_enum(
        'in_context_baseline_by',
        'least_squares',
        METHODS,
        'in_context_baseline: what is fitted to the support set; lasso, tree and boosting need '
        'scikit-learn',
    )
    flags.DEFINE_float(
        'in_context_baseline_penalty',
        PENALTY,
        'in_context_baseline: of the Lasso (the authors try 1, 0.1, 0.01, 0.001, 0.0001)',
        lower_bound=0,
    )
    flags.DEFINE_integer(
        'in_context_baseline_depth',
        None,
        'in_context_baseline: of the tree (default: until its leaves are pure)',
        lower_bound=1,
    )
