"""Tables that people hand in: CSV, TSV, Parquet, NPZ and NPY, read and refused in one way."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mtbkd.inputs.columns import Table
from mtbkd.inputs.opening import open_file, suffix_of, text_of, unreadable
from mtbkd.types import InputError, refuse

TABLES = (".csv", ".tsv", ".parquet", ".npz", ".npy")

_BLOCK = 1 << 25  # bytes of text that are parsed at once; a row is shorter


def read_table(path: Path, what: str) -> Table:
    """Read a file; the suffix says the format.

    CSV, TSV (both also gzipped) and Parquet have a column for each name; a CSV without commas in
    its header may have semicolons. NPZ has an array for each name: of one value for each row, or
    ``x`` of shape (row, column), which becomes columns ``x.0``, ``x.1``, …. NPY is one array of
    shape (row, column), whose columns are ``0``, ``1``, ….

    Args:
        path: The file.
        what: What is expected in it, in the plural, for messages: "proteins".

    Raises:
        InputError: If it cannot be read, naming file, row and column.
    """
    suffix = suffix_of(path, TABLES, what)
    if suffix == ".parquet":
        cells = _parquet(path, what)
    elif suffix in (".npz", ".npy"):
        return table_of(read_arrays(path, what), path, what)
    else:
        cells = _csv(path, what, "\t" if suffix == ".tsv" else ",")
    return _whole(cells, path, what)


def table_of(arrays: Mapping[str, NDArray[Any]], path: Path, what: str) -> Table:
    """Arrays of a file as columns, as `read_table` says.

    Raises:
        InputError: If they have other shapes or lengths.
    """
    return _whole(_from_arrays(arrays, path, what), path, what)


def _whole(cells: pa.Table, path: Path, what: str) -> Table:
    _once(cells.column_names, path)
    if not cells.num_rows:
        raise InputError(f"Expected {what} in {path}, but it has no rows. Add them.")
    return Table(path, cells)


def read_arrays(path: Path, what: str) -> dict[str, NDArray[Any]]:
    """The arrays of an NPZ file by name, or that of an NPY file under the name "".

    Nothing is unpickled. Numbers are native integers, booleans, float32 or float64; text is text.

    Raises:
        InputError: If they cannot be read, or an array holds something else.
    """
    with open_file(path, what) as file:
        try:
            held = np.load(file, allow_pickle=False)
            one = isinstance(held, np.ndarray)
            arrays = {"": held} if one else {key: held[key] for key in held.files}
            read = {key: _native(array) for key, array in arrays.items()}
        except Exception as error:  # damaged archives and headers raise nearly everything
            if "unsafely" in str(error):  # what numpy says of any bytes that it does not know
                error = ValueError("it is another kind of file")
            raise unreadable(path, what, error) from None
    faults = [
        f"Expected numbers or text in {_array(key)} of {path}, but got {arrays[key].dtype}. "
        "Convert it to float64."
        for key, array in read.items()
        if array is None
    ]
    refuse(*faults)
    return {key: array for key, array in read.items() if array is not None}


def _csv(path: Path, what: str, delimiter: str) -> pa.Table:
    pieces, head = text_of(path, what), ""
    while "\n" not in head and (piece := next(pieces, "")):
        head = (head + piece).lstrip("\n")
    first = head.partition("\n")[0]
    if delimiter == "," and "," not in first and ";" in first:
        delimiter = ";"
    ragged: list[tuple[int | None, int]] = []

    def skip(row: pa_csv.InvalidRow) -> str:
        ragged.append((row.number, row.actual_columns))
        return "skip"

    try:
        names = next(csv.reader(io.StringIO(head), delimiter=delimiter))
        _once(names, path)
        cells = pa_csv.read_csv(
            io.BufferedReader(_Stream(chain([head], pieces, "\n")), _BLOCK),
            pa_csv.ReadOptions(use_threads=False, block_size=_BLOCK),
            pa_csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
            ),
            pa_csv.ConvertOptions(
                check_utf8=False,
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
            ),
        )
    except (pa.ArrowException, csv.Error) as error:
        raise unreadable(path, what, error) from None
    if ragged:
        number, width = ragged[0]
        raise InputError(
            f"Expected {len(names)} cells in each row of {path}, but got {width} in row "
            f"{(number or 0) - 1} ({len(ragged)} such). Correct it, with quotes around cells that "
            "hold a separator."
        )
    return cells


def _parquet(path: Path, what: str) -> pa.Table:
    with open_file(path, what) as file:
        try:
            cells = pq.read_table(file)
            for place, column in enumerate(cells.schema):
                if pa.types.is_dictionary(column.type):
                    plain = cells.column(place).cast(column.type.value_type)
                    cells = cells.set_column(place, column.name, plain)
            return cells
        except Exception as error:  # of damaged files there is no common class
            raise unreadable(path, what, error) from None


def _from_arrays(arrays: Mapping[str, NDArray[Any]], path: Path, what: str) -> pa.Table:
    columns: dict[str, NDArray[Any]] = {}
    for key, array in arrays.items():
        if array.ndim == 1 and key:
            columns[key] = array
        elif array.ndim == 2:
            prefix = f"{key}." if key else ""
            columns |= {f"{prefix}{i}": array[:, i] for i in range(array.shape[1])}
        else:
            raise InputError(
                f"Expected a value or a row of them for each example in {_array(key)} of {path}, "
                f"but got shape {array.shape}. Give it one or two axes."
            )
    lengths = sorted({len(column) for column in columns.values()})
    if len(lengths) > 1:
        raise InputError(
            f"Expected arrays of the same length in {path}, but got {lengths[0]} and {lengths[1]} "
            "rows. Save them again."
        )
    try:
        return pa.Table.from_arrays([_arrow(c) for c in columns.values()], list(columns))
    except UnicodeError:
        raise InputError(*_halves(columns, path)) from None
    except (pa.ArrowException, ValueError) as error:
        raise unreadable(path, what, error) from None


def _arrow(column: NDArray[Any]) -> pa.Array:
    """A column as Arrow; numbers without `pyarrow.array`, which imports pandas if it is there."""
    if column.dtype.kind not in "iuf":
        return pa.array(column)
    buffer = pa.py_buffer(np.ascontiguousarray(column))
    return pa.Array.from_buffers(pa.from_numpy_dtype(column.dtype), len(column), [None, buffer])


def _halves(columns: dict[str, NDArray[Any]], path: Path) -> list[str]:
    """What is wrong with text that holds one half of a pair of surrogates."""
    faults = []
    for name, column in columns.items():
        if column.dtype.kind == "U":
            codes = np.ascontiguousarray(column).view(np.uint32).reshape(len(column), -1)
            wrong = ((codes >= 0xD800) & (codes < 0xE000)).any(1)
            if wrong.any():
                faults.append(
                    f"Expected text in {_array(name)} of {path}, but got half a character in row "
                    f"{wrong.argmax() + 1} ({wrong.sum()} such). Correct it."
                )
    return faults


def _native(array: NDArray[Any]) -> NDArray[Any] | None:
    """Numbers as Arrow and PyTorch know them, or text; None if it is neither."""
    if array.dtype.kind in "biuU":
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return array.astype(np.float32 if array.itemsize <= 4 else np.float64, copy=False)
    return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else None


def _array(key: str) -> str:
    return f"array {key!r}" if key else "the array"


def _once(names: Sequence[str], path: Path) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        more = f" ({len(twice)} such)" if len(twice) > 1 else ""
        raise InputError(
            f"Expected every column once in {path}, but got {twice[0]!r} more than once{more}. "
            "Rename or remove one."
        )


class _Stream(io.RawIOBase):
    """Text as a file of bytes, of which a piece at a time is in memory."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces: Iterator[str] = iter(pieces)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, "").encode())
        n = min(len(buffer), len(self._rest))
        buffer[:n], self._rest = self._rest[:n], self._rest[n:]
        return n
