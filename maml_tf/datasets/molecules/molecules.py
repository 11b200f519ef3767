"""Molecules as few-shot tasks: a task is an assay (Altae-Tran et al. 2017; Guo et al. 2021).

This is a reconstruction. From the literature, as quoted and unverified: a task is an assay,
inactive against active, with as many support molecules of each, and ROC-AUC is reported; of Tox21 9
assays are trained on and 3 tested on, of SIDER 21 and 6. That these are the first and the last of
the file is our reading. Our choice: queries are drawn class by class, too, where the literature
predicts all the rest of an assay. The expected ROC-AUC is the same, for it does not change with the
balance of the classes.
"""

import functools
import hashlib
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.datasets.molecules.assay_split import split_by_order
from maml_tf.datasets.molecules.assay_table import AssayTable, find_table, read_table
from maml_tf.datasets.molecules.features import ATOMS, featurised, input_shape, parsed
from maml_tf.datasets.molecules.tasks import AssaySampler, MoleculeTasks
from maml_tf.datasets.raw.folder_split import read_split_file
from maml_tf.datasets.raw.listing import SPLITS
from maml_tf.episodes.class_images import ClassImages
from maml_tf.episodes.source import EpisodeSource
from maml_tf.episodes.task import EpisodeSpec, Spec
from maml_tf.errors import ArgumentError
from maml_tf.objectives.roc_auc import RocAuc
from maml_tf.terminal.text import counted, listed

# How many of the first assays are trained on, in the published splits.
PUBLISHED = {'tox21': 9, 'sider': 21}


