"""Teachers whose outputs were written to a file: CSV, Parquet, NPZ or safetensors."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from mtbkd.outputs.aligned import Kind, TeacherTable, make_table, make_top_table
from mtbkd.types import Family, InputError

SUFFIXES = (".csv", ".parquet", ".npz", ".safetensors")
_VARIANCE = "variance."


@dataclass(frozen=True)
class Numbered:
    """What a file holds.

    Attributes:
        ids: One for each row.
        classes: Classes, labels or targets.
        values: Shape (example, class), or (example, kept) beside `kept`.
        variance: Of a regression's targets, shape (example, target).
        kept: Positions in `classes`, shape (example, kept).
        tail: Mass of all other classes, shape (example,).
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    values: NDArray[np.generic]
    variance: NDArray[np.generic] | None = None
    kept: NDArray[np.generic] | None = None
    tail: NDArray[np.generic] | None = None


def from_table(
    name: str,
    path: str | Path,
    *,
    kind: Kind,
    family: Family = "classification",
    id_column: str = "id",
    held_out: bool = True,
    partial: bool = False,
    class_map: Mapping[str, str | Sequence[str] | None] | None = None,
    merge: bool = False,
    variance: float | Sequence[float] | None = None,
) -> TeacherTable:
    """A teacher's outputs from a file, checked.

    Args:
        name: Of the teacher.
        path: As `read_table` reads it.
        kind: What the numbers are.
        family: What is predicted.
        id_column: Which column of a CSV or Parquet file holds the ids.
        held_out: False if the teacher was trained on these examples.
        partial: Whether it knows fewer classes than the data.
        class_map: Own class to the class or classes of the data that it means, or to None.
        merge: Whether several own classes may mean the same.
        variance: Of a regression teacher whose file gives none: one number, or one of each target.

    Raises:
        InputError: With one message for each fault, naming the file.
    """
    path = Path(path)
    read = read_table(path, id_column=id_column)
    if variance is not None and read.variance is not None:
        raise InputError(
            f"Expected variances of teacher {name!r} in one place, but got them in {path} and as "
            "variance too. Leave one of them out."
        )
    try:
        if read.kept is not None:
            if family != "classification" or partial or class_map or merge or variance is not None:
                raise InputError(
                    f"Expected teacher {name!r}, which gives its most probable classes only, to "
                    "know all classes by the data's names, but got a family, partial, class_map, "
                    "merge or variance. Leave them out, or give all of its classes."
                )
            return make_top_table(
                name,
                read.values,
                read.kept,
                read.tail,
                kind=kind,
                ids=read.ids,
                classes=read.classes,
                held_out=held_out,
            )
        return make_table(
            name,
            read.values,
            kind=kind,
            ids=read.ids,
            classes=read.classes,
            held_out=held_out,
            family=family,
            variance=read.variance if variance is None else variance,
            partial=partial,
            class_map=class_map,
            merge=merge,
        )
    except InputError as error:
        raise InputError(*(f"{path}: {fault}" for fault in error.faults)) from None


def read_table(path: Path, *, id_column: str = "id") -> Numbered:
    """Read ids, classes and numbers; the suffix says the format.

    CSV and Parquet have a column of ids, one for each class, and for a regression ``variance.T``
    for target T. NPZ holds the arrays ``ids``, ``classes``, ``values`` and perhaps ``variance``,
    ``kept`` and ``tail``; nothing in it is unpickled. Safetensors hold the same arrays of numbers,
    with ``ids`` and ``classes`` as JSON in the metadata.

    Args:
        path: The file.
        id_column: Which column of a CSV or Parquet file holds the ids.

    Raises:
        InputError: If it cannot be read, naming file, row and column.
    """
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"Expected outputs in a file ending in {', '.join(SUFFIXES)}, but got {path.name!r}. "
            "Convert it."
        )
    try:
        if path.suffix in readers:
            return readers[path.suffix](path)
        table = _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"Expected a teacher's outputs in {path}, but it cannot be read "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}). Check the "
            "file."
        ) from None
    return _columns(path, table, id_column)


