"""Handwritten digits: three teachers of different families, each good at something else.

The 1,797 images of scikit-learn. The teachers train on 600 rows, the student on 600 others of
which 100 are labelled; 97 more calibrate and 500 test. Scenarios show what gaps cost:

- ``padded``: the two experts have never seen the other classes, and give them no probability;
- ``declared``: the same experts, declared to know their own classes only;
- ``half``: half of all teachers' answers are missing, at random;
- ``20 labels`` and ``50 labels``: so many of the student's 600 examples are labelled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Costs, Recipe, Task, mlp
from mtbkd.app.recipes.tabular import read_numbers
from mtbkd.data import make_dataset
from mtbkd.outputs.aligned import Kind, TeacherOutputs, align, make_table
from mtbkd.types import Report, quiet

CLASSES = tuple(str(digit) for digit in range(10))
_PIXELS = 64
_TEACH, _TRANSFER, _LABELLED, _CALIBRATION, _FEW = 600, 600, 100, 97, 60
SCENARIOS = ("padded", "declared", "half", "20 labels", "50 labels")
_LEAK = 0.03  # share of the other classes' rows that an expert sees

_KNOWN = {"extra trees 0-4": range(5), "support vectors 5-9": range(5, 10)}


class TeacherRows(NamedTuple):
    """Images and labels that the teachers train on: (example, 64), (example,)."""

    images: NDArray[np.floating]
    labels: NDArray[np.int64]


def load(config: RunConfig, folder: Path, report: Report = quiet) -> Task:
    """Split the embedded images, stratified, by seed."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    del folder, report
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
    return Task(
        "digits",
        everything.subset(transfer),
        everything.subset(calibration),
        everything.subset(test),
        TeacherRows(images[teach], labels[teach]),
        lambda row: draw(images[test[row]]),
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

    del report
    seed, rows = config.seed, task.teacher_data
    chance = np.random.default_rng([seed, 1])
    leak = 0.0 if config.scenario in ("padded", "declared") else _LEAK
    low, high = (_expert_rows(rows, half, leak, chance) for half in (range(5), range(5, 10)))
    trees: Any = ExtraTreesClassifier(200, random_state=seed).fit(*low)
    vectors: Any = OneVsRestClassifier(SVC(C=10.0)).fit(*high)
    few, _ = train_test_split(
        np.arange(len(rows.labels)), train_size=_FEW, stratify=rows.labels, random_state=seed
    )
    network = _train_network(rows.images[few], rows.labels[few], seed)
    inputs = torch.cat([task.train.inputs, task.calibration.inputs, task.test.inputs]).numpy()
    sizes = {
        "extra trees 0-4": float(sum(t.tree_.node_count for t in trees.estimators_)),
        "support vectors 5-9": float(
            sum(m.support_vectors_.size + m.dual_coef_.size for m in vectors.estimators_)
        ),
        "network on 60 rows": float(sum(p.numel() for p in network.parameters())),
    }
    predictors: dict[str, tuple[Kind, Callable[[NDArray[np.floating]], ArrayLike]]] = {
        "extra trees 0-4": ("probs", lambda x: _every_class(trees.predict_proba(x), trees)),
        "support vectors 5-9": (
            "logits",
            lambda x: _every_class(vectors.decision_function(x), vectors),
        ),
        "network on 60 rows": ("logits", lambda x: network(torch.from_numpy(x)).detach().numpy()),
    }
    tables, costs = [], {}
    for name, (kind, predict) in predictors.items():
        start = perf_counter()
        values = predict(inputs)
        milliseconds = 1000 * (perf_counter() - start) / len(inputs)
        costs[name] = {"parameters": sizes[name], "ms_per_example": milliseconds}
        known = _KNOWN.get(name, range(10)) if config.scenario == "declared" else range(10)
        tables.append(
            make_table(
                name,
                np.asarray(values)[:, list(known)],
                kind=kind,
                ids=task.ids,
                classes=[CLASSES[i] for i in known],
                partial=len(known) < len(CLASSES),
            )
        )
    outputs = align(tables, task.ids, CLASSES)
    if config.scenario == "half":
        heard = np.random.default_rng([seed, 2]).random(outputs.mask.shape) < 0.5
        outputs = replace(outputs, mask=outputs.mask & torch.from_numpy(heard))
    return outputs, costs


def network(config: RunConfig, example: Tensor, n_classes: int) -> nn.Module:
    """The student: pixels to logits."""
    return mlp([example.shape[-1], *config.student.hidden, n_classes])


def read(path: Path) -> tuple[tuple[str, ...], Tensor]:
    """Read new images: .npy (example, 64) or .csv with 64 pixel columns and, if wanted, an id.

    Pixels are in 0-16, as scikit-learn has them.

    Raises:
        InputError: If the file is not that.
    """
    ids, pixels = read_numbers(path, _PIXELS, "images")
    data = make_dataset(pixels / 16, classes=CLASSES, ids=ids, name=str(path))
    return data.ids, data.inputs


def draw(image: NDArray[np.floating]) -> str:
    """An 8 x 8 image as inline SVG."""
    cells = "".join(
        f'<rect x="{i % 8}" y="{i // 8}" width="1.02" height="1.02" fill-opacity="{v:.2f}"/>'
        for i, v in enumerate(image.tolist())
        if v > 0
    )
    return (
        '<svg viewBox="0 0 8 8" width="96" height="96" role="img" aria-label="image of a digit" '
        f'style="background:#fff" fill="#111">{cells}</svg>'
    )


def _expert_rows(
    rows: TeacherRows, classes: range, leak: float, chance: np.random.Generator
) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """Rows of these classes and a few of the others."""
    keep = np.isin(rows.labels, classes) | (chance.random(len(rows.labels)) < leak)
    return rows.images[keep], rows.labels[keep]


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
        "sampler": {"burn_in": 2000, "draws": 50, "thinning": 200, "batch_size": 600},
    },
    load=load,
    teach=teach,
    network=network,
    read=read,
    scenarios=SCENARIOS,
)
