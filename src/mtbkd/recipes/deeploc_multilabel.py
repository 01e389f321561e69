"""Protein localisation with several labels: all of DeepLoc 2.0, and teachers that see a part each.

28,303 proteins in one to five of ten locations, in five partitions without close relatives in
another. Partitions 0-2 teach teachers and student, 3 chooses and calibrates, 4 tests. What a
teacher says about partitions 0-2 comes from a model that has not seen that partition.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor, nn

from mtbkd.config import RunConfig
from mtbkd.data import make_dataset
from mtbkd.outputs import TeacherOutputs, align, make_table
from mtbkd.proteins import experts
from mtbkd.proteins.features import sequence_features
from mtbkd.proteins.residues import Residues
from mtbkd.recipes import deeploc
from mtbkd.recipes.base import Costs, Recipe, Task, mlp
from mtbkd.recipes.deeploc import CLASSES
from mtbkd.samples import save_tensors
from mtbkd.types import InputError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Predict = Callable[[Ints], Floats]
"""Rows of the proteins to the probabilities of yes, (protein, label)."""

TEACH, CALIBRATION, TEST = (0, 1, 2), 3, 4
_FOLDER = "deeploc2_full"
_END, _CHAIN = 60, 1000  # residues that the experts see
_LEAVES = 15
_TINY = 70  # proteins of each partition in the scenario tiny


class Proteins(NamedTuple):
    """Proteins in the order of partitions.

    Attributes:
        ids: Accessions.
        sequences: Residues in one-letter code.
        labels: 0 or 1, shape (protein, label).
        partitions: 0 to 4, shape (protein,).
    """

    ids: tuple[str, ...]
    sequences: tuple[str, ...]
    labels: Floats
    partitions: Ints


@dataclass(frozen=True)
class Effort:
    """How long the teachers learn: epochs at both ends and on the chain, and rounds of boosting."""

    end: int = 8
    chain: int = 8
    boosting: int = 200


_TINY_EFFORT = Effort(1, 1, 5)


def load(config: RunConfig, folder: Path) -> Task:
    """Read the proteins, compute their features once, and split by partition."""
    proteins = read_partitions(config)
    if config.scenario == "tiny":
        proteins = _some(proteins, _TINY, config.seed)
    everything = make_dataset(
        _cached_features(proteins.sequences, folder),
        labels=proteins.labels,
        classes=CLASSES,
        ids=proteins.ids,
        family="multilabel",
        name="proteins",
    )
    rows = [np.isin(proteins.partitions, part).nonzero()[0] for part in (TEACH, CALIBRATION, TEST)]
    return Task(
        "deeploc-multilabel",
        *(everything.subset(part) for part in rows),
        proteins,
        lambda row: deeploc.draw(proteins.sequences[rows[2][row]]),
    )


def teach(config: RunConfig, task: Task) -> tuple[TeacherOutputs, Costs]:
    """Train four teachers three times each, without one of the partitions 0-2 every time."""
    proteins: Proteins = task.teacher_data
    effort = _TINY_EFFORT if config.scenario == "tiny" else Effort()
    tables, costs = [], {}
    for number, (name, train) in enumerate(_teachers(proteins, effort).items()):
        size, spent = 0.0, 0.0
        found = []
        for fold in TEACH:
            rows = np.flatnonzero(
                np.isin(proteins.partitions, TEACH) & (proteins.partitions != fold)
            )
            predict, size = train(rows, _seed(config.seed, number, fold))
            asked = np.flatnonzero(np.isin(proteins.partitions, (fold, CALIBRATION, TEST)))
            start = perf_counter()
            answers = np.full(proteins.labels.shape, np.nan, np.float32)
            answers[asked] = predict(asked)
            spent += (perf_counter() - start) / len(asked)
            found.append(answers)
        costs[name] = {"parameters": len(TEACH) * size, "ms_per_example": 1000 * spent}
        tables.append(
            make_table(
                name,
                combined(np.stack(found)),
                kind="probs",
                ids=proteins.ids,
                classes=CLASSES,
                family="multilabel",
            )
        )
    return align(tables, task.ids, CLASSES), costs


def combined(answers: Floats) -> Floats:
    """One answer for each protein: the mean of those models that were asked.

    Args:
        answers: Probabilities of yes, NaN where a model was not asked because it had seen the
            partition, shape (model, protein, label).
    """
    return np.nanmean(answers, 0)


def network(config: RunConfig, example: Tensor, n_labels: int) -> nn.Module:
    """The student: frozen standardisation, then a small network."""
    layers = mlp([example.shape[-1], *config.student.hidden, n_labels])
    return nn.Sequential(deeploc.Standardise(example), *layers)


def read_partitions(config: RunConfig) -> Proteins:
    """All proteins of the five files.

    Raises:
        InputError: If a file is missing, or is not what it should be.
    """
    root = Path(config.data or os.environ.get("MTBKD_DATA", ".")) / _FOLDER
    files = [root / f"partition{part}.csv.gz" for part in (*TEACH, CALIBRATION, TEST)]
    missing = [path.name for path in files if not path.exists()]
    if missing:
        raise InputError(
            f"Expected the DeepLoc 2.0 proteins in {root}, but {missing[0]} is missing "
            f"({len(missing)} such). Set MTBKD_DATA to the folder that holds {_FOLDER}; see "
            "docs/data.md."
        )
    ids: list[str] = []
    sequences: list[str] = []
    named: list[str] = []
    partitions: list[int] = []
    for part, path in enumerate(files):
        rows = _read(path)
        ids += [row["accession"] for row in rows]
        sequences += [row["sequence"] for row in rows]
        named += [row["label"] for row in rows]
        partitions += [part] * len(rows)
    labels = np.zeros((len(ids), len(CLASSES)), np.float32)
    for row, names in enumerate(named):
        for name in names.split("|"):
            if name not in CLASSES:
                raise InputError(
                    f"Expected locations among {', '.join(CLASSES)}, but got {name!r} for protein "
                    f"{ids[row]!r}. Fetch the files again."
                )
            labels[row, CLASSES.index(name)] = 1
    return Proteins(tuple(ids), tuple(sequences), labels, np.array(partitions))


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, EOFError, ValueError) as error:
        raise InputError(
            f"Expected proteins in {path}, but got: {error}. Fetch it again."
        ) from None
    needed = ("accession", "sequence", "label")
    lacking = [name for name in needed if not rows or rows[0].get(name) is None]
    if lacking:
        raise InputError(
            f"Expected the columns {', '.join(needed)} in {path}, but {', '.join(lacking)} is "
            "missing. Fetch the file again."
        )
    return rows


def _some(proteins: Proteins, n: int, seed: int) -> Proteins:
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
    return Proteins(ids, sequences, proteins.labels[rows], proteins.partitions[rows])


def _cached_features(sequences: tuple[str, ...], folder: Path) -> Tensor:
    """Features of these sequences, from the folder if they were computed before."""
    digest = hashlib.sha256("\n".join(sequences).encode()).hexdigest()[:16]
    path = folder / f"sequences-{digest}.safetensors"
    if not path.exists():
        save_tensors(path, {"features": torch.from_numpy(sequence_features(sequences))})
    return torch.from_numpy(load_file(path)["features"])


Train = Callable[[Ints, int], tuple[Predict, float]]
"""Rows to learn from and a seed to a trained model and its number of parameters."""


def _teachers(proteins: Proteins, effort: Effort) -> dict[str, Train]:
    """The experts, each by its name."""
    start = experts.first(proteins.sequences, _END)
    end = experts.last(proteins.sequences, _END)
    chain = experts.both_ends(proteins.sequences, _CHAIN)
    n = len(CLASSES)
    at_end, along = experts.Schooling(effort.end), experts.Schooling(effort.chain)

    def on(pieces: experts.Pieces, build: Callable[[], nn.Module], how: experts.Schooling) -> Train:
        def train(rows: Ints, seed: int) -> tuple[Predict, float]:
            model = experts.school(build(), pieces, proteins.labels, rows, how, seed)
            size = float(sum(p.numel() for p in model.parameters()))
            return lambda asked: experts.probabilities(model, pieces, asked), size

        return train

    return {
        "composition": _boosting(proteins, effort.boosting),
        f"first {_END} residues": on(start, lambda: experts.EndExpert(n, _END), at_end),
        f"last {_END} residues": on(end, lambda: experts.EndExpert(n, _END), at_end),
        "whole chain": on(chain, lambda: experts.ChainExpert(n), along),
    }


def _boosting(proteins: Proteins, rounds: int) -> Train:
    """Boosted trees on the share of each amino acid, one model for each label."""
    residues = Residues.of(proteins.sequences)
    counts = residues.counts(np.ones(len(residues.codes), bool))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)

    def train(rows: Ints, seed: int) -> tuple[Predict, float]:
        models: list[Any] = []
        for column in range(proteins.labels.shape[1]):
            known = proteins.labels[rows, column]
            stops = 0 < known.sum() < len(known) and min(known.sum(), (1 - known).sum()) >= 20
            model = HistGradientBoostingClassifier(
                max_iter=rounds, learning_rate=0.1, max_leaf_nodes=_LEAVES, l2_regularization=1.0,
                early_stopping=bool(stops), random_state=seed,
            )  # fmt: skip
            models.append(model.fit(shares[rows], known) if known.any() else None)
        leaves = sum(_LEAVES * model.n_iter_ for model in models if model is not None)
        return lambda asked: _of_trees(models, shares[asked]), float(leaves)

    return train


def _of_trees(models: Iterable[Any], shares: NDArray[np.float64]) -> Floats:
    """Probabilities of yes; 0 for a label that no training protein has."""
    columns = [
        np.zeros(len(shares)) if model is None else model.predict_proba(shares)[:, -1]
        for model in models
    ]
    return np.stack(columns, 1).astype(np.float32)


def _seed(seed: int, teacher: int, fold: int) -> int:
    return int(np.random.default_rng([seed, teacher, fold]).integers(2**31))


RECIPE = Recipe(
    name="deeploc-multilabel",
    summary="Where proteins go, several places each; all of DeepLoc 2.0, experts by residues.",
    needs=f"the folder {_FOLDER} under $MTBKD_DATA or `data` (docs/data.md)",
    defaults={
        "recipe": "deeploc-multilabel",
        "prior": {"concentration": 1.0, "power": 1.0, "discount": 0.0},
        "student": {"hidden": [256], "weight_scale": 1.5},
        "map": {"epochs": 12, "batch_size": 256, "learning_rate": 0.02},
        "sampler": {"burn_in": 1000, "draws": 20, "thinning": 50, "batch_size": 500},
        "chains": 4,
    },
    load=load,
    teach=teach,
    network=network,
    read=deeploc.read,
    scenarios=("tiny",),
)
