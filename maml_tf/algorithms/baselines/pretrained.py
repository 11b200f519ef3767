"""What baselines share that are pretrained to tell all training classes apart."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from maml_tf.algorithms.baselines.heads import Head, LinearHead
from maml_tf.algorithms.metric.metric_learner import MetricLearner, TrainingPass, check_flat
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import Batch, BatchSpec
from maml_tf.errors import ArgumentError, UserError
from maml_tf.networks.encoders import torch_default
from maml_tf.networks.image_encoders.by_name import ENCODER_FLAGS, encoder_of
from maml_tf.objectives.objective import Objective
from maml_tf.training.operations import metatrain_op
from maml_tf.training.phases import Loss, OuterLoop, Phase, Update

CLASSIFIER = 'classifier'
# Flags that say how training tasks differ from those of evaluation.
OF_TRAINING_TASKS = (
    *('train_num_classes', 'train_update_batch_size', 'train_query', 'train_way_from'),
    *('train_shot_from', 'leave_to_query'),
)
_ODD = 0x9E3779B97F4A7C1  # mixes a sum into 64 bits
TINY_CLASSES = 16  # Those of the checks' source.


class Pretrained(MetricLearner):
    """An encoder, trained with a classifier over all training classes by plain labelled batches.

    Training minimises the mean cross-entropy of a batch; no task is drawn. Each rotation that makes
    a class of its own (Omniglot) is one here. What becomes of the encoder in a task is the
    subclass's; the classifier plays no part there. Batch norm takes the statistics of the batch
    and moves its running averages; in tasks it uses these, unless `transductive`. On several
    devices batch norm sees a device's part of the batch, and what random layers draw is decided by
    that part: there they do not learn to the digit what one device learns.

    Args:
      encoder: a keras.Model, images [n, ...] -> features [n, features].
      objective, transductive: see MetricLearner.
      classes: how many there are to train on.
      batch_size: examples of a batch.
    Raises: ArgumentError for features that are not flat, and for numbers that are not positive.
    """

    own_encoder = 'conv4'
    heeds = (*MetricLearner.heeds, *ENCODER_FLAGS)
    head: Head = LinearHead()

    def __init__(
        self,
        encoder: keras.Model,
        objective: Objective,
        classes: int,
        batch_size: int = 16,
        transductive: bool = False,
        **kwargs,
    ):
        super().__init__(encoder, objective, transductive, **kwargs)
        check_flat(encoder)
        for argument, value in (('classes', classes), ('batch_size', batch_size)):
            if value < 1:
                raise ArgumentError(argument, value, 'at least 1')
        self.batch_size, self.features = batch_size, encoder.output_shape[-1]
        drawn = torch_default(self.features)((self.features, classes), self.variable_dtype)
        numbers = tf.concat([drawn, tf.zeros([1, classes], drawn.dtype)], 0)  # no bias yet
        self.classifier = {
            name: self.add_weight(
                name=f'{CLASSIFIER}_{name}',
                shape=value.shape,
                initializer=self.starting_from(value),
            )
            for name, value in self.head.weights(numbers).items()
        }

    @classmethod
    def arguments_of(cls, flags, problem: Problem) -> dict[str, Any]:
        """Returns the constructor arguments that relatives share, from the command line.

        Raises: ArgumentError in regression.
        """
        objective = cls.objective_of(flags, problem)
        return {
            'encoder': encoder_of(flags, problem.input_shape, cls.own_encoder),
            'objective': objective,
            # Without the data nobody knows them; such a learner is looked at, not trained.
            'classes': problem.training_classes or problem.training.way,
            'batch_size': flags[f'{flags.algorithm}_batch'].value,
            'transductive': bool(flags.transductive),
        }

    @classmethod
    def objective_of(cls, flags, problem: Problem) -> Objective:
        """Returns the mean cross-entropy. Raises ArgumentError in regression."""
        if not problem.objective.classification:
            reason = f'{flags.algorithm} is trained to tell classes apart; this is regression'
            raise ArgumentError('datasource', flags.datasource, reason)
        return problem.objective.averaged()

    @classmethod
    def check_flags(cls, flags: Any) -> None:
        check_no_training_tasks(flags)

    def acts_in_tasks(self, name: str) -> bool:
        return not name.startswith(CLASSIFIER)

    def meta_loss(self, batch: Batch, step: tf.Tensor) -> Loss:
        """Returns the cross-entropy of a plain labelled batch, over all training classes."""
        # A batch has no key; what random layers draw is decided by its pixels and the iteration.
        bits = tf.bitcast(tf.cast(batch.x, tf.float32), tf.int32)
        number = tf.reduce_sum(tf.cast(bits, tf.int64)) * _ODD + tf.cast(step, tf.int64)
        key = tf.bitcast(number, tf.uint32)[tf.newaxis]
        training = TrainingPass(self, key, step)
        features = self.embed(batch.x[tf.newaxis], training=training)
        weights = {name: tf.convert_to_tensor(w) for name, w in self.classifier.items()}
        outputs = self.head.outputs(features, weights)
        loss, log = self.loss_and_log('post', batch.y[tf.newaxis], outputs, 1)
        return Loss(loss, log, training.state())

    def phases(self, outer: OuterLoop) -> list[Phase]:
        """Returns one phase, on plain batches."""
        return [pretraining(self.meta_gradients, self.batch_size, outer)]

    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Takes an iteration of pretraining; returns the means over the epoch so far.

        For `fit` on source.dataset(BatchSpec(size), 1).
        """
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise ValueError('fit: runs on one device; on several: maml_tf.training.distribution')
        step = tf.cast(self.optimizer.iterations.value, tf.int64)
        op = metatrain_op(self, self.optimizer, self.own_weight_decay)
        return self._mean(op(batch, step))


def tiny_encoder() -> keras.Model:
    """Makes a network of two layers for 16x16 images, for checks that take no time.

    It has no batch norm: so the gradient of a batch is the mean of its examples'.
    """
    layers = [
        keras.Input((16, 16, 1)),
        keras.layers.Conv2D(8, 4, strides=4, activation='relu', name='conv'),
        keras.layers.Flatten(),
        keras.layers.Dense(32, activation='relu', name='dense'),
    ]
    return keras.Sequential(layers, name='encoder')


def pretraining(
    gradients: Callable[[Any, tf.Tensor], Update], batch_size: int, outer: OuterLoop
) -> Phase:
    """Returns the phase that takes steps by such `gradients` of plain batches of `batch_size`."""
    return Phase(
        'pretrain',
        outer.metatrain_iterations,
        gradients,
        outer.optimizer(),
        BatchSpec(batch_size),
        weight_decay=outer.weight_decay,
    )


def check_no_training_tasks(flags: Any) -> None:
    """Raises UserError for a flag of the training tasks: a method has none."""
    for name in ('meta_batch_size', *OF_TRAINING_TASKS):
        if flags[name].value != flags[name].default:
            raise UserError(
                f'--{name}={flags[name].value}: means nothing to '
                f'--algorithm={flags.algorithm}, which trains on batches of '
                f'--{flags.algorithm}_batch examples'
            )


def define_batch_flag(flags, method: str, default: int) -> None:
    """Defines the flag of the size of a batch."""
    flags.DEFINE_integer(
        f'{method}_batch', default, f'{method}: examples of a batch of pretraining', lower_bound=1
    )