class Molecules(EpisodeSource):
    """Draws tasks of a table of assays; the molecules are read by RDKit when they are first needed.

    Molecules that RDKit cannot read, and assays with fewer molecules of a class than a task takes,
    are left out, and a line says so.

    Args:
      table: see AssayTable.
      split_of: {assay: 'train', 'val' or 'test'}.
      featurise: one of features.FEATURISERS.
      most_atoms: of a graph; of larger molecules the first so many atoms are seen.
    Raises: ArgumentError where there is nothing to train on, or no such features.
    """

    objective = RocAuc()

    def __init__(
        self,
        table: AssayTable,
        split_of: Mapping[str, str],
        featurise: str = 'fingerprint',
        most_atoms: int = ATOMS,
    ):
        self.table, self.split_of = table, dict(split_of)
        self.featurise, self.most_atoms = featurise, most_atoms
        self.input_shape = input_shape(featurise, most_atoms)
        self.splits = tuple(split for split in SPLITS if split in self.split_of.values())
        self.identity = _identity(table, self.split_of)
        self._said = set()

    @classmethod
    def from_csv(
        cls,
        path: str | pathlib.Path,
        split_file: str | pathlib.Path | None = None,
        featurise: str = 'fingerprint',
        most_atoms: int = ATOMS,
    ) -> 'Molecules':
        """Makes a source of a csv file, see assay_table.read_table.

        Args:
          path: the file, or the folder that holds it alone.
          split_file: csv with the columns assay and split, see folder_split.read_split_file; None:
            the first three quarters of the assays are trained on, the rest tested on.
          featurise, most_atoms: see Molecules.
        Raises: ArgumentError where a file is wrong.
        """
        return molecules(path, None, split_file, featurise, most_atoms)

    def count_classes(self, split: str) -> int:
        del split
        return 2

    def tasks(self, split: str, spec: Spec, seed: int) -> MoleculeTasks:
        """Returns draw(start, count), see EpisodeSource.

        Raises: ArgumentError where no assay of the split gives such tasks.
        """
        if not isinstance(spec, EpisodeSpec):
            reason = 'molecules come as tasks of an assay alone, not as batches or sequences'
            raise ArgumentError('spec', type(spec).__name__, reason)
        if spec.way != 2:
            raise ArgumentError('way', spec.way, 'an assay has 2 classes, inactive and active')
        data = self._data
        classes = self._classes(data, split, spec)
        sampler = AssaySampler(classes.sizes, spec, (seed, split))
        return MoleculeTasks(classes, sampler, spec, data.features)

    def _classes(self, data, split, spec):
        least, few, members, names = spec.shot + spec.query, [], [], []
        wanted = ('train', 'val') if split == 'trainval' else (split,)
        assays = [assay for assay in self.table.assays if self.split_of.get(assay) in wanted]
        if not assays:
            reason = f'there are no {split} assays, only {" and ".join(self.splits)}'
            if split == 'val' and 'test' in self.splits:
                reason += '; evaluate on the test assays'
            raise ArgumentError('split', None, reason)
        for assay in assays:
            labels = data.labels[:, self.table.assays.index(assay)]
            of_label = [np.flatnonzero(labels == label) for label in (0, 1)]
            if (fewest := min(map(len, of_label))) < least:
                few.append(f'{assay} ({fewest} of {least})')
                continue
            members += of_label
            names += [f'inactive: {assay}', f'active: {assay}']
        if not members:
            reason = (
                f'{spec.shot} support + {spec.query} query molecules of a class are more than any '
                f'{split} assay has: {listed(few)}'
            )
            raise ArgumentError('shot', spec.shot, reason)
        if few:
            self._say(
                f'{self.table.name}: left out {counted(len(few), "assay")} with fewer molecules of '
                f'a class than a task takes: {listed(few)}'
            )
        every = np.concatenate(members).astype(np.int32)
        sizes = np.array([len(part) for part in members])
        return ClassImages(tf.constant(every), sizes, names, [data.smiles[i] for i in every])

    @functools.cached_property
    def _data(self):
        """The molecules that RDKit reads, with their features."""
        table, found = self.table, parsed(self.table.smiles)
        there = np.array([molecule is not None for molecule in found], bool)
        if not there.any():
            raise ArgumentError('data_dir', table.name, 'RDKit reads no molecule of its SMILES')
        lost = len(found) - int(there.sum())
        if lost:
            first = table.smiles[int(np.argmin(there))]
            self._say(
                f'{table.name}: left out {counted(lost, "molecule")} of {len(found):,} whose '
                f'SMILES RDKit cannot read, such as {listed([first])}'
            )
        read = [molecule for molecule in found if molecule is not None]
        large = sum(molecule.GetNumAtoms() > self.most_atoms for molecule in read)
        if self.featurise == 'graph' and large:
            self._say(
                f'{table.name}: {counted(large, "molecule")} of {len(read):,} have more than '
                f'{self.most_atoms} atoms, of which the first {self.most_atoms} are seen'
            )
        features = tf.constant(featurised(read, self.featurise, self.most_atoms))
        smiles = [text for text, is_there in zip(table.smiles, there) if is_there]
        return _Data(smiles, table.labels[there], features)

    def _say(self, line):
        """Prints a line, once."""
        if line not in self._said:
            self._said.add(line)
            print(line)


class _Data(NamedTuple):
    """smiles: [molecules]; labels: int8 [molecules, assays]; features: [molecules, ...]."""

    smiles: list[str]
    labels: np.ndarray
    features: tf.Tensor


def molecules(
    data_dir: str | pathlib.Path | None,
    name: str | None = None,
    split_file: str | pathlib.Path | None = None,
    featurise: str = 'fingerprint',
    most_atoms: int = ATOMS,
) -> Molecules:
    """Returns the molecules of a csv file.

    Args:
      data_dir, name: see assay_table.find_table; a name in PUBLISHED has its published split.
      split_file: instead of it.
      featurise, most_atoms: see Molecules.
    Raises: ArgumentError where a file is missing or wrong.
    """
    shape = input_shape(featurise, most_atoms)  # Before a large file is read.
    del shape
    table = read_table(find_table(data_dir, name))
    if split_file:
        split_of = read_split_file(split_file, table.assays, 'assay')
    else:
        split_of = split_by_order(table.assays, PUBLISHED.get(name))
    return Molecules(table, split_of, featurise, most_atoms)


def _identity(table, split_of):
    """Names the molecules, their labels and the split, so that no run resumes another on others."""
    digest = hashlib.sha256(table.labels.tobytes())
    for texts in (table.smiles, table.assays, [split_of.get(name, '') for name in table.assays]):
        digest.update('\n'.join(texts).encode('utf-8', 'surrogatepass'))
    return digest.hexdigest()[:12]
