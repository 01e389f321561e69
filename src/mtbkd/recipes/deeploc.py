"""Protein subcellular localisation: the paper's own files, two teachers known by their outputs.

2,500 training and 1,000 test proteins in ten locations. The student reads the sequence alone,
through features that need no pre-trained network. 80 % of the training proteins teach it, 20 %
validate, as in the paper.

The proteins are in five homology partitions; none has a close relative in another. The scenario
``apart-N`` tests on partition N alone, validates on one that the seed picks, and learns from the
other three. Validation is kept apart as well, else it would be easier than the test.
"""

from __future__ import annotations

import csv
import hashlib
import html
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import Tensor, nn

from mtbkd.config import RunConfig
from mtbkd.data import make_dataset
from mtbkd.outputs import TeacherOutputs, align, make_table
from mtbkd.proteins.features import feature_names, sequence_features, standardisation
from mtbkd.recipes.base import Costs, Recipe, Task, mlp
from mtbkd.samples import save_tensors
from mtbkd.types import InputError

CLASSES = (
    "Cytoplasm",
    "Nucleus",
    "Extracellular",
    "Cell membrane",
    "Mitochondrion",
    "Plastid",
    "Endoplasmic reticulum",
    "Lysosome/Vacuole",
    "Golgi apparatus",
    "Peroxisome",
)
_FOLDER = "deeploc2_mtbkd"
_FILES = ("data_our_train_sample.csv", "data_our_test.csv")
# (training rows, test rows): logits despite the names, and only the first have a header
_TEACHERS = {
    "ESM-2 650M": ("ESM_650M_probs_sample.csv", "ESM_650M_probs_test.csv"),
    "ProtT5": ("T5_probs_sample.csv", "T5_probs_test.csv"),
}
SCENARIOS = tuple(f"apart-{partition}" for partition in range(5))
_VALIDATION = 0.2
_CLIP = 5.0
# How much a group of features counts, by the start of its name; chosen by cross-validation on the
# training proteins.
_QUIET = ("composition_quarter", "profile", "motif")
_HALF_QUIET = ("membrane", "richest", "disorder", "charge1", "charge2", "charge5")


class Standardise(nn.Module):
    """Frozen first layer: features to columns of comparable size, fitted on training proteins."""

    mean: Tensor
    scale: Tensor
    loudness: Tensor

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        mean, scale = standardisation(features.numpy())
        quiet = [
            0.4 if n.startswith(_QUIET) else 0.7 if n.startswith(_HALF_QUIET) else 1.0
            for n in feature_names()
        ]
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("scale", torch.from_numpy(scale))
        self.register_buffer("loudness", torch.tensor(quiet))
        size = self(features).square().sum(1).mean()
        self.loudness *= (features.shape[1] / size.clamp_min(1.0)).sqrt()

    def forward(self, features: Tensor) -> Tensor:
        """(example, feature) to the same."""
        clipped = ((features - self.mean) * self.scale).clamp(-_CLIP, _CLIP)
        return clipped * self.loudness


class _Proteins(NamedTuple):
    """A file of proteins, column by column; labels and partitions are empty if not read."""

    ids: list[str]
    sequences: list[str]
    labels: list[int]
    partitions: list[int]


def load(config: RunConfig, folder: Path) -> Task:
    """Read the proteins, compute their features once, and split by seed."""
    source = data_folder(config)
    train, test = (_read_proteins(source / name) for name in _FILES)
    ids = [*train.ids, *test.ids]
    sequences = [*train.sequences, *test.sequences]
    everything = make_dataset(
        _cached_features(sequences, folder),
        labels=[*train.labels, *test.labels],
        classes=CLASSES,
        ids=ids,
        name="proteins",
    )
    rng = np.random.default_rng(config.seed)
    order, judged = rng.permutation(len(train.ids)), np.arange(len(test.ids))
    held = np.arange(len(order)) < round(_VALIDATION * len(order))
    if config.scenario is not None:
        tested = SCENARIOS.index(config.scenario)
        validated = (tested + rng.integers(1, len(SCENARIOS))) % len(SCENARIOS)
        judged = judged[np.array(test.partitions) == tested]
        order = order[np.array(train.partitions)[order] != tested]
        held = np.array(train.partitions)[order] == validated
    return Task(
        "deeploc",
        everything.subset(order[~held]),
        everything.subset(order[held]),
        everything.subset(len(train.ids) + judged),
        None,
        lambda row: draw(test.sequences[judged[row]]),
    )


