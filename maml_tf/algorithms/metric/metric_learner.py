"""What metric-based methods share: an encoder, and the comparison of its embeddings."""

import keras
import tensorflow as tf

from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import Task
from maml_tf.errors import ArgumentError
from maml_tf.learner import Learner, State
from maml_tf.objectives import MeanClassification, Objective
from maml_tf.training.phases import Loss


class MetricLearner(Learner):
    """A learner with an encoder. Subclasses write `summarise` and `compare`, both on embeddings.

    In training the support and query images of a task are embedded together, so that batch norm
    sees both, as in the authors' codes. Afterwards batch norm uses running averages, unless
    `transductive`. A meta-batch moves the running averages once, by the mean of its tasks'
    statistics, however it is spread over devices.

    Args:
      encoder: a keras.Model, images [n, ...] -> features [n, ...].
      transductive: batch norm by the statistics of the examples at hand in evaluation too, those of
        one task's support set or of its queries.
    """

    heeds = (*Learner.heeds, 'num_filters')
    takes_masks = True  # An example that does not count has a label of zeros.
    # XLA's convolutions are ten times slower than TensorFlow's on a CPU, where kernels are shared.
    xla = False

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
                f'holds {random[0]}: layers that draw by themselves (dropout) would draw otherwise '
                'on several devices; leave them out',
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
        moving: 'MovingAverages | None' = None,
    ) -> tf.Tensor:
        """Embeds [tasks, n, *input_shape] -> [tasks, n, ...]; see `apply`."""
        return self.apply(self.encoder, images, mask, moving)

    def apply(
        self,
        model: keras.Model,
        x: tf.Tensor,
        mask: tf.Tensor | None = None,
        moving: 'MovingAverages | None' = None,
    ) -> tf.Tensor:
        """Runs a part of the learner on examples of tasks: [tasks, n, ...] -> [tasks, n, ...].

        In training, and in evaluation where `transductive`, batch norm takes the statistics of one
        task, so that a task does not depend on the meta-batch it is in.

        Args:
          model: of [n, ...].
          mask: [tasks, n], 1 where an example counts; the others are kept out of the statistics,
            and their outputs are zeros.
          moving: the running averages, which move: this is training; None: it is evaluation.
        """
        before = moving.of(model) if moving else [v.value for v in model.non_trainable_variables]
        trained = [variable.value for variable in model.trainable_variables]
        training = moving is not None or self.transductive

        def run(x):
            return model.stateless_call(trained, before, x, training=training)

        def of_a_task(inputs):
            x, *mask = inputs
            if not mask:
                y, after = run(x)
            else:
                counting = tf.cast(tf.where(mask[0] > 0), tf.int32)
                y, after = run(tf.gather_nd(x, counting))
                y = tf.scatter_nd(counting, y, tf.concat([tf.shape(x)[:1], tf.shape(y)[1:]], 0))
            return y, [tf.convert_to_tensor(value) for value in after] if moving else []

        inputs = (x,) if mask is None else (x, mask)
        if x.shape[0] == 1:
            y, after = of_a_task([part[0] for part in inputs])
            y = y[tf.newaxis]
        else:
            signature = (
                tf.TensorSpec([x.shape[1], *model.output_shape[1:]], x.dtype),
                [tf.TensorSpec(v.shape, v.dtype) for v in before] if moving else [],
            )
            # One after another: a task alone keeps all cores busy, and the activations of many
            # would fill the memory.
            y, after = tf.map_fn(
                of_a_task, inputs, fn_output_signature=signature, parallel_iterations=1
            )
            after = [tf.reduce_mean(values, axis=0) for values in after]
        if moving:
            moving.move(model, after)
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
        del step
        moving = MovingAverages(self)
        mask = None
        if task.support_mask is not None:
            mask = tf.concat([task.support_mask, task.query_mask], 1)
        images = tf.concat([task.support_x, task.query_x], 1)
        embedded = self.embed(images, mask, moving)
        supports = task.support_x.shape[1]
        state = self.summarise(embedded[:, :supports], task.support_y)
        outputs = self.compare(state, embedded[:, supports:])
        return self.query_loss(task, outputs, moving.state())

    @classmethod
    def objective_of(cls, flags, problem: Problem) -> Objective:
        """Returns the objective of a metric learner, whose loss is a mean.

        Raises: ArgumentError where the data source is regression.
        """
        if not problem.objective.classification:
            raise ArgumentError(
                'datasource',
                flags.datasource,
                f'{cls.__name__} compares images of classes, and this source is regression',
            )
        return MeanClassification()


class MovingAverages:
    """The running averages of a learner's parts, while a loss is computed: read and moved.

    They are values, not variables: the training op assigns them from the loss's state.
    """

    def __init__(self, learner: Learner):
        # By identity: variables of two models in one encoder may have the same path.
        self._names = dict(zip(map(id, learner.variables), learner.named_variables()))
        averages = learner.non_trainable_variables
        self._values = {id(v): tf.convert_to_tensor(v.value) for v in averages}

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


def of_absent_classes(support_y: tf.Tensor, value: float) -> tf.Tensor:
    """Returns `value` where a class has no support example, else 0: [tasks, 1, way]."""
    return tf.where(
        tf.reduce_any(support_y > 0, axis=1, keepdims=True),
        tf.cast(0, support_y.dtype),
        tf.cast(value, support_y.dtype),
    )