def _read_csv(path: Path) -> pa.Table:
    with path.open(newline="", encoding="utf-8-sig") as file:
        header = next(csv.reader(file), [])
    options = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
    )
    return pa_csv.read_csv(path, convert_options=options)


def _read_parquet(path: Path) -> pa.Table:
    with path.open("rb") as file:
        return pq.read_table(file)


def _columns(path: Path, table: pa.Table, id_column: str) -> Numbered:
    names = table.column_names
    if names.count(id_column) != 1:
        raise InputError(
            f"Expected one column {id_column!r} of ids in {path}, but got columns "
            f"{', '.join(names)}. Name the column of ids with id_column."
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(
            f"Expected every column once in {path}, but got {repeated[0]!r} more than once. "
            "Remove the duplicate."
        )
    ids = tuple(str(v) for v in table.column(id_column).to_pylist())
    given = [c for c in names if c != id_column]
    targets = [c for c in given if _VARIANCE + c in given]
    classes = [c for c in given if c.removeprefix(_VARIANCE) not in targets or c in targets]
    faults: list[str] = []
    numbers = {c: _numbers(path, c, table.column(c), faults) for c in given}
    if targets and targets != classes:
        lacking = next(c for c in classes if c not in targets)
        faults.append(
            f"Expected a variance of every target in {path}, but got none of {lacking!r}. Add the "
            f"column {_VARIANCE + lacking!r}, or remove the others."
        )
    if not classes:
        faults.append(f"Expected a column for each class in {path}, but got none. Add them.")
    if faults:
        raise InputError(*faults)
    values = np.stack([numbers[c] for c in classes], 1)
    variance = np.stack([numbers[_VARIANCE + c] for c in classes], 1) if targets else None
    return Numbered(ids, tuple(classes), values, variance)


def _numbers(
    path: Path, column: str, cells: pa.ChunkedArray, faults: list[str]
) -> NDArray[np.float64]:
    try:
        if pa.types.is_null(cells.type) or cells.null_count:
            raise pa.ArrowInvalid("empty")
        return cells.cast(pa.float64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        row, value = next(
            ((i, v) for i, v in enumerate(cells.to_pylist()) if not _is_number(v)), (0, cells.type)
        )
        faults.append(
            f"Expected numbers in column {column!r} of {path}, but got {value!r} in row {row + 1}. "
            "Correct it, or leave the example out."
        )
        return np.zeros(len(cells))


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def _read_npz(path: Path) -> Numbered:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        held = {key: file[key] for key in file.files}
    lacking = [key for key in ("ids", "classes", "values") if key not in held]
    if lacking:
        raise InputError(
            f"Expected arrays ids, classes and values in {path}, but {lacking[0]!r} is missing. "
            "Save it with them."
        )
    return _numbered(held["ids"].ravel().tolist(), held["classes"].ravel().tolist(), held)


def _read_safetensors(path: Path) -> Numbered:
    with safe_open(str(path), framework="pt") as file:  # numpy knows no bfloat16
        metadata: dict[str, Any] = file.metadata() or {}
        held = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    lacking = [key for key in ("ids", "classes") if key not in metadata]
    if lacking or "values" not in held:
        raise InputError(
            f"Expected the tensor values, and ids and classes as JSON in the metadata of {path}, "
            f"but {(lacking or ['values'])[0]!r} is missing. Save it with them."
        )
    arrays = {k: (t.double() if t.is_floating_point() else t).numpy() for k, t in held.items()}
    return _numbered(json.loads(metadata["ids"]), json.loads(metadata["classes"]), arrays)


def _numbered(ids: list[Any], classes: list[Any], held: Mapping[str, Any]) -> Numbered:
    more = {key: held.get(key) for key in ("variance", "kept", "tail")}
    return Numbered(tuple(map(str, ids)), tuple(map(str, classes)), held["values"], **more)
