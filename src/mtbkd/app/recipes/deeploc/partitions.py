"""The proteins of DeepLoc 2.0: sequences, one to five locations each, and homology partitions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.deeploc.shared import LOCATIONS, data_files
from mtbkd.inputs.tables import read_table
from mtbkd.types import Floats32, InputError, Ints

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
    labels: Floats32
    partitions: Ints


def read_partitions(config: RunConfig) -> PartitionProteins:
    """All proteins of the five files.

    Raises:
        InputError: If a file is missing, or is not what it should be.
    """
    names = [f"partition{part}.csv.gz" for part in (*TEACH, CALIBRATION, TEST)]
    root = data_files(config, "deeploc2_full", names, "the DeepLoc 2.0 proteins", "deeploc2")
    read = [read_table(root / name, "proteins") for name in names]
    ids = tuple(i for table in read for i in table.words("accession"))
    sequences = tuple(s for table in read for s in table.words("sequence"))
    places = [set(written.split("|")) for table in read for written in table.words("label")]
    for i, named in zip(ids, places, strict=True):
        if unknown := sorted(named - set(LOCATIONS)):
            raise InputError(
                f"Expected locations among {', '.join(LOCATIONS)}, but got {unknown[0]!r} for "
                f"protein {i!r}. Fetch the files again."
            )
    return PartitionProteins(
        ids=ids,
        sequences=sequences,
        labels=np.array([[place in named for place in LOCATIONS] for named in places], np.float32),
        partitions=np.repeat(np.arange(len(read)), [table.cells.num_rows for table in read]),
    )


def some_of_each(proteins: PartitionProteins, n: int, seed: int) -> PartitionProteins:
    """So many proteins of each partition."""
    chance = np.random.default_rng([seed, 2])
    parts = (np.flatnonzero(proteins.partitions == p) for p in np.unique(proteins.partitions))
    rows = np.concatenate([np.sort(chance.choice(part, n, replace=False)) for part in parts])
    return PartitionProteins(
        ids=tuple(proteins.ids[i] for i in rows),
        sequences=tuple(proteins.sequences[i] for i in rows),
        labels=proteins.labels[rows],
        partitions=proteins.partitions[rows],
    )
