"""Protein subcellular localisation: the paper's own files, two teachers known by their outputs.

2,500 training and 1,000 test proteins in ten locations. The student reads the sequence alone,
through features that need no pre-trained network. 80 % of the training proteins teach it, 20 %
validate, as in the paper.

The proteins are in five homology partitions; none has a close relative in another. The scenario
``apart-N`` tests on partition N alone, validates on one that the seed picks, and learns from the
other three. Validation is kept apart as well, else it would be easier than the test.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Costs, Recipe, Task
from mtbkd.app.recipes.deeploc.shared import (
    LOCATIONS,
    cached_features,
    data_files,
    network,
    read,
)
from mtbkd.data import Dataset, make_dataset
from mtbkd.inputs.proteins.kind import draw
from mtbkd.inputs.proteins.reading import read_proteins
from mtbkd.inputs.tables import read_table
from mtbkd.outputs.aligned import TeacherOutputs, align, make_table
from mtbkd.types import Floats, InputError, Ints, Report, quiet

_FILES = ("data_our_train_sample.csv", "data_our_test.csv")
# (training rows, test rows): logits despite the names, and only the first have a header
_TEACHERS = {
    "ESM-2 650M": ("ESM_650M_probs_sample.csv", "ESM_650M_probs_test.csv"),
    "ProtT5": ("T5_probs_sample.csv", "T5_probs_test.csv"),
}
_SEVERAL = "data_MuLabel_sub.csv"
SCENARIOS = tuple(f"apart-{partition}" for partition in range(5))
VALIDATION = 0.2


def load(config: RunConfig, folder: Path, report: Report = quiet) -> Task:
    """Read the proteins, compute their features once, and split by seed."""
    source = data_folder(config)
    paper = read_paper(source)
    everything = make_dataset(
        cached_features(paper.sequences, folder),
        labels=paper.labels,
        classes=LOCATIONS,
        ids=paper.ids,
        name="proteins",
    )
    rng = np.random.default_rng(config.seed)
    order, judged = rng.permutation(paper.n_train), np.arange(paper.n_train, len(paper.ids))
    held = np.arange(len(order)) < round(VALIDATION * len(order))
    if config.scenario is not None:
        tested = SCENARIOS.index(config.scenario)
        validated = (tested + rng.integers(1, len(SCENARIOS))) % len(SCENARIOS)
        judged = judged[paper.partitions[judged] == tested]
        order = order[paper.partitions[order] != tested]
        held = paper.partitions[order] == validated
    return Task(
        name="deeploc",
        train=everything.subset(order[~held]),
        calibration=everything.subset(order[held]),
        test=everything.subset(judged),
        teacher_data=paper.ids,
        drawn=lambda row: draw(paper.sequences[judged[row]]),
        others=_several_locations(source, folder),
        noun="location",
        together=None if config.scenario is None else paper.partitions[order[held]],
    )


def _several_locations(source: Path, folder: Path) -> dict[str, Dataset]:
    """The paper's proteins of two to five locations, if they are there."""
    if not (source / _SEVERAL).exists():
        return {}
    proteins = read_proteins(source / _SEVERAL)
    inputs = cached_features(proteins.sequences, folder)
    data = make_dataset(inputs, classes=LOCATIONS, ids=proteins.ids, name=_SEVERAL)
    return {"several locations": data}


def teach(config: RunConfig, task: Task, report: Report = quiet) -> tuple[TeacherOutputs, Costs]:
    """Read both teachers' logits; they were trained on the training proteins."""
    source, ids = data_folder(config), task.teacher_data
    tables = []
    for name, (train, test) in _TEACHERS.items():
        logits = np.concatenate([_read_numbers(source / train, 1), _read_numbers(source / test, 0)])
        tables.append(
            make_table(name, logits, kind="logits", ids=ids, classes=LOCATIONS, held_out=False)
        )
    return align(tables, ids, LOCATIONS).at(task.ids), {}


def data_folder(config: RunConfig, outputs: bool = True) -> Path:
    """Where the files are, those of the teachers' outputs among them unless they are not needed.

    Raises:
        InputError: If they are not there.
    """
    names = [*_FILES, *(f for pair in _TEACHERS.values() for f in pair if outputs)]
    return data_files(config, "deeploc2_mtbkd", names, "the paper's protein files", "deeploc")


class Paper(NamedTuple):
    """The paper's proteins of one location, those for training first.

    Attributes:
        ids: Accessions.
        sequences: Residues in one-letter code.
        labels: Positions among the locations.
        partitions: Homology partitions, 0 to 4, shape (protein,).
        n_train: How many are for training.
    """

    ids: tuple[str, ...]
    sequences: tuple[str, ...]
    labels: list[int]
    partitions: Ints
    n_train: int


def read_paper(source: Path) -> Paper:
    """Both files of a folder.

    Raises:
        InputError: If one is not what it should be.
    """
    read = [read_table(source / name, "proteins") for name in _FILES]
    return Paper(
        ids=tuple(i for table in read for i in table.words("ACC")),
        sequences=tuple(s for table in read for s in table.words("Sequence")),
        labels=[int(label) for table in read for label in table.numbers("Label")],
        partitions=np.concatenate([table.numbers("Partition") for table in read]).astype(np.int64),
        n_train=read[0].cells.num_rows,
    )


def _read_numbers(path: Path, skip: int) -> Floats:
    """A table of numbers with or without a header row."""
    try:
        return np.loadtxt(path, delimiter=",", skiprows=skip, ndmin=2)
    except ValueError as error:
        raise InputError(
            f"Expected a table of numbers in {path}, but got: {error}. Fetch the file again."
        ) from None


RECIPE = Recipe(
    name="deeploc",
    summary="Where proteins go in the cell; the paper's files, two protein language models.",
    needs="the paper's files: mtbkd data get deeploc (docs/data.md)",
    defaults={
        "recipe": "deeploc",
        "prior": {"concentration": 5.0, "power": 1.0, "discount": 0.0},
        "student": {"hidden": [64], "weight_scale": 1.5},
        "map": {"epochs": 30, "batch_size": 100, "learning_rate": 0.03},
        "sampler": {"burn_in": 300, "draws": 20, "thinning": 50, "batch_size": None},
    },
    load=load,
    teach=teach,
    network=network,
    read=read,
    scenarios=SCENARIOS,
)
