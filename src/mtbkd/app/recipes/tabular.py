"""Reads a table of numbers, one row for each example, whose columns are known by their order."""

from __future__ import annotations

from pathlib import Path

from mtbkd.inputs.tables import read_table
from mtbkd.types import Floats32, InputError


def read_numbers(path: Path, width: int, what: str) -> tuple[tuple[str, ...], Floats32]:
    """Read a table of numbers and, if wanted, a column id first, as `read_table` reads it.

    Args:
        path: The file.
        width: Columns expected.
        what: What the rows are, in the plural, for messages.

    Returns:
        Ids, which count from 0 where there are none, and numbers, shape (example, column).

    Raises:
        InputError: If the file is not that.
    """
    table = read_table(path, what)
    names = table.names
    if names[0] == "id":
        table, names = table.with_ids("id", "Add it."), names[1:]
    if len(names) != width:
        raise InputError(
            f"Expected {width} numbers for each row of {what} in {path}, but got {len(names)}. "
            "Give one row for each example."
        )
    return table.ids or tuple(map(str, range(table.cells.num_rows))), table.matrix(names)