def teach(config: RunConfig, task: Task) -> tuple[TeacherOutputs, Costs]:
    """Read both teachers' logits; they were trained on the training proteins."""
    source = data_folder(config)
    ids = [i for name in _FILES for i in _read_proteins(source / name).ids]
    tables = []
    for name, (train, test) in _TEACHERS.items():
        logits = np.concatenate([_read_numbers(source / train, 1), _read_numbers(source / test, 0)])
        tables.append(
            make_table(name, logits, kind="logits", ids=ids, classes=CLASSES, held_out=False)
        )
    outputs = align(tables, tuple(ids), CLASSES)
    return outputs.at(task.ids), {}


def network(config: RunConfig, example: Tensor, n_classes: int) -> nn.Module:
    """The student: frozen standardisation, then a small network."""
    layers = mlp([example.shape[-1], *config.student.hidden, n_classes])
    return nn.Sequential(Standardise(example), *layers)


def read(path: Path) -> tuple[tuple[str, ...], Tensor]:
    """Read new proteins: FASTA, or .csv with the columns ACC (or id) and Sequence.

    Raises:
        InputError: If the file is not that.
    """
    if path.suffix == ".csv":
        ids, sequences, *_ = _read_proteins(path, labelled=False)
    else:
        ids, sequences = _read_fasta(path)
    data = make_dataset(sequence_features(sequences), classes=CLASSES, ids=ids, name=str(path))
    return data.ids, data.inputs


def draw(sequence: str) -> str:
    """Both ends of a sequence and its length."""
    ends = sequence if len(sequence) <= 48 else f"{sequence[:24]} … {sequence[-24:]}"
    return f"<code>{html.escape(ends)}</code><br>{len(sequence)} residues"


def data_folder(config: RunConfig) -> Path:
    """Where the files are: ``data`` of the configuration, or ``$MTBKD_DATA``.

    Raises:
        InputError: If they are not there.
    """
    root = Path(config.data or os.environ.get("MTBKD_DATA", "."))
    wanted = [*_FILES, *(f for pair in _TEACHERS.values() for f in pair)]
    missing = [name for name in wanted if not (root / _FOLDER / name).exists()]
    if missing:
        raise InputError(
            f"Expected the paper's protein files in {root / _FOLDER}, but {missing[0]} is missing "
            f"({len(missing)} such). Set MTBKD_DATA to the folder that holds {_FOLDER}; see "
            "docs/data.md."
        )
    return root / _FOLDER


def _cached_features(sequences: list[str], folder: Path) -> Tensor:
    """Features of these sequences, from the folder if they were computed before."""
    digest = hashlib.sha256("\n".join(sequences).encode()).hexdigest()[:16]
    path = folder / f"sequences-{digest}.safetensors"
    if not path.exists():
        save_tensors(path, {"features": torch.from_numpy(sequence_features(sequences))})
    return torch.from_numpy(load_file(path)["features"])


def _read_proteins(path: Path, labelled: bool = True) -> _Proteins:
    """The proteins of a CSV file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise InputError(f"Expected proteins in {path}, but got: {error}. Name a file.") from None
    key = "ACC" if rows and "ACC" in rows[0] else "id"
    needed = [key, "Sequence", *(["Label", "Partition"] if labelled else [])]
    missing = [name for name in needed if not rows or rows[0].get(name) is None]
    if missing:
        raise InputError(
            f"Expected the columns {', '.join(needed)} in {path}, but {', '.join(missing)} is "
            "missing. Add it to the header."
        )
    return _Proteins(
        [row[key] for row in rows],
        [row["Sequence"].strip() for row in rows],
        [int(row["Label"]) for row in rows] if labelled else [],
        [int(row["Partition"]) for row in rows] if labelled else [],
    )


def _read_fasta(path: Path) -> tuple[list[str], list[str]]:
    """Ids (the first word of each header) and sequences."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"Expected proteins in {path}, but got: {error}. Name a file.") from None
    before, *entries = f"\n{text}".split("\n>")
    if before.strip() or not entries:
        raise InputError(
            f"Expected FASTA in {path}, with a line starting with '>' before each sequence, but "
            f"got {text[:20]!r}. Mend the file, or name it .csv if it is one."
        )
    ids, sequences = [], []
    for entry in entries:
        header, _, body = entry.partition("\n")
        ids.append((header.split() or [f"protein-{len(ids) + 1}"])[0])
        sequences.append("".join(body.split()))
    return ids, sequences


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
    needs=f"the folder {_FOLDER} under $MTBKD_DATA or `data` (docs/data.md)",
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
