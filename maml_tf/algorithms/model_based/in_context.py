"""In-context learning by a transformer (Garg, Tsipras, Liang, Valiant, NeurIPS 2022, arXiv
2208.01066)."""

import dataclasses

import keras
import tensorflow as tf

from maml_tf.algorithms.metric.metric_learner import MetricLearner, check_flat
from maml_tf.algorithms.model_based.curriculum import stages
from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.order import random_order, take
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import ArgumentError, UserError
from maml_tf.learner import Learner, State
from maml_tf.networks.image_encoders.by_name import ENCODER_FLAGS, encoder_of
from maml_tf.networks.sequence_models.decoder import Decoder
from maml_tf.networks.sequence_models.prompt import Prompt
from maml_tf.objectives.metric import Axis
from maml_tf.objectives.objective import Objective
from maml_tf.objectives.regression import Regression
from maml_tf.ops.shapes import sizes
from maml_tf.training.outer_optimizers import OuterOptimizer
from maml_tf.training.phases import Loss, OuterLoop, Phase

# Layers, heads, width.
SIZES = {'standard': (12, 8, 256), 'small': (6, 4, 128), 'tiny': (3, 2, 64)}
POINTS = 101  # Pairs that the authors' positions are made for.
CURRICULUM = 2000


class InContext(Learner):
    """A transformer reads support pairs and a query, and says the query's label. Nothing adapts.

    A task is the sequence x_1, y_1, ..., x_k, y_k, x, and the prediction of y_i is read at x_i,
    from the pairs before it. In training support and query together are one such sequence, and the
    loss is the mean of the squared errors of all its predictions (section 2). The state is the keys
    and values of the support tokens, which a query attends to; queries do not see each other.

    Evaluation has an entry for each context length 0, ..., k: the error of the queries from the
    first so many support pairs. (The authors, too, score a query of its own after each length. It
    matters where queries are not distributed as the support.)

    Args:
      prompt: the network.
      curriculum: training begins with prompts of 5 coordinates and few pairs, which grow every so
        many iterations, see curriculum.py; 0: they are whole from the start.
    """

    heeds = (*Learner.heeds, 'num_filters', *ENCODER_FLAGS)
    own_encoder = 'conv4'
    outer = OuterOptimizer(meta_lr=1e-4)
    fixed_way = True  # The width of a label is part of the network.
    ordered = True

    def __init__(self, prompt: Prompt, objective: Objective, curriculum: int = 0, **kwargs):
        super().__init__(objective, **kwargs)
        self.prompt, self.curriculum = prompt, curriculum

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> Learner:
        """Returns the learner that the command line describes, in classification another class.

        Raises: UserError for a flag of the other kind, or more support points than positions.
        """
        classes = problem.objective.classification
        for name in ('in_context_curriculum',) if classes else ('num_filters', *ENCODER_FLAGS):
            if flags[name].value != flags[name].default:
                kind = 'images of classes' if classes else 'regression'
                raise UserError(f'--{name}={flags[name].value}: means nothing to {kind}')
        of = problem.training
        points = max(POINTS, of.way * of.shot + (1 if classes else of.query))
        if problem.evaluation.way * problem.evaluation.shot >= points:
            reason = f'training leaves positions for {points} examples, the query among them'
            raise ArgumentError('shot', problem.evaluation.shot, reason)
        decoder = Decoder(*SIZES[flags.in_context_size], 2 * points)
        if not classes:
            prompt = Prompt(decoder, problem.input_shape[-1], problem.output_dim)
            return cls(prompt, problem.objective, flags.in_context_curriculum)
        objective = MetricLearner.objective_of(flags, problem)
        encoder = encoder_of(flags, problem.input_shape, cls.own_encoder)
        prompt = Prompt(decoder, encoder.output_shape[-1], problem.output_dim, joint=True)
        return InContextClassifier(
            encoder, prompt, objective, transductive=bool(flags.transductive)
        )

    @classmethod
    def tiny(cls) -> tuple['InContext', EpisodeSpec]:
        prompt = Prompt(Decoder(2, 2, 32, 48), 1, 1)
        return cls(prompt, Regression()), EpisodeSpec(1, 10, 10)

    @property
    def example_shape(self) -> tuple[int, ...]:
        return (self.prompt.input_dim,)

    def adapt(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        steps: int | None = None,
        mask: tf.Tensor | None = None,
        key: tf.Tensor | None = None,
    ) -> State:
        """Returns {'keys', 'values'}, each [tasks, layers, 2 * support, heads, size of a head]."""
        del steps, mask, key
        return self.prompt.read(support_x, support_y)

    def predict_query(self, state: State, query_x: tf.Tensor) -> tf.Tensor:
        return self.prompt.predict(state, query_x)[:, 0]

    def query_outputs(self, task: Task, steps: int | None = None) -> tf.Tensor:
        """Returns the predictions after 0, ..., k support points, [k + 1, tasks, query, out]."""
        state = self.adapt(task.support_x, task.support_y)
        lengths = tf.range(sizes(task.support_x)[1] + 1)
        return tf.transpose(self.prompt.predict(state, task.query_x, lengths), [1, 0, 2, 3])

    def axis(self, entries: int) -> Axis:
        return Axis('context points', tuple(range(entries)))

    def meta_loss(self, task: Task, step: tf.Tensor) -> Loss:
        """Returns the mean error over the points of the whole prompt."""
        del step
        x = tf.concat([task.support_x, task.query_x], 1)
        y = tf.concat([task.support_y, task.query_y], 1)
        outputs = self.prompt.predict_all(x, y)
        return Loss(*self.loss_and_log('post', y, outputs, self.shots(task)))

    def phases(self, outer: OuterLoop) -> list[Phase]:
        """Returns a phase for each stage of the curriculum; all share an optimizer."""
        if not self.curriculum:
            return super().phases(outer)
        (whole,) = super().phases(outer)
        found = stages(
            self.prompt.input_dim, outer.spec, self.curriculum, outer.metatrain_iterations
        )
        # The optimizer, which all stages share, is known by the name of the first.
        return [
            dataclasses.replace(
                whole,
                name=f'{whole.name}_{stage.spec.coordinates}' if number else whole.name,
                iterations=stage.iterations,
                draws=stage.spec,
                first=stage.start,
            )
            for number, stage in enumerate(found)
        ]


