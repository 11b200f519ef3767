"""The rows of molecules that were measured in assays."""

from maml_tf.datasets.molecules.features import input_shape
from maml_tf.datasets.molecules.flags import FLAGS
from maml_tf.datasets.rows.networks import dense_network
from maml_tf.datasets.source import Source
from maml_tf.errors import ArgumentError
from maml_tf.networks.flags import product_dtype
from maml_tf.networks.graphs.graph_network import GraphNetwork
from maml_tf.objectives.roc_auc import RocAuc

HIDDEN = (256, 128)  # of the network of fingerprints
QUERIES = 16  # of each class


def _input_shape(flags):
    return input_shape(flags.featurise, flags.most_atoms)


def _network(flags, input_shape, output_dim, **changes):
    # The reference's weights start so small that nothing passes three layers without batch norm.
    changes = {'start': 'glorot'} | changes
    if flags.featurise == 'fingerprint':
        return dense_network(HIDDEN)(flags, input_shape, output_dim, **changes)
    # It pools nothing, and its norms always have a scale.
    of_others = ('head', 'pool_padding', 'film', 'scale', 'epsilon')
    changes = {name: value for name, value in changes.items() if name not in of_others}
    dtype = product_dtype(flags)
    return GraphNetwork(input_shape, output_dim, norm=flags.norm, product_dtype=dtype, **changes)


def _inputs(flags):
    if flags.featurise == 'fingerprint':
        return 'Morgan fingerprints: maml_tf.molecule_inputs(smiles)'
    return f"graphs: maml_tf.molecule_inputs(smiles, 'graph', {flags.most_atoms})"


def _molecules(name: str | None, licence: str) -> Source:
    def load(flags):
        from maml_tf.datasets.molecules.molecules import molecules

        if flags.featurise != 'graph' and flags['most_atoms'].value != flags['most_atoms'].default:
            raise ArgumentError('most_atoms', flags.most_atoms, 'only with --featurise=graph')
        return molecules(flags.data_dir, name, flags.split_file, flags.featurise, flags.most_atoms)

    return Source(
        load=load,
        input_shape=_input_shape,
        network=_network,
        objective=RocAuc(),
        print_every=100,
        iterations_per_call=5,
        way=2,
        validate_every=500,
        train_query=QUERIES,
        test_query=QUERIES,
        licence=licence,
        inputs=_inputs,
        # Those that are asked for tasks of two classes, and for nothing else.
        algorithms=(
            *('maml', 'anil', 'meta_sgd', 'alpha_maml', 'mamlpp', 'imaml', 'cavia'),
            *('bias_transformation', 'lstm_meta_learner', 'from_scratch', 'support_only'),
            *('prototypical', 'matching', 'r2d2', 'lrd2', 'metaoptnet'),
        ),
        reads=(
            *('data_dir', 'split_file', 'num_classes', 'train_on', 'leave_to_query'),
            *('write_tasks', 'tasks_file', *FLAGS),
        ),
    )


ROWS = {
    'tox21': _molecules('tox21', 'public domain (the Tox21 challenge)'),
    'sider': _molecules('sider', 'CC BY-NC-SA 4.0 (SIDER 4)'),
    'molecules': _molecules(None, "your own table's"),
}
