"""What a network sees of a molecule: a fingerprint or a graph, both made of its SMILES by RDKit.

A fingerprint is Morgan's with radius 2 (ECFP4, Rogers and Hahn 2010): 2048 bits, each set where the
molecule holds one of the circular substructures that are hashed to it.

A graph is [atoms, ATOM_FEATURES + atoms], a row for each atom but hydrogen: ATOM_FEATURES numbers
of the atom itself, of which the first is 1 (rows of zeros fill up smaller molecules), and then its
bonds to every atom: 0 none, 1 single, 2 double, 3 triple, 4 aromatic, 5 any other. This set of
features is our choice.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from maml_tf.errors import ArgumentError, UserError, check_one_of
from maml_tf.networks.graphs.graph_network import BOND_TYPES, check_atoms
from maml_tf.terminal.text import shortened

FEATURISERS = ('fingerprint', 'graph')
BITS, RADIUS = 2048, 2
ATOMS = 64  # 99 % of the molecules of Tox21 have fewer.
ELEMENTS = ('B', 'C', 'N', 'O', 'F', 'Si', 'P', 'S', 'Cl', 'Br', 'I')
MOST_NEIGHBOURS, MOST_HYDROGENS, MOST_CHARGE = 5, 4, 2
BONDS = {'SINGLE': 1, 'DOUBLE': 2, 'TRIPLE': 3, 'AROMATIC': 4}
# There, element or another one, neighbours, hydrogens, charge, aromatic, in a ring.
ATOM_FEATURES = 1 + len(ELEMENTS) + 1 + MOST_NEIGHBOURS + 1 + MOST_HYDROGENS + 1 + 3


def input_shape(featurise: str = 'fingerprint', most_atoms: int = ATOMS) -> tuple[int, ...]:
    """Returns the shape of one molecule. Raises ArgumentError for what is no kind of features."""
    check_one_of('featurise', featurise, FEATURISERS)
    if featurise == 'fingerprint':
        return (BITS,)
    check_atoms(most_atoms)
    return most_atoms, ATOM_FEATURES + most_atoms


def molecule_inputs(
    smiles: Sequence[str], featurise: str = 'fingerprint', most_atoms: int = ATOMS
) -> np.ndarray:
    """Returns what an exported learner of molecules is fed, float32 [molecules, *input_shape].

    Args:
      smiles: of the molecules. featurise: one of FEATURISERS. most_atoms: of a graph.
    Raises: ArgumentError for a text that is no molecule; UserError where RDKit is missing.
    """
    molecules = parsed(smiles)
    for text, molecule in zip(smiles, molecules):
        if molecule is None:
            raise ArgumentError('smiles', shortened(text), 'RDKit reads no molecule of it')
    return featurised(molecules, featurise, most_atoms).astype(np.float32)


def parsed(smiles: Sequence[str]) -> list[Any]:
    """Returns RDKit's molecules, None where a text is none. Raises UserError without RDKit."""
    chem, base, _ = _rdkit()
    with base.BlockLogs():  # It would tell of each on the screen.
        molecules = [chem.MolFromSmiles(text) for text in smiles]
    return [one if one is not None and one.GetNumAtoms() else None for one in molecules]


def featurised(molecules: Sequence[Any], featurise: str, most_atoms: int) -> np.ndarray:
    """Returns the features of RDKit's molecules, uint8 [molecules, 2048] or int8 graphs."""
    features = np.zeros(
        [len(molecules), *input_shape(featurise, most_atoms)],
        np.uint8 if featurise == 'fingerprint' else np.int8,
    )
    if featurise == 'fingerprint':
        generator = _rdkit()[2].GetMorganGenerator(radius=RADIUS, fpSize=BITS)
        for row, molecule in zip(features, molecules):
            row[:] = generator.GetFingerprintAsNumPy(molecule)
    else:
        for rows, molecule in zip(features, molecules):
            _fill_in_graph(rows, molecule)
    return features


def _fill_in_graph(rows, molecule):
    most = len(rows)
    for number, atom in zip(range(most), molecule.GetAtoms()):
        rows[number, :ATOM_FEATURES] = _of_atom(atom)
    for bond in molecule.GetBonds():
        ends = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        if max(ends) < most:
            kind = BONDS.get(str(bond.GetBondType()), BOND_TYPES)
            for here, there in (ends, ends[::-1]):
                rows[here, ATOM_FEATURES + there] = kind


def _of_atom(atom):
    symbol = atom.GetSymbol()
    element = ELEMENTS.index(symbol) if symbol in ELEMENTS else len(ELEMENTS)
    charge = max(-MOST_CHARGE, min(atom.GetFormalCharge(), MOST_CHARGE))
    return [
        1,
        *_one_hot(element, len(ELEMENTS)),
        *_one_hot(atom.GetDegree(), MOST_NEIGHBOURS),
        *_one_hot(atom.GetTotalNumHs(), MOST_HYDROGENS),
        *(charge, int(atom.GetIsAromatic()), int(atom.IsInRing())),
    ]


def _one_hot(number, most):
    return [int(min(number, most) == place) for place in range(most + 1)]


def _rdkit():
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem import rdFingerprintGenerator
    except ImportError as error:
        raise UserError(f"RDKit is missing ({error}): pip install 'maml_tf[molecules]'") from None
    return Chem, rdBase, rdFingerprintGenerator
