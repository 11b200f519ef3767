"""The rows of objects: their poses."""

from collections.abc import Callable

from maml_tf.datasets.source import Source
from maml_tf.networks.encoded import EncodedNetwork
from maml_tf.networks.flags import product_dtype
from maml_tf.networks.network import Network
from maml_tf.objectives.regression import Regression

POSE_SIDE = 128  # pixels, of the published pictures
# Those that learn regression by an EncodedNetwork: it has no place for a context.
_OF_CODES = (
    *('maml', 'anil', 'meta_sgd', 'alpha_maml', 'imaml', 'reptile', 'mr_maml'),
    *('from_scratch', 'multi_task'),
)
_OF_IMAGES = ('image_size', 'conv', 'num_filters')


def _encoded(dense_code: int) -> Callable[..., Network]:
    """Returns the maker of an encoder and a head; dense_code: its code with --conv=False."""

    def network(flags, input_shape, output_dim, **changes):
        # Its heads are as they are.
        changes = {name: value for name, value in changes.items() if name != 'head'}
        return EncodedNetwork(
            input_shape,
            output_dim,
            flags.num_filters,
            flags.norm,
            flags.conv,
            **({} if flags.conv else {'code': dense_code}),
            product_dtype=product_dtype(flags),
            **changes,
        )

    return network


def _pose(flags):
    from maml_tf.datasets.objects.pose import pose

    return pose(flags.data_dir, flags.image_size or POSE_SIDE)


def _rendered_pose(flags):
    from maml_tf.datasets.objects.rendered_pose import RenderedPose

    return RenderedPose(flags.task_count, flags.image_size or 16)


def _of_pose(load, side: int, **kwargs) -> Source:
    """A row of pictures of objects, of which the angle is to be told."""

    def input_shape(flags):
        size = flags.image_size or side
        return size, size, 1

    return Source(
        load=load,
        input_shape=input_shape,
        network=_encoded(32),
        objective=Regression(),
        output_dim=1,
        algorithms=_OF_CODES,
        **kwargs,
    )


def _poses() -> dict[str, Source]:
    return {
        'pose': _of_pose(
            _pose,
            POSE_SIDE,
            print_every=50,
            iterations_per_call=1,
            validate_every=500,
            licence='that of the objects in the pictures',
            reads=('data_dir', 'train_on', *_OF_IMAGES),
        ),
        'rendered_pose': _of_pose(
            _rendered_pose,
            16,
            print_every=500,
            iterations_per_call=50,
            validate_every=1000,
            reads=('task_count', *_OF_IMAGES),
        ),
    }


ROWS = _poses()
