"""A small folder of examples and teachers of one's own, and the command line to run it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import yaml

from mtbkd.app import cli

CLASSES = ["a", "b", "c"]
FAST = {
    "student": {"hidden": [4]},
    "map": {"epochs": 2},
    "sampler": {"engine": "sghmc", "burn_in": 10, "draws": 6, "thinning": 2, "batch_size": 50},
    "chains": 2,
    "baselines": "none",
}
ROWS = 60


def call(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    """Run the command line here; returns exit code, standard output and standard error."""
    monkeypatch.setattr(sys, "argv", ["mtbkd", *map(str, arguments)])
    code: object = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code
    found = capsys.readouterr()
    return int(str(code or 0)), found.out, found.err


def points() -> tuple[np.ndarray, np.ndarray]:
    """Three clouds of points, 60 in all, and the class of each."""
    chance = np.random.default_rng(0)
    label = np.arange(ROWS) % 3
    return chance.normal(size=(ROWS, 2)) + 3 * np.eye(3, 2)[label], label


def write_csv(path: Path, header: list[str], rows: list[list[object]]) -> Path:
    path.write_text("\n".join(",".join(map(str, row)) for row in [header, *rows]) + "\n")
    return path


def write_examples(folder: Path, **spoilt: object) -> Path:
    """The file of examples; ``spoilt`` maps ``column_row`` to another cell."""
    x, label = points()
    header = ["id", "x1", "x2", "label", "text"]
    rows: list[list[object]] = [
        [f"e{i}", *x[i].round(3).tolist(), "" if i % 5 == 4 else CLASSES[label[i]], f"word{i}"]
        for i in range(ROWS)
    ]
    for place, value in spoilt.items():
        column, row = place.rsplit("_", 1)
        rows[int(row)][header.index(column)] = value
    return write_csv(folder / "examples.csv", header, rows)


def write_table(folder: Path, classes: list[str] = CLASSES, **spoilt: object) -> Path:
    """A teacher's probabilities, near the truth."""
    _, label = points()
    wide = len(classes)
    rows: list[list[object]] = [
        [f"e{i}", *(0.5 * np.eye(wide)[label[i] % wide] + 0.5 / wide).tolist()] for i in range(ROWS)
    ]
    for place, value in spoilt.items():
        column, row = place.rsplit("_", 1)
        rows[int(row)][0 if column == "id" else 1 + classes.index(column)] = value
    return write_csv(folder / "old.csv", ["id", *classes], rows)


def write_config(folder: Path, teachers: dict[str, object], **own: object) -> Path:
    section = {"examples": "examples.csv", "labels": "label", "teachers": teachers} | own
    path = folder / "my.yaml"
    path.write_text(
        yaml.safe_dump({"recipe": "own", "seed": 1, **FAST, "own": section}, sort_keys=False)
    )
    return path


def write_module(folder: Path, name: str, text: str) -> str:
    """A module of the user's, imported once: each test needs a name of its own."""
    (folder / f"{name}.py").write_text(text)
    return name


NEAREST = """
import numpy as np
from mtbkd.teachers.base import from_callable

def nearest(sharpness=1.0):
    def logits(x):
        return -sharpness * ((x[:, None] - 3 * np.eye(3, 2)) ** 2).sum(-1)
    return from_callable("any", logits, kind="logits", classes=["a", "b", "c"])
"""
