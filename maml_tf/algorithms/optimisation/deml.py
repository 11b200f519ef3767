"""DEML, deep meta-learning in a concept space (Zhou, Wu, Li 2018, arXiv 1802.03596).

A reconstruction: no official code was found, and this was written from a summary of the paper, not
beside it. The paper's are the three modules, the objective below, the ResNet-50, and that only the
meta-learner adapts in a task. Ours are lambda = 1, the size of a batch of external images, one
linear layer as the discriminator, mean cross-entropies, and what the meta-learner is: of MAML and
Meta-SGD a network with one hidden layer of 64 units, of matching the attention by cosine similarity
of the concepts themselves.
"""

from typing import Any

import keras
import tensorflow as tf

from maml_tf.algorithms.metric.metric_learner import MetricLearner, TrainingPass, check_flat
from maml_tf.algorithms.optimisation.concept_learners import (
    HIDDEN,
    META_LEARNERS,
    check_takes,
    concept_network,
    meta_learner_of,
)
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec, Task, TaskAndBatch, TaskAndBatchSpec
from maml_tf.errors import ArgumentError, UserError
from maml_tf.learner import Learner, State
from maml_tf.networks.encoders import conv4, torch_default
from maml_tf.networks.image_encoders.by_name import ENCODER_FLAGS, encoder_of
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.metric import Axis
from maml_tf.training.phases import Loss, OuterLoop, Phase

DISCRIMINATOR = 'discriminator'
WEIGHT, BATCH = 1.0, 32
OF_EXTERNAL = ('external', 'external_dir', 'external_labels', 'deml_batch')
OF_GRADIENT_STEPS = ('update_lr', 'num_updates', 'test_num_updates', 'stop_grad', 'deml_hidden')
TINY_CLASSES = 16  # Those of the checks' source.


