"""The proteins of DeepLoc 2.0: sequences, one to five locations each, and homology partitions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtbkd.app.config.run import RunConfig
from mtbkd.app.data import data_root
from mtbkd.app.recipes.deeploc.shared import LOCATIONS
from mtbkd.inputs.tables import read_table
from mtbkd.types import InputError

FOLDER = "deeploc2_full"
TEACH, CALIBRATION, TEST = (0, 1, 2), 3, 4
"""Partitions; no protein has a close relative in another."""


class PartitionProteins(NamedTuple):
    """Proteins in the order of partitions.

    Attributes:
        ids: Accessions.
        sequences: Residues in one-letter code.
        labels: 0 or 1, shape (protein, label).
        partitions: 0 to 4, shape (protein,).
    """

    ids: tuple[str, ...]
    sequences: tuple[str, ...]
    labels: NDArray[np.float32]
    partitions: NDArray[np.int64]


def read_partitions(config: RunConfig) -> PartitionProteins:
    """All proteins of the five files.

    Raises:
        InputError: If a file is missing, or is not what it should be.
    """
    root = data_root(config.data) / FOLDER
    files = [root / f"partition{part}.csv.gz" for part in (*TEACH, CALIBRATION, TEST)]
    missing = [path.name for path in files if not path.exists()]
    if missing:
        raise InputError(
            f"Expected the DeepLoc 2.0 proteins in {root}, but {missing[0]} is missing "
            f"({len(missing)} such). Run `mtbkd data get deeploc2`; see docs/data.md."
        )
    ids: list[str] = []
    sequences: list[str] = []
    named: list[str] = []
    partitions: list[int] = []
    for part, path in enumerate(files):
        table = read_table(path, "proteins")
        ids += table.words("accession")
        sequences += table.words("sequence")
        named += table.words("label")
        partitions += [part] * table.cells.num_rows
    labels = np.zeros((len(ids), len(LOCATIONS)), np.float32)
    for row, names in enumerate(named):
        for name in names.split("|"):
            if name not in LOCATIONS:
                raise InputError(
                    f"Expected locations among {', '.join(LOCATIONS)}, but got {name!r} for "
                    f"protein {ids[row]!r}. Fetch the files again."
                )
            labels[row, LOCATIONS.index(name)] = 1
    return PartitionProteins(tuple(ids), tuple(sequences), labels, np.array(partitions))


def some_of_each(proteins: PartitionProteins, n: int, seed: int) -> PartitionProteins:
    """So many proteins of each partition."""
    chance = np.random.default_rng([seed, 2])
    parts = np.unique(proteins.partitions)
    rows = np.concatenate(
        [
            np.sort(chance.choice(np.flatnonzero(proteins.partitions == part), n, replace=False))
            for part in parts
        ]
    )
    ids, sequences = (tuple(values[i] for i in rows) for values in proteins[:2])
    return PartitionProteins(ids, sequences, proteins.labels[rows], proteins.partitions[rows])
