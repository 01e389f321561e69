"""Columns of a table that was handed in: as numbers, as words, and what is wrong with a cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mtbkd.errors import collect, did_you_mean
from mtbkd.types import Floats, Floats32, InputError, refuse

_SHOWN = 8
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Table:
    """Named columns of cells, one row for each example.

    Attributes:
        path: The file, for messages.
        cells: As they are in the file; those of CSV and TSV are all text.
        ids: What messages call the rows; they are counted from 1 if there are no ids.
        arrays: What is no column of cells, by name: an image for each row.
    """

    path: Path = field(compare=False)
    cells: pa.Table
    ids: tuple[str, ...] = ()
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict, compare=False)

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return self.cells.column_names

    def with_ids(self, column: str, hint: str) -> Table:
        """The same with the ids of a column; ``hint`` says what to do if there is none.

        Raises:
            InputError: If it is not there, or an id is missing or there twice.
        """
        if column not in self.names:
            raise InputError(
                f"Expected a column {column!r} of ids in {self.path}, but got {few(self.names)}. "
                f"{hint}{did_you_mean(column, self.names)}"
            )
        ids = tuple(word.strip() for word in self.words(column))
        key, count = Counter(ids).most_common(1)[0]
        if "" in ids:
            raise InputError(
                f"Expected an id in every row of {self.path}, but row {ids.index('') + 1} has "
                "none. Add it."
            )
        if count > 1:
            raise InputError(
                f"Expected every id once in {self.path}, but got {key!r} more than once ({count} "
                "times). Make them unique."
            )
        return replace(self, ids=ids)

    def numbers(self, name: str, *, missing: bool = False, infinite: bool = False) -> Floats:
        """A column as numbers, shape (row,); true is 1, an empty cell NaN.

        Cells may be empty or NaN if ``missing``, and infinite if ``infinite``.

        Raises:
            InputError: If a cell holds something else.
        """
        column = self._column(name)
        cells = _numbers(column)
        if cells is None:
            row = _first_word(column)
            raise InputError(
                f"Expected numbers in column {name!r} of {self.path}, but got "
                f"{_short(column[row].as_py())} {self._place(row)}. Correct it."
            )
        bad = np.zeros(len(cells), bool)
        if not missing:
            bad |= np.isnan(cells)
        if not infinite:
            bad |= np.isinf(cells)
        if bad.any():
            row = int(bad.argmax())
            what = "infinity" if np.isinf(cells[row]) else "NaN or an empty cell"
            raise InputError(
                f"Expected a finite number in column {name!r} of {self.path}, but got {what} "
                f"{self._place(row)} ({bad.sum()} such). Fill it in, or leave the column or the "
                "row out."
            )
        return cells

    def matrix(self, names: Sequence[str]) -> Floats32:
        """Several columns as finite numbers, shape (row, column).

        Raises:
            InputError: With one message for each column that holds something else.
        """
        found = np.empty((self.cells.num_rows, len(names)), np.float32)
        faults: list[str] = []
        for i, name in enumerate(names):
            cells = collect(faults, lambda name=name: self.numbers(name))
            if cells is None:
                continue
            large = np.abs(cells) > _LARGEST
            if large.any():
                row = int(large.argmax())
                faults.append(
                    f"Expected numbers that single precision holds in column {name!r} of "
                    f"{self.path}, but got {cells[row]:g} {self._place(row)} ({large.sum()} "
                    "such). Change the column's unit."
                )
                continue
            found[:, i] = cells
        refuse(*faults)
        return found

    def words(self, name: str) -> list[str]:
        """A column as text, "" where a cell is empty; whole numbers without a point.

        Raises:
            InputError: If a cell is text that is not UTF-8.
        """
        column = self._column(name)
        try:
            return [_word(value) for value in column.to_pylist()]
        except UnicodeDecodeError:
            row = _first_word(column, _decoded)
            raise InputError(
                f"Expected text as UTF-8 in column {name!r} of {self.path}, but got other bytes "
                f"{self._place(row)}. Save the file again, with text encoded as UTF-8."
            ) from None

    def numeric(self, names: Iterable[str]) -> tuple[list[str], list[str]]:
        """Those of some columns that hold numbers, and those that do so in part only.

        Of the latter the first cell is named that is no number; true and false are none here.
        """
        found, partly = [], []
        for name in names:
            column = self._column(name)
            cells = _floats(column)
            if cells is not None:
                found += [] if np.isnan(cells).all() else [name]
            elif _numbers(column) is not None or any(map(_is_number, column.to_pylist())):
                row = _first_word(column, _floats)
                partly.append(f"{name!r} ({_short(column[row].as_py())} {self._place(row)})")
        return found, partly

    def lacking(self, names: Iterable[str]) -> list[str]:
        """Those of some columns that are not there."""
        there = set(self.names)
        return [name for name in names if name not in there]

    def _column(self, name: str) -> pa.ChunkedArray:
        place = self.cells.schema.get_field_index(name)
        if place < 0:
            raise InputError(
                f"Expected a column {name!r} in {self.path}, but got {few(self.names)}. Correct "
                f"its name, or add it.{did_you_mean(name, self.names)}"
            )
        return self.cells.column(place)

    def _place(self, row: int) -> str:
        return f"for id {self.ids[row]!r}" if self.ids else f"in row {row + 1}"


def first_faults(faults: Sequence[str], source: str) -> list[str]:
    """The first eight, and a line that says how many more."""
    if len(faults) <= _SHOWN:
        return list(faults)
    return [*faults[:_SHOWN], f"… and {len(faults) - _SHOWN} more such faults in {source}."]


def few(names: Sequence[str]) -> str:
    """The first few names, and how many more."""
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest


def _floats(column: pa.ChunkedArray) -> Floats | None:
    """The cells as numbers, NaN where empty; None if one of them is something else."""
    if pa.types.is_boolean(column.type):
        return None
    try:
        return _as_numpy(column.cast(pa.float64(), safe=False))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            return None
    cells = [(cell or "").strip() or None for cell in column.to_pylist()]
    try:
        return pa.chunked_array([pa.array(cells, pa.string()).cast(pa.float64())]).to_numpy()
    except pa.ArrowInvalid:
        return None


def _as_numpy(column: pa.ChunkedArray) -> Floats:
    """Cells of double precision, NaN where empty.

    Arrow's own way imports pandas where it is installed, for longer than a prediction takes.
    """
    if column.null_count:
        return column.to_numpy()
    chunks = map(np.from_dlpack, column.chunks)
    return np.concatenate([np.empty(0), *chunks], dtype=np.float64)


def _numbers(column: pa.ChunkedArray) -> Floats | None:
    """As `_floats`, also of true and false."""
    cells = _floats(column)
    if cells is not None:
        return cells
    try:
        return _floats(column.cast(pa.bool_()).cast(pa.int8()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _first_word(
    column: pa.ChunkedArray, read: Callable[[pa.ChunkedArray], object] = _numbers
) -> int:
    """The row of the first cell that cannot be read, where there is one; found by halving."""
    start, n = 0, len(column)
    while n > 1:
        half = n // 2
        if read(column.slice(start, half)) is None:
            n = half
        else:
            start, n = start + half, n - half
    return start


def _decoded(column: pa.ChunkedArray) -> list[str] | None:
    """The cells, or None if one of them is not UTF-8."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return None


def _is_number(value: Any) -> bool:
    try:
        return abs(float(value)) >= 0  # not so of NaN
    except (TypeError, ValueError):
        return False


def _word(value: object) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _short(value: object) -> str:
    """A cell as messages show it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
