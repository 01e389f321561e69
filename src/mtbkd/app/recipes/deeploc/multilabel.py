"""Protein localisation with several labels: all of DeepLoc 2.0, and teachers that see a part each.

28,303 proteins in one to five of ten locations, in five partitions without close relatives in
another. Partitions 0-2 teach teachers and student, 3 chooses and calibrates, 4 tests. What a
teacher says about partitions 0-2 comes from a model that has not seen that partition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from torch import nn

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Costs, Recipe, Task
from mtbkd.app.recipes.common import mixed
from mtbkd.app.recipes.deeploc.partitions import (
    CALIBRATION,
    TEACH,
    TEST,
    PartitionProteins,
    read_partitions,
    some_of_each,
)
from mtbkd.app.recipes.deeploc.shared import LOCATIONS, cached_features, network, read
from mtbkd.data import make_dataset
from mtbkd.inputs.proteins import composition, experts
from mtbkd.inputs.proteins.kind import draw
from mtbkd.outputs.aligned import TeacherOutputs, align, make_table
from mtbkd.types import Floats32, Ints, Report, quiet

Predict = Callable[[Ints], Floats32]
"""Rows of the proteins to the probabilities of yes, (protein, label)."""

_END, _CHAIN = 60, 1000  # residues that the experts see
_TINY = 70  # proteins of each partition in the scenario tiny


@dataclass(frozen=True)
class Effort:
    """How long the teachers learn: epochs at both ends and on the chain, and rounds of boosting."""

    end: int = 10
    chain: int = 14
    boosting: int = 200


_TINY_EFFORT = Effort(1, 1, 5)


def load(config: RunConfig, folder: Path, report: Report = quiet) -> Task:
    """Read the proteins, compute their features once, and split by partition."""
    proteins = read_partitions(config)
    if config.scenario == "tiny":
        proteins = some_of_each(proteins, _TINY, config.seed)
    everything = make_dataset(
        cached_features(proteins.sequences, folder),
        labels=proteins.labels,
        classes=LOCATIONS,
        ids=proteins.ids,
        family="multilabel",
        name="proteins",
    )
    train, calibration, test = (
        np.flatnonzero(np.isin(proteins.partitions, part)) for part in (TEACH, CALIBRATION, TEST)
    )
    judged = everything.subset(test)
    return Task(
        name="deeploc-multilabel",
        train=everything.subset(train),
        calibration=everything.subset(calibration),
        test=judged,
        teacher_data=proteins,
        drawn=lambda row: draw(proteins.sequences[test[row]]),
        others=mixed(judged, config.seed),
        noun="location",
        together=proteins.partitions[calibration],
    )


def teach(config: RunConfig, task: Task, report: Report = quiet) -> tuple[TeacherOutputs, Costs]:
    """Train four teachers three times each, without one of the partitions 0-2 every time."""
    proteins: PartitionProteins = task.teacher_data
    effort = _TINY_EFFORT if config.scenario == "tiny" else Effort()
    tables, costs = [], {}
    for number, (name, train) in enumerate(_teachers(proteins, effort).items()):
        found, size, spent = [], 0.0, 0.0
        for fold in TEACH:
            rows = np.flatnonzero(
                np.isin(proteins.partitions, TEACH) & (proteins.partitions != fold)
            )
            report(f"training {name}", fold, len(TEACH))
            predict, size = train(rows, _seed(config.seed, number, fold))
            asked = np.flatnonzero(np.isin(proteins.partitions, (fold, CALIBRATION, TEST)))
            start = perf_counter()
            answers = np.full(proteins.labels.shape, np.nan, np.float32)
            answers[asked] = predict(asked)
            spent += (perf_counter() - start) / len(asked)
            found.append(answers)
            report(f"training {name}", fold + 1, len(TEACH))
        costs[name] = {"parameters": len(TEACH) * size, "ms_per_example": 1000 * spent}
        tables.append(
            make_table(
                name,
                np.nanmean(found, 0),  # over the models that had not seen the protein
                kind="probs",
                ids=proteins.ids,
                classes=LOCATIONS,
                family="multilabel",
            )
        )
    return align(tables, task.ids, LOCATIONS), costs


Train = Callable[[Ints, int], tuple[Predict, float]]
"""Rows to learn from and a seed to a trained model and its number of parameters."""


def _teachers(proteins: PartitionProteins, effort: Effort) -> dict[str, Train]:
    """The experts, each by its name."""
    start = experts.first(proteins.sequences, _END)
    end = experts.last(proteins.sequences, _END)
    chain = experts.both_ends(proteins.sequences, _CHAIN)
    n = len(LOCATIONS)

    def on(pieces: experts.Pieces, build: Callable[[], nn.Module], epochs: int) -> Train:
        def train(rows: Ints, seed: int) -> tuple[Predict, float]:
            model = experts.school(build, pieces, proteins.labels, rows, seed, epochs=epochs)
            size = float(sum(p.numel() for p in model.parameters()))
            return lambda asked: experts.probabilities(model, pieces, asked), size

        return train

    shares = composition.shares(proteins.sequences)

    def boost(rows: Ints, seed: int) -> tuple[Predict, float]:
        trees = composition.boost(shares[rows], proteins.labels[rows], effort.boosting, seed)
        return lambda asked: composition.probabilities(trees, shares[asked]), composition.size(
            trees
        )

    return {
        "composition": boost,
        f"first {_END} residues": on(start, lambda: experts.EndExpert(n, _END), effort.end),
        f"last {_END} residues": on(end, lambda: experts.EndExpert(n, _END), effort.end),
        "whole chain": on(chain, lambda: experts.ChainExpert(n), effort.chain),
    }


def _seed(seed: int, teacher: int, fold: int) -> int:
    return int(np.random.default_rng([seed, teacher, fold]).integers(2**31))


RECIPE = Recipe(
    name="deeploc-multilabel",
    summary="Where proteins go, several places each; all of DeepLoc 2.0, experts by residues.",
    needs="the training set of DeepLoc 2.0: mtbkd data get deeploc2 (docs/data.md)",
    defaults={
        "recipe": "deeploc-multilabel",
        "prior": {"concentration": 5.0, "power": 0.05, "discount": 0.0},
        "student": {"hidden": [128], "weight_scale": 1.75},
        "map": {"epochs": 12, "batch_size": 256, "learning_rate": 0.02},
        "sampler": {"burn_in": 2000, "draws": 30, "thinning": 300, "batch_size": 500},
        "chains": 4,
    },
    load=load,
    teach=teach,
    network=network,
    read=read,
    scenarios=("tiny",),
)
