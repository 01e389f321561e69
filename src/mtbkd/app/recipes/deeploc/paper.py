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

import numpy as np
from numpy.typing import NDArray

from mtbkd.app.config.run import RunConfig
from mtbkd.app.data import data_root
from mtbkd.app.recipes.base import Costs, Recipe, Task
from mtbkd.app.recipes.deeploc.shared import LOCATIONS, cached_features, draw, network, read
from mtbkd.data import Dataset, make_dataset
from mtbkd.inputs.proteins.reading import Proteins, read_proteins
from mtbkd.outputs.aligned import TeacherOutputs, align, make_table
from mtbkd.types import InputError, Report, quiet

_FOLDER = "deeploc2_mtbkd"
FILES = ("data_our_train_sample.csv", "data_our_test.csv")
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
    del report
    source = data_folder(config)
    (train, labels, partitions), (test, more, judged_partitions) = (
        read_labelled(source / name) for name in FILES
    )
    ids = [*train.ids, *test.ids]
    everything = make_dataset(
        cached_features([*train.sequences, *test.sequences], folder),
        labels=[*labels, *more],
        classes=LOCATIONS,
        ids=ids,
        name="proteins",
    )
    rng = np.random.default_rng(config.seed)
    order, judged = rng.permutation(len(train.ids)), np.arange(len(test.ids))
    held = np.arange(len(order)) < round(VALIDATION * len(order))
    if config.scenario is not None:
        tested = SCENARIOS.index(config.scenario)
        validated = (tested + rng.integers(1, len(SCENARIOS))) % len(SCENARIOS)
        judged = judged[judged_partitions == tested]
        order = order[partitions[order] != tested]
        held = partitions[order] == validated
    return Task(
        "deeploc",
        everything.subset(order[~held]),
        everything.subset(order[held]),
        everything.subset(len(train.ids) + judged),
        None,
        lambda row: draw(test.sequences[judged[row]]),
        others=_several_locations(source, folder),
        noun="location",
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
    del report
    source = data_folder(config)
    ids = [i for name in FILES for i in read_proteins(source / name).ids]
    tables = []
    for name, (train, test) in _TEACHERS.items():
        logits = np.concatenate([_read_numbers(source / train, 1), _read_numbers(source / test, 0)])
        tables.append(
            make_table(name, logits, kind="logits", ids=ids, classes=LOCATIONS, held_out=False)
        )
    outputs = align(tables, tuple(ids), LOCATIONS)
    return outputs.at(task.ids), {}


def data_folder(config: RunConfig, outputs: bool = True) -> Path:
    """Where the files are: `data_root` says under which folder.

    Args:
        config: May name another folder.
        outputs: Whether the teachers' outputs are needed.

    Raises:
        InputError: If they are not there.
    """
    folder = data_root(config.data) / _FOLDER
    wanted = [*FILES, *(f for pair in _TEACHERS.values() for f in pair if outputs)]
    missing = [name for name in wanted if not (folder / name).exists()]
    if missing:
        to = f" --to {config.data}" if config.data else ""
        raise InputError(
            f"Expected the paper's protein files in {folder}, but {missing[0]} is missing "
            f"({len(missing)} such). Run `mtbkd data get deeploc{to}`; see docs/data.md."
        )
    return folder


def read_labelled(path: Path) -> tuple[Proteins, list[int], NDArray[np.int64]]:
    """The proteins of one of the paper's files, their labels, and their partitions.

    Raises:
        InputError: If it is not one.
    """
    proteins = read_proteins(path, needed=("Label", "Partition"))
    if proteins.table is None:
        raise InputError(f"Expected a table in {path}, but it is FASTA. Fetch the file again.")
    labels, partitions = (
        proteins.table.numbers(name).astype(np.int64) for name in ("Label", "Partition")
    )
    return proteins, labels.tolist(), partitions


def _read_numbers(path: Path, skip: int) -> NDArray[np.float64]:
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
        "sampler": {"burn_in": 1000, "draws": 20, "thinning": 50, "batch_size": 500},
    },
    load=load,
    teach=teach,
    network=network,
    read=read,
    scenarios=SCENARIOS,
)
