"""Writes examples.csv and old.csv: iris flowers, and what an old teacher said about them.

    python make.py

The teachers of this folder are trained on every fifth flower; the others are the examples.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from sklearn.datasets import load_iris
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

FOLDER = Path(__file__).parent
COLUMNS = ["sepal length", "sepal width", "petal length", "petal width"]


def main() -> None:
    """Write both files."""
    flowers, species = load_iris(return_X_y=True)
    rows = np.arange(len(flowers))
    taught = rows % 5 == 0
    names = np.array(["setosa", "versicolor", "virginica"])[species]
    unlabelled = rows % 4 == 1
    with (FOLDER / "examples.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", *COLUMNS, "species"])
        for row in rows[~taught]:
            label = "" if unlabelled[row] else names[row]
            writer.writerow([f"flower-{row:03d}", *flowers[row].tolist(), label])
    two = taught & (species > 0)
    old = LinearDiscriminantAnalysis().fit(flowers[two][:, :2], species[two])
    known = rows[~taught]
    with (FOLDER / "old.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "Iris-versicolor", "Iris-virginica"])
        for row, probs in zip(known, old.predict_proba(flowers[known][:, :2]), strict=True):
            first = round(float(probs[0]), 4)
            writer.writerow([f"flower-{row:03d}", first, round(1 - first, 4)])


if __name__ == "__main__":
    main()
