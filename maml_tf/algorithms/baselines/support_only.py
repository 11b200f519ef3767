"""A classifier of each task's support set alone: what learning from other tasks has to beat."""

from typing import Any, Literal

import numpy as np
import tensorflow as tf

from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import ArgumentError, UserError, check_one_of
from maml_tf.learner import Learner, State
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.objective import Objective
from maml_tf.ops.masking import NEVER
from maml_tf.ops.shapes import sizes
from maml_tf.training.phases import OuterLoop, Phase

METHODS = ('forest', 'similarity')
TREES = 100
LEAST = 1e-6  # probability, whose logarithm is an output


class SupportOnly(Learner):
    """Fits a random forest to each task's support set; nothing is learnt from other tasks.

    It is meant for the fingerprints of molecules. A forest is scikit-learn's, with its defaults,
    and draws by the task's key, so that a task has one answer. Outputs are the logarithms of its
    probabilities. Inputs are flattened. All this is our choice: published figures of such forests
    may have other settings.

    'similarity' is our choice of a simpler one: the output of a class is the largest similarity of
    Tanimoto, <a, b> / (|a|^2 + |b|^2 - <a, b>), to one of its support examples. It needs no
    scikit-learn.

    Nothing is trained: the one iteration of its training, which scores a meta-batch, is there to
    write a checkpoint.

    Args:
      input_shape: of one example.
      by: 'forest' or 'similarity'.
      trees: of a forest.
    Raises: ArgumentError for another method; UserError where scikit-learn is missing.
    """

    heeds = ()
    takes_masks = True  # An example that does not count has a label of zeros.

    def __init__(
        self,
        input_shape: tuple[int, ...],
        objective: Objective,
        by: Literal['forest', 'similarity'] = 'forest',
        trees: int = TREES,
        **kwargs,
    ):
        super().__init__(objective, **kwargs)
        check_one_of('by', by, METHODS)
        self._example_shape, self.by, self.trees = tuple(input_shape), by, trees
        self._forest = _forests() if by == 'forest' else None
        self.xla = by != 'forest'  # Which runs in Python.
        self.ordered = by == 'forest'  # In which order it draws examples.

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'SupportOnly':
        """Returns the learner that the command line describes.

        Raises: ArgumentError in regression.
        """
        if not problem.objective.classification:
            reason = 'support_only tells classes apart; this source is regression'
            raise ArgumentError('datasource', flags.datasource, reason)
        return cls(
            problem.input_shape,
            problem.objective.averaged(),
            flags.support_only_by,
            flags.support_only_trees,
        )

    @classmethod
    def check_flags(cls, flags: Any) -> None:
        """Raises UserError for a flag of another method than the chosen one, a graph, whose rows
        have no fixed places, or an export of what runs in Python."""
        by, trees = flags.support_only_by, flags['support_only_trees']
        if by != 'forest' and trees.value != trees.default:
            raise UserError(
                f'--support_only_trees={trees.value}: only with --support_only_by=forest'
            )
        if flags.featurise == 'graph':
            raise UserError(
                '--featurise=graph: support_only compares entry by entry, so it takes fingerprints'
            )
        if by == 'forest' and flags.export_dir:
            raise UserError(
                f'--export_dir={flags.export_dir}: a forest is of scikit-learn, which TensorFlow '
                'cannot save; --support_only_by=similarity can be exported'
            )

    @classmethod
    def tiny(cls) -> tuple['SupportOnly', EpisodeSpec]:
        learner = cls((4, 4, 1), MeanClassification(), 'similarity')
        return learner, EpisodeSpec(way=3, shot=2, query=2)

    @property
    def example_shape(self) -> tuple[int, ...]:
        return self._example_shape

    def adapt(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        steps: int | None = None,
        mask: tf.Tensor | None = None,
        key: tf.Tensor | None = None,
    ) -> State:
        """Returns the support set itself, and of a forest 'key', the bits that it draws by."""
        del steps, mask
        state = {'support_x': _flat(support_x), 'support_y': support_y}
        if self.by == 'forest':
            none = tf.zeros([sizes(support_x)[0], 2], tf.uint32)
            state['key'] = none if key is None else key
        return state

    def predict_query(self, state: State, query_x: tf.Tensor) -> tf.Tensor:
        support, labels, query = state['support_x'], state['support_y'], _flat(query_x)
        if self.by == 'similarity':
            alike = _tanimoto(query, support)[..., tf.newaxis]
            return tf.reduce_max(tf.where(labels[:, tf.newaxis] > 0, alike, NEVER), 2)
        outputs = tf.numpy_function(
            self._fit, [support, labels, query, state['key']], query.dtype, stateful=False
        )
        outputs.set_shape([query.shape[0], query.shape[1], labels.shape[2]])
        return outputs

    def _fit(self, support, labels, query, key):
        """Fits a forest to each task, one after the other."""
        outputs = np.full([*query.shape[:2], labels.shape[2]], np.log(LEAST), query.dtype)
        for task in range(len(support)):
            there = labels[task].max(-1) > 0
            seed = int(key[task, 0])
            forest = self._forest(self.trees, random_state=seed)
            forest.fit(support[task, there], labels[task, there].argmax(-1))
            shares = np.log(np.maximum(forest.predict_proba(query[task]), LEAST))
            outputs[task][:, forest.classes_] = shares
        return outputs

    def phases(self, outer: OuterLoop) -> list[Phase]:
        """Returns a phase of one iteration that changes nothing."""
        iterations = min(outer.metatrain_iterations, 1)
        return [Phase('start', iterations, None, None, outer.spec, op=self._scored)]

    def _scored(self, task: Task, step: tf.Tensor) -> dict[str, tf.Tensor]:
        del step
        return self.query_loss(task, self.query_outputs(task)[-1]).log


def _flat(x):
    tasks, n, *_ = sizes(x)
    return tf.reshape(x, [tasks, n, np.prod(x.shape[2:], dtype=int)])


def _tanimoto(query, support):
    """Returns the similarities [tasks, query, support]; 1 of two examples that hold nothing."""
    products = tf.matmul(query, support, transpose_b=True)
    squares = lambda x: tf.reduce_sum(tf.square(x), -1)
    unions = squares(query)[..., tf.newaxis] + squares(support)[:, tf.newaxis] - products
    return tf.where(unions > 0, products / tf.where(unions > 0, unions, 1), 1)


def _forests():
    try:
        from sklearn.ensemble import RandomForestClassifier
    except ImportError as error:
        raise UserError(
            f"scikit-learn is missing ({error}): pip install 'maml_tf[scikit-learn]'"
        ) from None
    return RandomForestClassifier


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_enum(
        'support_only_by',
        'forest',
        METHODS,
        'support_only: a random forest of scikit-learn, or the largest similarity of Tanimoto',
    )
    flags.DEFINE_integer(
        'support_only_trees', TREES, 'support_only: trees of a forest', lower_bound=1
    )
