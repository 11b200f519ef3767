"""Fine-tuning of a pretrained segmenter, what `fine_tuning` is where every pixel has a class.

A reconstruction: Russwurm et al. 2020 (arXiv 2004.13390) compare MAML with a pretrained and
fine-tuned network; that the head starts from zero, the rate and the number of updates are ours.
"""

from typing import Any, Literal

import numpy as np
import tensorflow as tf

from maml_tf.algorithms.baselines.pretrained import check_no_training_tasks, pretraining
from maml_tf.algorithms.baselines.rules import DecayingRate
from maml_tf.algorithms.optimisation.gradient_learner import GradientLearner
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import Batch
from maml_tf.errors import ArgumentError, UserError, check_one_of
from maml_tf.networks.unet import UNet
from maml_tf.objectives.objective import Objective
from maml_tf.training.phases import Loss, OuterLoop, Phase

LAYERS = ('all', 'last')
RATE = 0.1
CLASSIFIER = 'classifier'


class PixelFineTuning(GradientLearner):
    """Pretrains a segmenter on all classes; in each task it gives it a new head and trains it.

    Pretraining minimises the mean cross-entropy of all labelled pixels of plain batches. In a task
    the head of all classes is replaced by one of the task's, which starts from zero, and head and
    body are trained by gradient descent on the whole support set: w <- w - rate / (1 + decay t) g.
    Batch norm takes the statistics of the examples at hand, as in GradientLearner. Several devices
    divide a batch: each takes the statistics of its part, and the mean over the part's labelled
    pixels.

    Args: GradientLearner's network (a UNet), objective, seed, transductive and tasks_at_once, and
      classes: how many there are to train on.
      batch_size: tiles of a batch.
      layers: which are trained in a task, 'all' or the 'last', the new head.
      updates, rate, decay: of the updates.
    Raises: ArgumentError for a value that is none of the choices, or not positive.
    """

    def __init__(
        self,
        network: UNet,
        objective: Objective,
        classes: int,
        batch_size: int = 16,
        layers: Literal['all', 'last'] = 'all',
        updates: int = 15,
        rate: float = RATE,
        decay: float = 0.0,
        seed: int = 0,
        transductive: bool = True,
        tasks_at_once: int | None = None,
        **kwargs: Any,
    ):
        check_one_of('layers', layers, LAYERS)
        for argument, value in (
            *(('classes', classes), ('batch_size', batch_size), ('updates', updates)),
        ):
            if value < 1:
                raise ArgumentError(argument, value, 'at least 1')
        self.trained_layers = layers  # Keras has `layers`.
        super().__init__(
            network,
            objective,
            rate,
            inner_steps=updates,
            evaluation_steps=updates,
            seed=seed,
            transductive=transductive,
            tasks_at_once=tasks_at_once,
            **kwargs,
        )
        self.batch_size = batch_size
        self.update_rule = self.evaluation_rule = DecayingRate(rate, decay)
        self.classifier = [
            self.add_weight(name=f'{CLASSIFIER}_{kind}', shape=shape, initializer=start)
            for kind, shape, start in (
                ('w', (network.filters, classes), 'glorot_uniform'),
                ('b', (classes,), 'zeros'),
            )
        ]

    @classmethod
    def of_flags(cls, flags: Any, problem: Problem) -> 'PixelFineTuning':
        """Returns the learner that a command line with --algorithm=fine_tuning describes."""
        rate = RATE if flags.fine_tuning_rate is None else flags.fine_tuning_rate
        return cls(
            problem.network(scale=flags.norm == 'batch_norm'),
            problem.objective,
            # Without the data nobody knows them; such a learner is looked at, not trained.
            classes=problem.training_classes or problem.training.way,
            batch_size=flags.fine_tuning_batch,
            layers=flags.fine_tuning_layers,
            updates=flags.fine_tuning_updates,
            rate=rate,
            decay=flags.fine_tuning_decay or 0.0,
            seed=flags.seed,
            transductive=flags.transductive is not False,
        )

    @classmethod
    def check_flags(cls, flags: Any) -> None:
        """Raises UserError for flags of training tasks, and of a rate chosen on validation tasks.

        Neither is there: a rate that is not given is RATE.
        """
        check_no_training_tasks(flags)
        choice = flags['fine_tuning_choice_iterations']
        if choice.value != choice.default:
            raise UserError(
                f'--fine_tuning_choice_iterations={choice.value}: of pixels no rate is chosen; '
                f'give --fine_tuning_rate (default {RATE})'
            )

    def starting_weights(self, seed: int) -> dict[str, np.ndarray]:
        """Returns the network's initial weights, zeros for the head."""
        weights = super().starting_weights(seed)
        return {
            name: np.zeros_like(w) if self.network.is_head(name) else w
            for name, w in weights.items()
        }

    def learns(self, name: str) -> bool:
        """Says that pretraining changes all but a task's head."""
        return not self.network.is_head(name)

    def adapts(self, name: str) -> bool:
        """Says that a task trains every weight, those of normalisations too, or its head alone."""
        return self.trained_layers == 'all' or self.network.is_head(name)

    def acts_in_tasks(self, name: str) -> bool:
        return not name.startswith(CLASSIFIER)

    def meta_loss(self, batch: Batch, step: tf.Tensor) -> Loss:
        """Returns the cross-entropy of a plain batch of tiles, over all classes."""
        del step
        weights = {name: tf.convert_to_tensor(w) for name, w in self.meta_weights.items()}
        kernel, bias = (tf.convert_to_tensor(w) for w in self.classifier)
        features = self.network.features(batch.x[tf.newaxis], weights)
        outputs = self.network.head(features, kernel, bias)
        return Loss(*self.loss_and_log('post', batch.y[tf.newaxis], outputs, 1), {})

    def phases(self, outer: OuterLoop) -> list[Phase]:
        """Returns one phase, on plain batches."""
        return [pretraining(self.meta_gradients, self.batch_size, outer)]
