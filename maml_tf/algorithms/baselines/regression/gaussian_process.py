"""The posterior of a Gaussian process whose kernel is known: what the best learner would say."""

import tensorflow as tf

from maml_tf.algorithms.problem import Problem
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import ArgumentError
from maml_tf.learner import Learner, State
from maml_tf.objectives.regression import GaussianLikelihood
from maml_tf.ops.gaussian_process import Kernel, posterior
from maml_tf.training.phases import OuterLoop, Phase


class GaussianProcessPosterior(Learner):
    """Conditions a Gaussian process on the support set, in closed form and float64.

    On the curves of `--datasource=gaussian_process`, with its kernel, no learner has a higher
    expected log-likelihood of held-out points. A query is a new observation, also where it lies on
    a support point. Nothing is trained: the one iteration of its training, which scores a
    meta-batch, is there to write a checkpoint.

    Args:
      input_shape: (features,) of x.
      length, amplitude, noise: of the kernel, see ops/gaussian_process.py; by default those of the
        data source.
    """

    heeds = ()
    takes_masks = True

    def __init__(
        self,
        input_shape: tuple[int, ...] = (1,),
        length: float = 0.4,
        amplitude: float = 1.0,
        noise: float = 0.02,
        **kwargs,
    ):
        # No least deviation: between close points it is hardly more than the noise.
        super().__init__(GaussianLikelihood(least=0.0), **kwargs)
        self._example_shape = tuple(input_shape)
        self.kernel = Kernel(length, amplitude, noise)

    @classmethod
    def from_flags(cls, flags, problem: Problem) -> 'GaussianProcessPosterior':
        """Returns the learner that the command line describes.

        Raises: ArgumentError for another data source, whose kernel nobody knows.
        """
        if flags.datasource != 'gaussian_process':
            reason = f'{flags.algorithm} has the kernel of --datasource=gaussian_process'
            raise ArgumentError('datasource', flags.datasource, reason)
        return cls(problem.input_shape)

    @classmethod
    def tiny(cls) -> tuple['GaussianProcessPosterior', EpisodeSpec]:
        return cls(), EpisodeSpec(way=1, shot=6, query=5)

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
        """Returns the support set itself; 'mask' [tasks, support] says what counts."""
        del steps, key
        mask = tf.ones_like(support_x[..., 0]) if mask is None else mask
        return {'x': support_x, 'y': support_y, 'mask': mask}

    def predict_query(self, state: State, query_x: tf.Tensor) -> tf.Tensor:
        """Returns [tasks, query, 2 * out], see GaussianLikelihood."""
        mean, deviation = posterior(
            self.kernel, state['x'], state['y'], query_x, mask=state['mask']
        )
        deviation = tf.broadcast_to(deviation, tf.shape(mean))
        return tf.cast(self.objective.outputs_of(mean, deviation), query_x.dtype)

    def phases(self, outer: OuterLoop) -> list[Phase]:
        """Returns a phase of one iteration that changes nothing."""
        iterations = min(outer.metatrain_iterations, 1)
        return [Phase('start', iterations, None, None, outer.spec, op=self._scored)]

    def _scored(self, task: Task, step: tf.Tensor) -> dict[str, tf.Tensor]:
        del step
        return self.query_loss(task, self.query_outputs(task)[-1]).log
