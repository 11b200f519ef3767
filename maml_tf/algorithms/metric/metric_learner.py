"""What metric-based methods share: an encoder, and the comparison of its embeddings."""

import contextlib
from collections.abc import Callable

import keras
import tensorflow as tf

from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import ArgumentError
from maml_tf.learner import Learner, State
from maml_tf.networks.image_encoders.random_layers import Draws, drawing
from maml_tf.objectives.objective import Objective
from maml_tf.training.phases import Loss


class MetricLearner(Learner):
    """A learner with an encoder. Subclasses write `summarise` and `compare`, both on embeddings.

    In training the support and query images of a task are embedded together, so that batch norm
    sees both, as in the authors' codes. Afterwards batch norm uses running averages, unless
    `transductive`. A meta-batch moves the running averages once, by the mean of its tasks'
    statistics, however it is spread over devices. What the encoder draws in training (dropout,
    augmentation: networks/image_encoders/random_layers.py) is decided by the task's key.

    Args:
      encoder: a keras.Model, images [n, ...] -> features [n, ...].
      transductive: batch norm by the statistics of the examples at hand in evaluation too, those of
        one task's support set or of its queries.
    """

    heeds = (*Learner.heeds, 'num_filters')
    takes_masks = True  # An example that does not count has a label of zeros.
    # XLA's convolutions are ten times slower than TensorFlow's on a CPU, where kernels are shared.
    xla = False
    # Whether a training step on several tasks has a copy of the encoder's operations for each. The
    # way back from a loop takes longer, but a loop is traced once.
    unroll_tasks = False

    def __init__(
        self, encoder: keras.Model, objective: Objective, transductive: bool = False, **kwargs
    ):
        super().__init__(objective, **kwargs)
        self.encoder, self.transductive = encoder, transductive
        random = [v.path for v in self.non_trainable_variables if not v.dtype.startswith('float')]
        if random:
            raise ArgumentError(
                'encoder',
                encoder.name,
                f'holds {random[0]}: a layer that draws by itself would draw otherwise on several '
                'devices; those of maml_tf.networks.image_encoders draw by the task',
            )

    # What a method writes.

    def summarise(self, support: tf.Tensor, support_y: tf.Tensor) -> State:
        """Returns the task's state.

        support: embeddings [tasks, support, ...]; support_y: one-hot [tasks, support, way].
        """
        raise NotImplementedError

    def compare(self, state: State, query: tf.Tensor) -> tf.Tensor:
        """Returns outputs [tasks, query, way] of embeddings [tasks, query, ...]."""
        raise NotImplementedError

    # What pictures show of a task.

    def resemblance(self, state: State, query_x: tf.Tensor) -> tf.Tensor | None:
        """Returns how much each query resembles each support example, [tasks, query, support].

        None, the default: the method has no such number.
        """
        del state, query_x
        return None

    def embedded_support(self, state: State, support_x: tf.Tensor) -> tf.Tensor:
        """Returns the embeddings of the support set, [tasks, support, features]."""
        del state
        return self.embed(support_x)

    def prototypes(self, state: State) -> tf.Tensor | None:
        """Returns a point for each class, [tasks, way, features]; None: the method has none."""
        del state
        return None

    # How embeddings come about.

    def embed(
        self,
        images: tf.Tensor,
        mask: tf.Tensor | None = None,
        training: 'TrainingPass | None' = None,
    ) -> tf.Tensor:
        """Embeds [tasks, n, *input_shape] -> [tasks, n, ...]; see `apply`."""
        return self.apply(self.encoder, images, mask, training)

    def apply(
        self,
        model: keras.Model,
        x: tf.Tensor,
        mask: tf.Tensor | None = None,
        training: 'TrainingPass | None' = None,
    ) -> tf.Tensor:
        """Runs a part of the learner on examples of tasks: [tasks, n, ...] -> [tasks, n, ...].

        In training, and in evaluation where `transductive`, batch norm takes the statistics of one
        task, so that a task does not depend on the meta-batch it is in.

        Args:
          model: of [n, ...].
          mask: [tasks, n], 1 where an example counts; the others are kept out of the statistics,
            and their outputs are zeros.
          training: the pass of training that this belongs to; None: it is evaluation.
        """
        before = [v.value for v in model.non_trainable_variables]
        draw = contextlib.nullcontext
        if training:
            before, draw = training.of(model), training.drawing()
        trained = [variable.value for variable in model.trainable_variables]
        by_batch = training is not None or self.transductive

        def run(x, key=None):
            with draw(key):
                return model.stateless_call(trained, before, x, training=by_batch)

        def of_a_task(inputs):
            x, mask, key = inputs['x'], inputs.get('mask'), inputs.get('key')
            if mask is None:
                y, after = run(x, key)
            else:
                counting = tf.cast(tf.where(mask > 0), tf.int32)
                y, after = run(tf.gather_nd(x, counting), key)
                y = tf.scatter_nd(counting, y, tf.concat([tf.shape(x)[:1], tf.shape(y)[1:]], 0))
            return y, [tf.convert_to_tensor(value) for value in after] if training else []

        inputs = {'x': x, 'mask': mask, 'key': training.key if training else None}
        inputs = {name: value for name, value in inputs.items() if value is not None}
        if x.shape[0] == 1 or (x.shape[0] and training and self.unroll_tasks):
            of_each = {name: tf.unstack(value, x.shape[0]) for name, value in inputs.items()}
            results = [of_a_task(dict(zip(of_each, task))) for task in zip(*of_each.values())]
            y = tf.stack([y for y, _ in results])
            y = tf.ensure_shape(y, [*x.shape[:2], *model.output_shape[1:]])
            after = [tf.reduce_mean(tf.stack(v), axis=0) for v in zip(*(a for _, a in results))]
        else:
            signature = (
                tf.TensorSpec([x.shape[1], *model.output_shape[1:]], x.dtype),
                [tf.TensorSpec(v.shape, v.dtype) for v in before] if training else [],
            )
            # One after another: a task alone keeps all cores busy, and the activations of many
            # would fill the memory.
            y, after = tf.map_fn(
                of_a_task, inputs, fn_output_signature=signature, parallel_iterations=1
            )
            after = [tf.reduce_mean(values, axis=0) for values in after]
        if training:
            training.move(model, after)
        return y

    # The contract.

    @property
    def example_shape(self) -> tuple[int, ...]:
        return self.encoder.input_shape[1:]

    def adapt(
        self,
        support_x: tf.Tensor,
        support_y: tf.Tensor,
        steps: int | None = None,
        mask: tf.Tensor | None = None,
        key: tf.Tensor | None = None,
    ) -> State:
        """Returns what `summarise` makes of the embedded support set; `steps` is not needed."""
        del steps, key
        return self.summarise(self.embed(support_x, mask), support_y)

    def predict_query(self, state: State, query_x: tf.Tensor) -> tf.Tensor:
        return self.compare(state, self.embed(query_x))

    def query_outputs(self, task: Task, steps: int | None = None) -> tf.Tensor:
        state = self.adapt(task.support_x, task.support_y, steps, task.support_mask, task.key)
        return self.compare(state, self.embed(task.query_x, task.query_mask))[tf.newaxis]

    def meta_loss(self, task: Task, step: tf.Tensor) -> Loss:
        """Returns the query loss, with batch norm in training mode."""
        training = TrainingPass(self, task.key, step)
        mask = None
        if task.support_mask is not None:
            mask = tf.concat([task.support_mask, task.query_mask], 1)
        images = tf.concat([task.support_x, task.query_x], 1)
        embedded = self.embed(images, mask, training)
        supports = task.support_x.shape[1]
        state = self.summarise(embedded[:, :supports], task.support_y)
        outputs = self.compare(state, embedded[:, supports:])
        return self.query_loss(task, outputs, training.state())

    def share(self, tasks: int, spec: EpisodeSpec) -> int:
        """Returns 1: a task alone keeps all cores busy, and the way back from it is two thirds as
        long as that from a loop over several."""
        del tasks, spec
        return 1

    def evaluation_share(self, tasks: int, spec: EpisodeSpec) -> int:
        """Returns all tasks: what follows the encoder takes them together."""
        del spec
        return tasks

    @classmethod
    def objective_of(cls, flags, problem: Problem, smoothing: float = 0.0) -> Objective:
        """Returns the objective of a metric learner, whose loss is a mean, with smooth labels.

        Raises: ArgumentError where the data source is regression.
        """
        if not problem.objective.classification:
            raise ArgumentError(
                'datasource',
                flags.datasource,
                f'{cls.__name__} compares images of classes, and this source is regression',
            )
        return problem.objective.averaged(smoothing)


