"""Reads a table of numbers, one row for each example."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtbkd.types import InputError


def read_numbers(path: Path, width: int, what: str) -> tuple[tuple[str, ...], NDArray[np.floating]]:
    """Read .npy (example, column), or .csv with a header and, if wanted, a column id first.

    Args:
        path: The file.
        width: Columns expected.
        what: What the rows are, in the plural, for messages.

    Returns:
        Ids, which count from 0 where there are none, and numbers, shape (example, column).

    Raises:
        InputError: If the file is not that.
    """
    try:
        if path.suffix == ".npy":
            numbers = np.load(path, allow_pickle=False)
            ids = tuple(str(i) for i in range(len(numbers)))
        else:
            with path.open(newline="", encoding="utf-8") as file:
                header, *rows = list(csv.reader(file)) or [[]]
            has_id = bool(header) and header[0] == "id"
            ids = tuple(row[0] if has_id else str(i) for i, row in enumerate(rows))
            numbers = np.array([[float(v) for v in row[has_id:]] for row in rows])
    except (OSError, ValueError) as error:
        raise InputError(
            f"Expected {what} in {path} as .npy or .csv with a header, but got: "
            f"{error}. Mend the file."
        ) from None
    if numbers.ndim != 2 or numbers.shape[1] != width:
        raise InputError(
            f"Expected {width} numbers for each row of {what} in {path}, but got shape "
            f"{numbers.shape}. Give one row for each example."
        )
    return ids, numbers
