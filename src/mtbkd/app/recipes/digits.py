"""Handwritten digits: three teachers of different families, each good at something else.

The 1,797 images of scikit-learn. The teachers train on 600 rows, the student on 600 others of
which 100 are labelled; 97 more calibrate and 500 test. Scenarios show what gaps cost:

- ``padded``: the two experts have never seen the other classes, and give them no probability;
- ``declared``: the same experts, declared to know their own classes only;
- ``half``: half of all teachers' answers are missing, at random;
- ``20 labels`` and ``50 labels``: so many of the student's 600 examples are labelled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Costs, Recipe, Task, mlp
from mtbkd.app.recipes.common import Rows, ask, divided, mixed, network, picture, reader
from mtbkd.data import make_dataset
from mtbkd.outputs.aligned import Kind, TeacherOutputs
from mtbkd.teachers.base import Teacher, from_callable
from mtbkd.teachers.torch_module import from_torch
from mtbkd.types import Floats, Report, quiet

CLASSES = tuple(str(digit) for digit in range(10))
_PIXELS = 64
_TEACH, _TRANSFER, _LABELLED, _CALIBRATION, _FEW = 600, 600, 100, 97, 60
SCENARIOS = ("padded", "declared", "half", "20 labels", "50 labels")
_LEAK = 0.03  # share of the other classes' rows that an expert sees


def load(config: RunConfig, folder: Path, report: Report = quiet) -> Task:
    """Split the embedded images, stratified, by seed."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, targets = load_digits(return_X_y=True)
    images, labels = np.asarray(pixels, np.float32) / 16, np.asarray(targets, np.int64)

    def split(rows: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        first, rest = train_test_split(
            rows, train_size=size, stratify=labels[rows], random_state=config.seed
        )
        return np.asarray(first), np.asarray(rest)

    teach, rest = split(np.arange(len(labels)), _TEACH)
    transfer, rest = split(rest, _TRANSFER)
    calibration, test = split(rest, _CALIBRATION)
    _, unlabelled = split(transfer, n_labelled(config.scenario))
    known = labels.copy()
    known[unlabelled] = -1
    everything = make_dataset(
        images, labels=known, classes=CLASSES, ids=[f"digit-{i:04d}" for i in range(len(labels))]
    )
    judged = everything.subset(test)
    return Task(
        name="digits",
        train=everything.subset(transfer),
        calibration=everything.subset(calibration),
        test=judged,
        teacher_data=Rows(images[teach], labels[teach]),
        drawn=lambda row: picture(images[test[row]], 8, "image of a digit"),
        others=mixed(judged, config.seed),
    )


def n_labelled(scenario: str | None) -> int:
    """How many of the student's examples are labelled."""
    words = (scenario or "").split()
    return int(words[0]) if words[1:] == ["labels"] else _LABELLED


def teach(config: RunConfig, task: Task, report: Report = quiet) -> tuple[TeacherOutputs, Costs]:
    """Train extra trees on 0-4, a support vector classifier on 5-9, a network on 60 rows."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.model_selection import train_test_split
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.svm import SVC

    seed, rows = config.seed, task.teacher_data
    chance = np.random.default_rng([seed, 1])
    leak = 0.0 if config.scenario in ("padded", "declared") else _LEAK
    low, high = (_expert_rows(rows, half, leak, chance) for half in (range(5), range(5, 10)))
    trees: Any = ExtraTreesClassifier(200, random_state=seed).fit(*low)
    vectors: Any = OneVsRestClassifier(SVC(C=10.0)).fit(*high)
    few, _ = train_test_split(
        np.arange(len(rows.labels)), train_size=_FEW, stratify=rows.labels, random_state=seed
    )
    small = _train_network(rows.inputs[few], rows.labels[few], seed)
    knows = config.scenario == "declared"
    teachers = [
        _expert(
            "extra trees 0-4",
            "probs",
            lambda x: _every_class(trees.predict_proba(x), trees),
            sum(t.tree_.node_count for t in trees.estimators_),
            range(5) if knows else range(10),
        ),
        _expert(
            "support vectors 5-9",
            "logits",
            lambda x: _every_class(vectors.decision_function(x), vectors),
            sum(m.support_vectors_.size + m.dual_coef_.size for m in vectors.estimators_),
            range(5, 10) if knows else range(10),
        ),
        from_torch("network on 60 rows", small, classes=CLASSES, device="cpu"),
    ]
    outputs, costs = ask(teachers, task)
    if config.scenario == "half":
        heard = np.random.default_rng([seed, 2]).random(outputs.mask.shape) < 0.5
        outputs = replace(outputs, mask=outputs.mask & torch.from_numpy(heard))
    return outputs, costs


def _expert(
    name: str,
    kind: Kind,
    answer: Callable[[Floats], Floats],
    parameters: int,
    known: Sequence[int],
) -> Teacher:
    """A teacher that is declared to know some of the classes."""
    return from_callable(
        name,
        lambda x: answer(x)[:, list(known)],
        kind=kind,
        classes=[CLASSES[i] for i in known],
        partial=len(known) < len(CLASSES),
        parameters=parameters,
    )


def _expert_rows(
    rows: Rows, classes: range, leak: float, chance: np.random.Generator
) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """Rows of these classes and a few of the others."""
    keep = np.isin(rows.labels, classes) | (chance.random(len(rows.labels)) < leak)
    return rows.inputs[keep], rows.labels[keep]


def _every_class(values: NDArray[np.float64], model: Any) -> NDArray[np.float64]:
    """Columns for classes that the model has never seen."""
    lowest = 0.0 if (values >= 0).all() else values.min() - 1.0
    full = np.full((len(values), len(CLASSES)), lowest)
    full[:, model.classes_] = values
    return full


def _train_network(images: NDArray[np.floating], labels: NDArray[np.int64], seed: int) -> nn.Module:
    """A network 64-64-10, full-batch Adam."""
    generator = torch.Generator().manual_seed(seed)
    model = mlp([_PIXELS, 64, len(CLASSES)])
    for parameter in model.parameters():
        scale = parameter.shape[1] ** -0.5 if parameter.dim() == 2 else 0.0
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=1e-4)
    for _ in range(200):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    return model.eval()


RECIPE = Recipe(
    name="digits",
    summary="Handwritten digits; three small teachers, two of them experts on half the classes.",
    needs="nothing (embedded in scikit-learn)",
    defaults={
        "recipe": "digits",
        "prior": {"concentration": 1.0, "power": 30.0, "discount": 0.0},
        "student": {"hidden": [32], "weight_scale": 3.0},
        "map": {"epochs": 100},
        "sampler": {"burn_in": 1000, "draws": 50, "thinning": 50, "batch_size": None},
    },
    load=load,
    teach=teach,
    network=network,
    read=reader(_PIXELS, "images", unit=16),
    before=divided("64 pixels, row by row, from 0 to 16", 16.0, (8, 8)),
    scenarios=SCENARIOS,
)