class TrainingPass:
    """What the parts of a learner read and leave behind while a loss is computed.

    That is the running averages, which are values here, not variables (the training op assigns them
    from the loss's state), and what random layers draw.

    Args:
      key: the tasks' random bits, uint32 [tasks, 2]; None: what is drawn goes by the step.
      step: the iteration, for layers that change in the course of training; None: the first.
    """

    def __init__(
        self, learner: Learner, key: tf.Tensor | None = None, step: tf.Tensor | None = None
    ):
        # By identity: variables of two models in one encoder may have the same path.
        self._names = dict(zip(map(id, learner.variables), learner.named_variables()))
        averages = learner.non_trainable_variables
        self._values = {id(v): tf.convert_to_tensor(v.value) for v in averages}
        self.key = key
        self._step = tf.constant(0, tf.int64) if step is None else step
        self._passes = 0

    def drawing(self) -> Callable[[tf.Tensor | None], contextlib.AbstractContextManager]:
        """Returns key -> a context in which random layers draw; every call draws anew."""
        number, self._passes = self._passes, self._passes + 1
        return lambda key: drawing(Draws(key, self._step, number))

    def of(self, model: keras.Model) -> list[tf.Tensor]:
        """Returns the values of a part's non-trainable variables, as they are by now."""
        return [self._values[id(variable)] for variable in model.non_trainable_variables]

    def move(self, model: keras.Model, values: list[tf.Tensor]) -> None:
        """Takes in the values that a part leaves behind."""
        for variable, value in zip(model.non_trainable_variables, values, strict=True):
            self._values[id(variable)] = value

    def state(self) -> State:
        """Returns {name of the variable: value}."""
        return {self._names[number]: value for number, value in self._values.items()}


def check_flat(encoder: keras.Model) -> None:
    """Raises ArgumentError for an encoder whose features are not flat."""
    if len(encoder.output_shape) != 2:
        raise ArgumentError('encoder', encoder.name, 'its features are not flat: [n, features]')


def of_absent_classes(support_y: tf.Tensor, value: float) -> tf.Tensor:
    """Returns `value` where a class has no support example, else 0: [tasks, 1, way]."""
    return tf.where(
        tf.reduce_any(support_y > 0, axis=1, keepdims=True),
        tf.cast(0, support_y.dtype),
        tf.cast(value, support_y.dtype),
    )