class InContextClassifier(MetricLearner):
    """The same of images and their classes, which the paper does not have.

    x are an encoder's features and y one-hot labels. An image and its label are one token, so that
    no label has to find its image first. The support set is read in a random order that the task's
    key decides, without a key always the same shuffle of its places. The loss is that of the
    queries, since nothing could tell a class that no example before has shown. Batch norm uses
    running averages in evaluation.

    Args:
      encoder, transductive: see MetricLearner.
      prompt: the network of features and labels.
    """

    heeds, own_encoder = InContext.heeds, InContext.own_encoder
    outer, fixed_way, ordered = InContext.outer, True, True
    takes_masks = False

    def __init__(
        self,
        encoder: keras.Model,
        prompt: Prompt,
        objective: Objective,
        transductive: bool = False,
        **kwargs,
    ):
        super().__init__(encoder, objective, transductive, **kwargs)
        check_flat(encoder)
        self.prompt = prompt

    def adapt(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        steps: int | None = None,
        mask: tf.Tensor | None = None,
        key: tf.Tensor | None = None,
    ) -> State:
        """Returns {'keys', 'values'} of the support set in its random order, see InContext."""
        order = random_order(support_y, key)
        return super().adapt(take(support_x, order), take(support_y, order), steps, mask)

    def meta_loss(self, task: Task, step: tf.Tensor) -> Loss:
        order = random_order(task.support_y, task.key)
        support = {name: take(getattr(task, name), order) for name in ('support_x', 'support_y')}
        return super().meta_loss(task._replace(**support), step)

    def summarise(self, support: tf.Tensor, support_y: tf.Tensor) -> State:
        return self.prompt.read(support, support_y)

    def compare(self, state: State, query: tf.Tensor) -> tf.Tensor:
        return self.prompt.predict(state, query)[:, 0]


def define_flags(flags) -> None:
    """Defines the flags of this method."""
    flags.DEFINE_enum(
        'in_context_size',
        'standard',
        list(SIZES),
        'in_context: layers, heads and width of the transformer: '
        + ', '.join(f'{name} {"/".join(map(str, size))}' for name, size in SIZES.items()),
    )
    flags.DEFINE_integer(
        'in_context_curriculum',
        CURRICULUM,
        'in_context: iterations after which the prompts of training grow by a coordinate, from 5, '
        'and by their share of points; 0: they are whole from the start',
        lower_bound=0,
    )
