"""The flags of molecules."""

from maml_tf.datasets.molecules.features import ATOMS, FEATURISERS

FLAGS = ('featurise', 'most_atoms')


def define_flags(flags) -> None:
    """Defines the flags of molecules."""
    flags.DEFINE_enum(
        'featurise',
        'fingerprint',
        FEATURISERS,
        'molecules: what a network sees, a Morgan fingerprint of 2048 bits or a graph of atoms',
    )
    flags.DEFINE_integer(
        'most_atoms',
        ATOMS,
        'with --featurise=graph: atoms of a molecule, those beyond are cut off',
        lower_bound=1,
    )
