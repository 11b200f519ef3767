"""Fine-tuning of a pretrained network (baseline of Ravi and Larochelle, ICLR 2017)."""

import dataclasses
import itertools
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from maml_tf.algorithms.baselines.heads import new_weights
from maml_tf.algorithms.baselines.pixel_fine_tuning import PixelFineTuning
from maml_tf.algorithms.baselines.pretrained import (
    TINY_CLASSES,
    Pretrained,
    define_batch_flag,
    tiny_encoder,
)
from maml_tf.algorithms.baselines.rules import DecayingRate
from maml_tf.algorithms.baselines.tuning import TunedEncoder, tune
from maml_tf.algorithms.metric.metric_learner import of_absent_classes
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import Batch, EpisodeSpec, Task
from maml_tf.errors import ArgumentError, UserError, check_one_of
from maml_tf.learner import Learner, State
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.objective import Objective
from maml_tf.objectives.pixels import Segmentation
from maml_tf.ops.masking import NEVER
from maml_tf.training.phases import Loss, OuterLoop, Phase

LAYERS = ('all', 'last')
UPDATES = 15
# The authors' grid.
RATES = (0.5, 0.1, 0.01, 1e-3, 1e-4, 1e-5)
DECAYS = (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 0.0)
GRID = tuple(itertools.product(RATES, DECAYS))
# Until a choice is made.
START = (0.01, 0.0)
CHOICE = 'choice_'


