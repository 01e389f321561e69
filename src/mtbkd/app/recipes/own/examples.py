"""Your own examples: one file of rows with ids, features, labels and whatever teachers read."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mtbkd.types import Floats32, InputError

_LARGEST_BLOCK = 1 << 30

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".npz")


@dataclass(frozen=True)
class OwnExamples:
    """A file of examples.

    Attributes:
        path: Of the file.
        table: Its columns.
        ids: One for each row, all different.
    """

    path: Path
    table: pa.Table
    ids: tuple[str, ...]

    def numbers(self, name: str, *, missing: bool = False) -> NDArray[np.float64]:
        """One column as numbers, shape (example,); NaN where a cell is empty.

        Raises:
            InputError: If a cell holds something else, or is empty and may not be.
        """
        column = self._column(name)
        try:
            cells = column.cast(pa.float64()).to_numpy()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            row = next(i for i, v in enumerate(column.to_pylist()) if not _is_number(v))
            raise InputError(
                f"Expected numbers in column {name!r} of {self.path}, but got "
                f"{column[row].as_py()!r} for id {self.ids[row]!r}. Correct it."
            ) from None
        bad = np.isinf(cells) if missing else ~np.isfinite(cells)
        if bad.any():
            row = int(bad.argmax())
            what = "infinity" if np.isinf(cells[row]) else "NaN or an empty cell"
            raise InputError(
                f"Expected a finite number in column {name!r} of {self.path}, but got {what} for "
                f"id {self.ids[row]!r} ({bad.sum()} such). Fill it in, or leave the column or the "
                "example out."
            )
        return cells

    def matrix(self, names: Sequence[str]) -> Floats32:
        """Several columns as numbers, shape (example, column).

        Raises:
            InputError: With one message for each column that holds something else.
        """
        found, faults = np.empty((len(self.ids), len(names)), np.float32), []
        for i, name in enumerate(names):
            try:
                with np.errstate(over="ignore"):
                    found[:, i] = self.numbers(name)
            except InputError as error:
                faults += error.faults
        if faults:
            raise InputError(*faults)
        return found

    def words(self, name: str) -> list[str]:
        """One column as text, "" where a cell is empty; whole numbers without a point."""
        return [_word(value) for value in self._column(name).to_pylist()]

    def _column(self, name: str) -> pa.ChunkedArray:
        if name not in self.table.column_names:
            raise InputError(
                f"Expected a column {name!r} in {self.path}, but got "
                f"{_few(self.table.column_names)}. Correct its name, or add it."
            )
        return self.table.column(name)


def read_examples(path: Path, id_column: str, text: Sequence[str] = ()) -> OwnExamples:
    """Read a file; the suffix says the format.

    CSV, TSV and Parquet have a column for each name. NPZ has an array for each name, of one value
    for each example; an array ``x`` of shape (example, column) becomes columns ``x.0``, ``x.1``, ….
    The file is read whole: an NPZ cannot be mapped.

    Args:
        path: Ends in .csv, .tsv, .parquet or .npz; the first two may be gzipped.
        id_column: Which column holds the ids.
        text: Columns of a CSV that stay text even if all their cells look like numbers.

    Raises:
        InputError: If the file cannot be read, or has no ids or the same one twice.
    """
    kind = "".join(path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:])
    if kind not in SUFFIXES:
        raise InputError(
            f"Expected examples in a file ending in {', '.join(SUFFIXES)}, but got {path.name!r}. "
            "Convert it."
        )
    read = {".parquet": _read_parquet, ".npz": _read_npz}.get(kind, _read_csv)
    try:
        table = read(path, [id_column, *text])
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"Expected examples in {path}, but it cannot be read ({first}). Check the file."
        ) from None
    names = Counter(table.column_names)
    faults = [
        f"Expected every column once in {path}, but got {name!r} more than once. Remove one."
        for name, count in names.items()
        if count > 1
    ]
    if id_column not in names:
        faults.append(
            f"Expected a column {id_column!r} of ids in {path}, but got {_few(list(names))}. Name "
            "it with own.id."
        )
    if not table.num_rows:
        faults.append(f"Expected one example or more in {path}, but got none. Add them.")
    if faults:
        raise InputError(*faults)
    ids = tuple("" if v is None else str(v) for v in table.column(id_column).to_pylist())
    key, count = Counter(ids).most_common(1)[0]
    if "" in ids:
        raise InputError(
            f"Expected an id in every row of {path}, but row {ids.index('') + 1} has none. Add it."
        )
    if count > 1:
        raise InputError(
            f"Expected every id once in {path}, but got {key!r} {count} times. Make them unique."
        )
    return OwnExamples(path, table, ids)


def numeric_columns(table: pa.Table) -> list[str]:
    """The columns that hold numbers; those that are empty throughout do not."""
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return [f.name for f in table.schema if any(is_kind(f.type) for is_kind in kinds)]


def _read_csv(path: Path, text: list[str]) -> pa.Table:
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    data = data.removeprefix(b"\xef\xbb\xbf")
    first = data[: data.find(b"\n") + 1 or None].decode("utf-8")
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    if ".csv" in path.suffixes and "," not in first and ";" in first:
        delimiter = ";"
    header = next(
        csv.reader(io.StringIO(data[: 2**20].decode("utf-8", "ignore")), delimiter=delimiter), []
    )
    options = pa_csv.ConvertOptions(
        column_types={name: pa.string() for name in text if name in header},
        null_values=[""],
        strings_can_be_null=True,
    )
    parsing = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    reading = pa_csv.ReadOptions(block_size=min(max(len(data), 1), _LARGEST_BLOCK))
    return pa_csv.read_csv(io.BytesIO(data), reading, parsing, options)


def _read_parquet(path: Path, text: list[str]) -> pa.Table:
    del text
    with path.open("rb") as file:
        return pq.read_table(file)


def _read_npz(path: Path, text: list[str]) -> pa.Table:
    del text
    columns: dict[str, Any] = {}
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        for key in file.files:
            array = file[key]
            if array.ndim == 2:
                columns |= {f"{key}.{i}": array[:, i] for i in range(array.shape[1])}
            elif array.ndim == 1:
                columns[key] = array
            else:
                raise ValueError(f"array {key!r} has {array.ndim} axes")
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise ValueError(f"arrays of {' and '.join(map(str, sorted(lengths)))} rows")
    return pa.table(columns)


def _word(value: object) -> str:
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
