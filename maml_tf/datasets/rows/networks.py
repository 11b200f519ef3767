"""The networks that the flags make for the rows."""

from collections.abc import Callable

from maml_tf.networks.cells.flags import cell_net
from maml_tf.networks.conv_net import ConvNet
from maml_tf.networks.flags import product_dtype
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.networks.network import Network


def image_network(head: str) -> Callable[..., Network]:
    """Returns the maker of the convolutional network, with --conv=False of the dense one, with
    --network=cell of one of cells."""

    def network(flags, input_shape, output_dim, head=head, **changes):
        if flags.network == 'cell':
            return cell_net(flags, input_shape, output_dim, **changes)
        if not flags.conv:
            return dense_network((256, 128, 64, 64))(flags, input_shape, output_dim, **changes)
        return ConvNet(
            input_shape,
            output_dim,
            flags.num_filters,
            flags.norm,
            flags.max_pool,
            head,
            product_dtype=product_dtype(flags),
            **changes,
        )

    return network


def dense_network(hidden: tuple[int, ...]) -> Callable[..., Network]:
    """Returns the maker of a network of dense layers."""

    def network(flags, input_shape, output_dim, **changes):
        # It pools nothing, and its last layer always sees all there is.
        of_images = ('head', 'pool_padding', 'film')
        changes = {name: value for name, value in changes.items() if name not in of_images}
        return FullyConnected(
            input_shape,
            output_dim,
            hidden,
            flags.norm,
            product_dtype=product_dtype(flags),
            **changes,
        )

    return network