class FineTuning(Pretrained):
    """Pretrains a network; in each task it gives it a new last layer and trains it by SGD.

    An update is on the whole support set: w <- w - rate / (1 + decay t) g, for t = 0, 1, ... Rate
    and decay are the pair of the authors' grid that does best on validation tasks: once pretraining
    is over, a phase of its own tries all pairs. The choice is kept with the weights; it is made for
    the shots and ways of training. The checkpoint that is best in validation is from before it.

    Batch norm uses the running averages of pretraining all along, also in the updates, unless
    `transductive`; its scales and offsets are trained with the rest.

    Args:
      encoder, objective, classes, batch_size, transductive: see Pretrained.
      layers: which are trained in a task, 'all' or the 'last', the new one.
      updates: how many.
      rate, decay: of the updates; rate None: both are chosen on validation tasks.
      choice_iterations: so many iterations, the last ones, choose, each by a meta-batch of
        validation tasks.
    Raises: ArgumentError for a value that is not among the choices, and a decay without a rate.
    """

    takes_masks = True

    def __init__(
        self,
        encoder: keras.Model,
        objective: Objective,
        classes: int,
        batch_size: int = 64,
        transductive: bool = False,
        layers: Literal['all', 'last'] = 'all',
        updates: int = UPDATES,
        rate: float | None = None,
        decay: float | None = None,
        choice_iterations: int = 4,
        **kwargs,
    ):
        super().__init__(encoder, objective, classes, batch_size, transductive, **kwargs)
        check_one_of('layers', layers, LAYERS)
        if updates < 0:
            raise ArgumentError('updates', updates, 'at least 0')
        if decay is not None and rate is None:
            raise ArgumentError('decay', decay, 'only with a rate; else both are chosen')
        self.trained_layers = layers  # Keras has `layers`.
        self.updates, self.choice_iterations = updates, choice_iterations
        self.given = None if rate is None else (rate, decay or 0.0)
        self.scheduled = self.given is None  # The choice comes at the end.
        # The summed scores of each pair, and the pair that is best by them.
        start = {'scores': np.zeros(len(GRID)), 'rate': np.array(START[0])}
        start |= {'decay': np.array(START[1])}
        if self.given is not None:
            start = {}
        self.choice = {name: self.add_state(CHOICE + name, value) for name, value in start.items()}

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'FineTuning | PixelFineTuning':
        """Returns the learner that the command line describes, of pixels a PixelFineTuning.

        Raises: UserError in regression.
        """
        if cls.for_objective(problem.objective) is PixelFineTuning:
            return PixelFineTuning.of_flags(flags, problem)
        return cls(
            **cls.arguments_of(flags, problem),
            layers=flags.fine_tuning_layers,
            updates=flags.fine_tuning_updates,
            rate=flags.fine_tuning_rate,
            decay=flags.fine_tuning_decay,
            choice_iterations=flags.fine_tuning_choice_iterations,
        )

    @classmethod
    def for_objective(cls, objective: Objective) -> type[Learner]:
        return PixelFineTuning if isinstance(objective, Segmentation) else cls

    @classmethod
    def check_flags(cls, flags: Any) -> None:
        """Raises UserError for a decay without a rate, and a choice without validation classes."""
        if flags.fine_tuning_rate is None and flags.fine_tuning_decay is not None:
            raise UserError(
                f'--fine_tuning_decay={flags.fine_tuning_decay}: only with --fine_tuning_rate; '
                'else both are chosen'
            )
        if flags.fine_tuning_rate is not None:
            super().check_flags(flags)
            return
        if flags.ensemble > 1:
            raise UserError(
                f'--ensemble={flags.ensemble}: its checkpoints are from before the choice of a '
                'rate; give --fine_tuning_rate and --fine_tuning_decay'
            )
        if flags.train_on == 'trainval':
            raise UserError(
                '--train_on=trainval: leaves no validation classes to choose a rate by; give '
                '--fine_tuning_rate and --fine_tuning_decay'
            )

    @classmethod
    def tiny(cls) -> tuple['FineTuning', EpisodeSpec]:
        learner = cls(tiny_encoder(), MeanClassification(), TINY_CLASSES, updates=5, rate=0.05)
        return learner, EpisodeSpec(way=3, shot=2, query=2)

    def check_ready(self) -> None:
        """Raises UserError where the rate is not chosen yet."""
        if self.given is None and not np.any(self.choice['scores']):
            raise UserError(
                'fine_tuning: these weights are from before the last iterations, which choose the '
                'rate; train on, or give --fine_tuning_rate and --fine_tuning_decay'
            )

    # What training does.

    def meta_loss(self, batch: Batch, step: tf.Tensor) -> Loss:
        loss = super().meta_loss(batch, step)
        # Pretraining moves running averages alone, not the choice.
        state = {name: v for name, v in loss.state.items() if not name.startswith(CHOICE)}
        return loss._replace(state=state)

    def phases(self, outer: OuterLoop) -> list[Phase]:
        """Returns pretraining and, where no rate is given, the choice on validation tasks."""
        (pretraining,) = super().phases(outer)
        if self.given is not None:
            return [pretraining]
        last = min(self.choice_iterations, outer.metatrain_iterations)
        first = outer.metatrain_iterations - last
        choice = Phase(
            'choice', last, None, None, outer.spec, self.choose, title='Choice', split='val'
        )
        return [dataclasses.replace(pretraining, iterations=first), choice]

    def choose(self, task: Task, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """Scores all pairs of the grid on some tasks, and takes the best of all tasks so far.

        step: 0 forgets the tasks before. Returns the log: the mean score of the best pair.
        """
        dtype = self.choice['scores'].dtype
        shots = self.shots(task)

        def score(pair):
            outputs = self._outputs(task, pair[0], pair[1])
            scores = self.objective.score(task.query_y, outputs, shots, task.query_mask)
            return tf.cast(tf.reduce_mean(scores), dtype)

        grid = tf.constant(GRID, dtype)
        scores = tf.map_fn(score, grid, parallel_iterations=1)
        before = tf.convert_to_tensor(self.choice['scores'])
        total = scores + tf.where(tf.equal(step, 0), tf.zeros_like(before), before)
        best = tf.argmax(total)
        rate, decay = tf.unstack(grid[best])
        for name, value in {'scores': total, 'rate': rate, 'decay': decay}.items():
            self.choice[name].assign(value)
        return {f'post_{self.metric.name}': total[best] / (tf.cast(step, dtype) + 1)}

    # What a task becomes.

    def adapt(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        steps: int | None = None,
        mask: tf.Tensor | None = None,
        key: tf.Tensor | None = None,
    ) -> State:
        """Returns {'absent': [tasks, 1, way]}, the new layer's weights and, unless it alone is
        trained, the encoder's, {name: [tasks, ...]}; `steps` is not needed."""
        del steps
        pair = self.given or (self.choice['rate'].value, self.choice['decay'].value)
        return self._adapted(support_x, support_y, mask, key, *pair)

    def predict_query(self, state: State, query_x: tf.Tensor) -> tf.Tensor:
        return self._predicted(state, query_x, None)

    def query_outputs(self, task: Task, steps: int | None = None) -> tf.Tensor:
        state = self.adapt(task.support_x, task.support_y, steps, task.support_mask, task.key)
        return self._predicted(state, task.query_x, task.query_mask)[tf.newaxis]

    def _outputs(self, task, rate, decay):
        state = self._adapted(
            task.support_x, task.support_y, task.support_mask, task.key, rate, decay
        )
        return self._predicted(state, task.query_x, task.query_mask)

    def _adapted(self, x, y, mask, key, rate, decay):
        absent, rule = of_absent_classes(y, NEVER), DecayingRate(rate, decay)
        head = new_weights(self.head, self.features, y, key)
        if self.trained_layers == 'last':
            features = self.embed(x, mask)
            tuned = tune(self.head, head, lambda _: features, y, absent, rule, self.updates)
        else:
            encoder = TunedEncoder(self.encoder, self.transductive)
            tuned = encoder.tune(self.head, head, x, mask, y, absent, rule, self.updates)
        return tuned | {'absent': absent}

    def _predicted(self, state, x, mask):
        if self.trained_layers == 'last':
            features = self.embed(x, mask)
        else:
            features = TunedEncoder(self.encoder, self.transductive).features(state, x, mask)
        return self.head.outputs(features, state) + state['absent']


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    define_batch_flag(flags, 'fine_tuning', 64)
    flags.DEFINE_enum('fine_tuning_layers', 'all', LAYERS, 'fine_tuning: what is trained in a task')
    flags.DEFINE_integer(
        'fine_tuning_updates', UPDATES, 'fine_tuning: updates in a task', lower_bound=0
    )
    flags.DEFINE_float(
        'fine_tuning_rate',
        None,
        'fine_tuning: rate of the updates (default: the best pair of rate and decay of a grid on '
        'validation tasks)',
        lower_bound=0,
    )
    flags.DEFINE_float(
        'fine_tuning_decay',
        None,
        'fine_tuning: update t, from 0, has the rate over 1 + decay t (default, with a rate: 0)',
        lower_bound=0,
    )
    flags.DEFINE_integer(
        'fine_tuning_choice_iterations',
        4,
        'fine_tuning: the last so many iterations choose rate and decay, each by --meta_batch_size '
        'validation tasks',
        lower_bound=1,
    )
