"""A small folder of proteins of one's own, and tiny models to read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from own_data import FAST, write_csv
from tiny_backbones import write_esm, write_t5

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
PLACES = ["in", "out"]
FAMILIES, COPIES = 24, 3
ROWS = FAMILIES * COPIES


def sequences(seed: int = 0) -> list[str]:
    """Families of three; every other family is rich in lysine, which is what ``out`` means."""
    chance = np.random.default_rng(seed)
    found = []
    for family in range(FAMILIES):
        letters = RESIDUES + "K" * (30 if family % 2 else 0)
        parent = chance.choice(list(letters), 30)
        for copy in range(COPIES):
            one = parent.copy()
            one[10 + copy] = "W"
            found.append("".join(one))
    return found


def write_proteins(folder: Path, name: str = "proteins.csv", **spoilt: object) -> Path:
    """The file of examples, families dispersed; ``spoilt`` maps ``column_row`` to another cell."""
    header = ["acc", "seq", "place", "sticky", "odd", "family"]
    rows: list[list[object]] = []
    for row, sequence in enumerate(sequences()):
        family = row // COPIES
        label = "" if row % 8 == 7 else PLACES[family % 2]
        numbers = ["" if row % 8 == 7 else family % 2, "" if row % 4 == 3 else family // 2 % 2]
        rows.append([f"p{row}", sequence, label, *numbers, f"f{family}"])
    for place, value in spoilt.items():
        column, at = place.rsplit("_", 1)
        rows[int(at)][header.index(column)] = value
    return write_csv(folder / name, header, [rows[7 * i % ROWS] for i in range(ROWS)])


def write_models(folder: Path) -> None:
    write_esm(folder / "esm")
    write_t5(folder / "t5")


def write_protein_config(folder: Path, name: str = "my.yaml", **own: object) -> Path:
    section: dict[str, object] = {
        "examples": "proteins.csv",
        "id": "acc",
        "sequence": "seq",
        "labels": "place",
        "teachers": {"ESM": {"backbone": "esm", "folds": 3}},
    }
    section = {k: v for k, v in (section | own).items() if v is not None}
    path = folder / name
    values = {"recipe": "own", "seed": 1, **FAST, "own": section}
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def write_fasta(path: Path, entries: dict[str, str]) -> Path:
    path.write_text("".join(f">{name} made up\n{s}\n" for name, s in entries.items()))
    return path
