"""Texts from files, checked cell by cell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from mtbkd.inputs.columns import Table
from mtbkd.inputs.opening import suffix_of, text_of
from mtbkd.inputs.tables import TABLES, read_table
from mtbkd.types import InputError, refuse

LONGEST = 1_000_000
"""Characters of a text."""

_LINES = ".txt"


def read_texts(path: Path, id_column: str, column: str) -> Table:
    """New texts: a table with ids, or a file ending in .txt with a text a line.

    Lines have their numbers as ids, counted from 1.

    Raises:
        InputError: If it cannot be read.
    """
    if suffix_of(path, (_LINES, *TABLES), "texts") != _LINES:
        return read_table(path, "texts").with_ids(id_column, "Add it.")
    lines = "".join(text_of(path, "texts")).rstrip("\n").split("\n")
    numbers = tuple(str(number) for number in range(1, len(lines) + 1))
    return Table(path, pa.table({id_column: numbers, column: lines}), numbers)


def texts_of(examples: Table, column: str) -> list[str]:
    """A column of texts.

    Raises:
        InputError: With one message for each kind of fault, which names its first row.
    """
    cells = examples.words(column)
    kind = examples.cells.schema.field(column).type
    if not any(is_text(kind) for is_text in _TEXT):
        raise InputError(
            f"Expected texts in column {column!r} of {examples.path}, but got {kind}. Name another "
            "column, or convert it."
        )
    wrong: dict[str, Callable[[str], bool]] = {
        "a text in every row, but got none": lambda cell: not cell or cell.isspace(),
        "texts without the character NUL, but got one": lambda cell: "\0" in cell,
        f"texts of at most {LONGEST:,} characters, but got more": lambda cell: len(cell) > LONGEST,
    }
    faults = []
    for told, is_wrong in wrong.items():
        rows = [row for row, cell in enumerate(cells) if is_wrong(cell)]
        if rows:
            faults.append(
                f"Expected {told} in column {column!r} of {examples.path} for id "
                f"{examples.ids[rows[0]]!r} ({len(rows)} such). Correct it, or leave the row out."
            )
    refuse(*faults)
    return cells


_TEXT = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
)
