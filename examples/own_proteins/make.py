"""Writes proteins.csv and new.fasta: artificial proteins that carry the signals of their places.

    python make.py

Signals are caricatures of real ones. A protein of the secretory pathway starts with charges and a
hydrophobic stretch; a mitochondrial one with an arginine-rich helix without acids; a peroxisomal
one ends in SKL; a nuclear one holds a cluster of lysines. Proteins come in families of three that
are copies of each other with every tenth residue changed, as homologs are.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
PLACES = ("mitochondrion", "nucleus", "peroxisome", "secreted")
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
FAMILIES, COPIES = 68, 3


def main() -> None:
    """Write both files."""
    chance = np.random.default_rng(0)
    rows, new = [], []
    for family in range(FAMILIES):
        place = PLACES[family % len(PLACES)]
        parent = protein(chance, place)
        for copy in range(COPIES):
            sequence = parent if copy == 0 else mutated(chance, parent)
            name = f"protein-{COPIES * family + copy:03d}"
            if family >= FAMILIES - len(PLACES):
                new.append((name, place, sequence))
            else:
                known = place if chance.random() < 0.8 else ""
                rows.append([name, sequence, known, f"family-{family:02d}"])
    with (FOLDER / "proteins.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "sequence", "location", "family"])
        writer.writerows(rows)
    entries = (f">{name} made for {place}\n{sequence}\n" for name, place, sequence in new)
    (FOLDER / "new.fasta").write_text("".join(entries), encoding="utf-8")


def protein(chance: np.random.Generator, place: str) -> str:
    """A random protein with the signal of a place."""

    def some(letters: str, n: int) -> str:
        return "".join(chance.choice(list(letters), n))

    body = some(AMINO_ACIDS, int(chance.integers(40, 80)))
    if place == "secreted":
        return "MK" + some("KR", 2) + some("LLLAVIF", 12) + some("AGS", 3) + body
    if place == "mitochondrion":
        return "ML" + some("RRALSSV", 18) + body
    if place == "nucleus":
        at = int(chance.integers(10, 30))
        return "M" + body[:at] + some("KKKR", 6) + body[at:]
    return "M" + body + some("AST", 2) + "SKL"


def mutated(chance: np.random.Generator, parent: str) -> str:
    """The protein with about every tenth residue changed, its ends kept."""
    letters = list(parent)
    for at in range(4, len(letters) - 4):
        if chance.random() < 0.1:
            letters[at] = str(chance.choice(list(AMINO_ACIDS)))
    return "".join(letters)


if __name__ == "__main__":
    main()
