"""Data that nobody has tuned on, with nothing set but `own`: do chains agree within the budget?

    python benchmarks/strangers.py                       # all tasks, one minute each
    python benchmarks/strangers.py --budget '5 min' --tasks wine skewed

Each task has three teachers of different make, trained on rows of their own; 100 labels, or fewer,
for the student and as many for calibration; it learns from all other rows as the teachers answer on
them. The rival is the best of the baselines, one network each.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import yaml
from numpy.typing import NDArray
from pyarrow import csv
from sklearn.datasets import load_breast_cancer, load_digits, load_wine, make_classification
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mtbkd.app.config.run import load_config
from mtbkd.app.run.commands import run

Rows = tuple[NDArray[Any], NDArray[Any]]
_LABELS, _TEST = 100, 2000


def generated(n: int, n_classes: int, **other: Any) -> Callable[[], Rows]:
    """A made-up task with redundant columns."""
    sizes: dict[str, Any] = {
        "n_features": 20,
        "n_informative": 10,
        "n_redundant": 5,
        "n_clusters_per_class": 1,
    }

    def make() -> Rows:
        made: Any = make_classification(n, n_classes=n_classes, random_state=0, **(sizes | other))
        return made

    return make


def spoilt() -> Rows:
    """Rare indicators, constant columns, and columns over six orders of magnitude."""
    made: Any = make_classification(3000, 12, n_informative=8, n_classes=4, random_state=1)
    x, y = made
    chance = np.random.default_rng(0)
    rare = (chance.random((3000, 10)) < 0.01) * (1.0 + (y[:, None] == 1))
    return np.hstack([x, rare, np.ones((3000, 2)), np.exp(3 * x[:, :4])]), y


TASKS: dict[str, Callable[[], Any]] = {
    "wine": lambda: load_wine(return_X_y=True),
    "cancer": lambda: load_breast_cancer(return_X_y=True),
    "digits": lambda: load_digits(return_X_y=True),
    "skewed": spoilt,
    "two": generated(2000, 2),
    "ten": generated(6000, 10),
    "fifty": generated(10_000, 50, n_informative=15),
    "wide": generated(3000, 5, n_features=300, n_informative=30, n_redundant=200),
    "small": generated(150, 3),
    "large": generated(50_000, 5),
}


def write(folder: Path, rows: Rows, seed: int) -> Path:
    """The files of a task, and a configuration that says nothing but where they are."""
    x, y = rows
    chance = np.random.default_rng(seed)
    order = chance.permutation(len(y))
    n_teach, n_test = len(y) // 4, min(_TEST, len(y) // 4)
    teach, rest = order[:n_teach], order[n_teach:]
    test, train = rest[:n_test], rest[n_test:]
    labelled = train[: min(_LABELS, len(train) // 2)]
    calibration = train[len(labelled) : len(labelled) + min(_LABELS, len(train) // 4)]
    split = np.full(len(y), "train", dtype=object)
    split[test], split[calibration] = "test", "calibration"
    known = np.isin(np.arange(len(y)), np.concatenate([labelled, test, calibration]))
    ids = np.array([f"row {i}" for i in range(len(y))])
    columns = {f"x{j}": x[rest, j] for j in range(x.shape[1])}
    told = [f"class {label}" if k else "" for label, k in zip(y[rest], known[rest], strict=True)]
    table = pa.table({"id": ids[rest], "split": split[rest].tolist(), "label": told, **columns})
    csv.write_csv(table, folder / "data.csv")
    parts = np.array_split(teach, 3)
    makers = (
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
        ExtraTreesClassifier(200, random_state=seed),
        make_pipeline(StandardScaler(), GaussianNB()),
    )
    teachers = {}
    for name, maker, own in zip(("logistic", "trees", "bayes"), makers, parts, strict=True):
        model = maker.fit(x[own], y[own])
        probs = model.predict_proba(x[rest])
        classes = {f"class {c}": probs[:, j] for j, c in enumerate(model.classes_)}
        csv.write_csv(pa.table({"id": ids[rest], **classes}), folder / f"{name}.csv")
        partial = len(classes) < len(np.unique(y))
        teachers[name] = {"table": f"{name}.csv", "kind": "probs", "partial": partial}
    own = {"examples": "data.csv", "labels": "label", "split": "split", "teachers": teachers}
    path = folder / "my.yaml"
    path.write_text(yaml.safe_dump({"own": own}))
    return path


def main() -> None:
    """Print one line for each task."""
    parser = argparse.ArgumentParser(description="Data that nobody has tuned on.")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--budget", default="1 min")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| task | rows, columns | s | R-hat (95 %) | accuracy | NLL | rival's | pool's | power |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in asked.tasks:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            rows = TASKS[name]()
            settings = [f"budget={asked.budget}", "baselines=fast", f"seed={asked.seed}"]
            config = load_config(write(folder, rows, asked.seed), settings)
            begun = perf_counter()
            run(config, folder / "run")
            seconds = perf_counter() - begun
            metrics = json.loads((folder / "run" / "metrics.json").read_text())
        found, student = metrics["diagnostics"], metrics["student"]
        rival = min((each["nll"] for each in metrics["baselines"].values()), default=float("nan"))
        print(
            f"| {name} | {len(rows[1]):,}, {rows[0].shape[1]} | {seconds:.0f} "
            f"| {found['rhat_95']:.3f} | {student['accuracy']:.3f} | {student['nll']:.3f} "
            f"| {rival:.3f} | {metrics['teacher_pool']['nll']:.3f} | {found['power']:g} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