class DEML(MetricLearner):
    """A concept generator G, a discriminator D of external images and a meta-learner M, trained
    together: min over G, D, M of
    mean over tasks of L_query(M; G(x)) + lambda * mean over external (x, y) of CE(D(G(x)), y).

    M is any learner whose inputs are concepts, G's features. In a task it alone adapts; G is fixed,
    and D plays no part. Each task comes with external images of its own (`TaskAndBatch`), so an
    update is a mean over tasks. The gradient passes through M's inner steps to G, on the way of the
    support set too. Batch norm of G takes the statistics of a task's images, and apart from them
    those of the external images beside it; both move the running averages, which tasks are
    evaluated by unless `transductive`.

    Args:
      encoder: G, a keras.Model: images [n, ...] -> concepts [n, features].
      meta_learner: M; its objective is this learner's.
      classes: labels that D tells apart; None: there is no D, with `weight` 0.
      weight: lambda. With 0 no external image is drawn, and M is learnt on G alone.
      batch_size: external images beside each task.
      transductive: see MetricLearner.
    Raises: ArgumentError for features that are not flat, a meta-learner of other inputs or one that
      a gradient to its inputs does not pass, and numbers that make no sense.
    """

    own_encoder = 'resnet50'
    fixed_way = True  # Of matching it is not: an instance says so.
    heeds = (
        *MetricLearner.heeds,
        *ENCODER_FLAGS,
        *('update_lr', 'num_updates', 'test_num_updates', 'stop_grad'),
        *OF_EXTERNAL[:3],
    )

    def __init__(
        self,
        encoder: keras.Model,
        meta_learner: Learner,
        classes: int | None = None,
        weight: float = WEIGHT,
        batch_size: int = BATCH,
        transductive: bool = False,
        **kwargs,
    ):
        super().__init__(encoder, meta_learner.objective, transductive, **kwargs)
        check_flat(encoder)
        features = encoder.output_shape[-1]
        check_takes(meta_learner, features)
        if not 0 <= weight < float('inf'):
            raise ArgumentError('weight', weight, 'a finite number from 0')
        if bool(weight) != (classes is not None):
            reason = 'how many labels the discriminator tells apart; None with weight=0'
            raise ArgumentError('classes', classes, reason)
        for argument, value in (('classes', classes), ('batch_size', batch_size)):
            if value is not None and value < 1:
                raise ArgumentError(argument, value, 'at least 1')
        self.meta_learner, self.weight, self.batch_size = meta_learner, weight, batch_size
        self.fixed_way, self.takes_masks = meta_learner.fixed_way, meta_learner.takes_masks
        self.ordered, self.inner_steps = meta_learner.ordered, meta_learner.inner_steps
        self.inner_lr, self.evaluation_lr = meta_learner.inner_lr, meta_learner.evaluation_lr
        self.evaluation_steps = meta_learner.evaluation_steps
        self.discriminator = [
            self.add_weight(
                name=f'{DISCRIMINATOR}_{name}', shape=shape, initializer=torch_default(features)
            )
            for name, shape in (('kernel', (features, classes)), ('bias', (classes,)))
            if classes
        ]

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'DEML':
        """Returns the learner that the command line describes. Raises UserError in regression."""
        objective = cls.objective_of(flags, problem)
        encoder = encoder_of(flags, problem.input_shape, cls.own_encoder)
        # Without the data nobody knows how many; such a learner is looked at, not trained.
        classes = problem.external_classes or problem.training.way
        return cls(
            encoder,
            meta_learner_of(flags, problem, encoder.output_shape[-1], objective),
            classes if flags.deml_weight else None,
            flags.deml_weight,
            flags.deml_batch,
            bool(flags.transductive),
        )

    @classmethod
    def check_flags(cls, flags: Any) -> None:
        def refuse(names, reason):
            for name in names:
                if flags[name].value != flags[name].default:
                    raise UserError(f'--{name}={flags[name].value}: means nothing with {reason}')

        if not flags.deml_weight:
            refuse(OF_EXTERNAL, '--deml_weight=0, where nothing external is learnt')
        elif flags.external is None:
            raise UserError(
                '--external: --algorithm=deml learns concepts of labelled images beside its tasks; '
                'name their data source, which may be --datasource itself, or leave the concepts '
                'out by --deml_weight=0'
            )
        if flags.deml_learner == 'matching':
            refuse(OF_GRADIENT_STEPS, '--deml_learner=matching, which takes no gradient step')

    @classmethod
    def tiny(cls) -> tuple['DEML', EpisodeSpec]:
        spec = EpisodeSpec(way=3, shot=2, query=2)
        encoder = conv4((16, 16, 1), 8)
        network = concept_network(encoder.output_shape[-1], spec.way, 16)
        meta_learner = MAML(network, MeanClassification(), inner_lr=0.5, inner_steps=2)
        return cls(encoder, meta_learner, TINY_CLASSES, batch_size=6), spec

    # What a task becomes: the meta-learner's task of concepts.

    def adapt(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        steps: int | None = None,
        mask: tf.Tensor | None = None,
        key: tf.Tensor | None = None,
    ) -> State:
        """Returns what the meta-learner's `adapt` does on the concepts of the support set."""
        return self.meta_learner.adapt(self.embed(support_x, mask), support_y, steps, mask, key)

    def predict_query(self, state: State, query_x: tf.Tensor) -> tf.Tensor:
        return self.meta_learner.predict_query(state, self.embed(query_x))

    def query_outputs(self, task: Task, steps: int | None = None) -> tf.Tensor:
        concepts = task._replace(
            support_x=self.embed(task.support_x, task.support_mask),
            query_x=self.embed(task.query_x, task.query_mask),
        )
        return self.meta_learner.query_outputs(concepts, steps)

    def axis(self, entries: int) -> Axis:
        return self.meta_learner.axis(entries)

    def acts_in_tasks(self, name: str) -> bool:
        return not name.startswith(DISCRIMINATOR)

    # What training does.

    def meta_loss(self, drawn: TaskAndBatch | Task, step: tf.Tensor) -> Loss:
        """Returns the joint loss; logs what the meta-learner logs, and `external_...`.

        drawn: a TaskAndBatch; with `weight` 0 a Task.
        """
        if isinstance(drawn, TaskAndBatch) != bool(self.weight):
            reason = 'draw by a TaskAndBatchSpec, or with weight=0 by an EpisodeSpec'
            raise ArgumentError('drawn', type(drawn).__name__, reason)
        task = drawn.task if self.weight else drawn
        training = TrainingPass(self, task.key, step)
        loss = self.meta_learner.meta_loss(self._concepts(task, training), step)
        if not self.weight:
            return Loss(loss.value, loss.log, training.state())
        features = self.embed(drawn.batch.x, training=training)
        kernel, bias = (tf.convert_to_tensor(weight) for weight in self.discriminator)
        logits, labels = tf.matmul(features, kernel) + bias, drawn.batch.y
        mean = MeanClassification()
        external = tf.reduce_mean(mean.loss(labels, logits, 1))
        log = {
            'external_loss': external,
            'external_accuracy': tf.reduce_mean(mean.score(labels, logits, 1)),
        }
        return Loss(loss.value + self.weight * external, loss.log | log, training.state())

    def phases(self, outer: OuterLoop) -> list[Phase]:
        """Returns one phase, on tasks with external images beside them."""
        draws = TaskAndBatchSpec(outer.spec, self.batch_size) if self.weight else outer.spec
        return [
            Phase(
                'metatrain',
                outer.metatrain_iterations,
                self.meta_gradients,
                outer.optimizer(),
                draws,
                weight_decay=outer.weight_decay,
            )
        ]

    def _concepts(self, task, training):
        """The same task, of concepts; support and query images pass through G together."""
        mask = None
        if task.support_mask is not None:
            mask = tf.concat([task.support_mask, task.query_mask], 1)
        images = tf.concat([task.support_x, task.query_x], 1)
        concepts, supports = self.embed(images, mask, training), task.support_x.shape[1]
        return task._replace(support_x=concepts[:, :supports], query_x=concepts[:, supports:])


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_enum(
        'deml_learner', 'maml', META_LEARNERS, 'deml: what learns a task from its concepts'
    )
    flags.DEFINE_float(
        'deml_weight',
        WEIGHT,
        'deml: lambda, of the external loss; 0: no external images',
        lower_bound=0,
    )
    flags.DEFINE_integer(
        'deml_batch', BATCH, 'deml: external images beside each task', lower_bound=1
    )
    flags.DEFINE_integer(
        'deml_hidden',
        HIDDEN,
        "deml: hidden units of maml's and meta_sgd's network on concepts; 0: a linear one",
        lower_bound=0,
    )
