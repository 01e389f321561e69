"""Teachers whose outputs were written to a file: CSV, TSV, Parquet, NPZ or safetensors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from mtbkd.errors import collect
from mtbkd.inputs.opening import open_file, suffix_of, unreadable
from mtbkd.inputs.tables import TABLES, read_arrays, read_table
from mtbkd.outputs.aligned import Kind, TeacherTable, make_table, make_top_table
from mtbkd.outputs.table import Declared
from mtbkd.types import InputError, refuse

_SUFFIXES = (*(suffix for suffix in TABLES if suffix != ".npy"), ".safetensors")
_VARIANCE = "variance."
_WHAT = "a teacher's outputs"


@dataclass(frozen=True)
class Numbered:
    """What a file holds.

    Attributes:
        ids: One for each row.
        classes: Classes, labels or targets.
        values: Shape (example, class), or (example, kept) beside `kept`.
        variance: Variances of a regression's targets, shape (example, target).
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
    id_column: str = "id",
    variance: float | Sequence[float] | None = None,
    **declared: Any,
) -> TeacherTable:
    """A teacher's outputs from a file, checked.

    Args:
        name: What the teacher is called.
        path: As `read_outputs` reads it.
        kind: What the numbers are.
        id_column: Which column of a CSV, TSV or Parquet file holds the ids.
        variance: One number, or one for each target, for a regression teacher whose file gives
            none.
        **declared: ``family``, ``held_out``, ``partial``, ``class_map`` and ``merge``, as
            `mtbkd.outputs.table.Declared` describes them.

    Raises:
        InputError: With one message for each fault, naming the file.
    """
    path = Path(path)
    read = read_outputs(path, id_column=id_column)
    if variance is not None and read.variance is not None:
        raise InputError(
            f"Expected variances of teacher {name!r} in one place, but got them in {path} and as "
            "variance too. Leave one of them out."
        )
    try:
        if read.kept is not None:
            said = Declared(**declared)
            if said != Declared(held_out=said.held_out, class_map=said.class_map) or (
                said.class_map or variance is not None
            ):
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
                held_out=said.held_out,
            )
        return make_table(
            name,
            read.values,
            kind=kind,
            ids=read.ids,
            classes=read.classes,
            variance=read.variance if variance is None else variance,
            **declared,
        )
    except InputError as error:
        raise InputError(*(f"{path}: {fault}" for fault in error.faults)) from None


def read_outputs(path: Path, *, id_column: str = "id") -> Numbered:
    """Read ids, classes and numbers; the suffix says the format.

    CSV, TSV and Parquet have a column of ids, one for each class, and for a regression
    ``variance.T`` for target T. NPZ holds the arrays ``ids``, ``classes``, ``values`` and perhaps
    ``variance``, ``kept`` and ``tail``. Safetensors hold the same arrays of numbers, with ``ids``
    and ``classes`` as JSON in the metadata.

    Raises:
        InputError: If it cannot be read, naming file, row and column.
    """
    suffix = suffix_of(path, _SUFFIXES, _WHAT)
    if suffix not in (".npz", ".safetensors"):
        return _columns(path, id_column)
    held = read_arrays(path, _WHAT) if suffix == ".npz" else _read_safetensors(path)
    lacking = [key for key in ("ids", "classes", "values") if key not in held]
    if lacking:
        where = "" if suffix == ".npz" else ", the first two as JSON in its metadata"
        raise InputError(
            f"Expected ids, classes and values in {path}{where}, but {lacking[0]} is missing. Save "
            "it with them."
        )
    ids, classes = (
        tuple(map(str, np.array(held[key], dtype=object).ravel())) for key in ("ids", "classes")
    )
    more = {key: held.get(key) for key in ("variance", "kept", "tail")}
    return Numbered(ids, classes, held["values"], **more)


def _columns(path: Path, id_column: str) -> Numbered:
    table = read_table(path, _WHAT).with_ids(id_column, "Name the column of ids with id_column.")
    given = [c for c in table.names if c != id_column]
    there = set(given)
    targets = {c for c in given if _VARIANCE + c in there}
    classes = [c for c in given if c.removeprefix(_VARIANCE) not in targets or c in targets]
    lacking = [c for c in classes if c not in targets]
    faults: list[str] = []
    if targets and lacking:
        faults.append(
            f"Expected a variance of every target in {path}, but got none of {lacking[0]!r}. Add "
            f"the column {_VARIANCE + lacking[0]!r}, or remove the others."
        )
    if not classes:
        faults.append(f"Expected a column for each class in {path}, but got none. Add them.")
    numbers = {c: collect(faults, lambda c=c: table.numbers(c, infinite=True)) for c in given}
    refuse(*faults)
    values = np.stack([numbers[c] for c in classes], 1)
    variance = np.stack([numbers[_VARIANCE + c] for c in classes], 1) if targets else None
    return Numbered(table.ids, tuple(classes), values, variance)


def _read_safetensors(path: Path) -> dict[str, Any]:
    open_file(path, _WHAT).close()
    try:
        with safe_open(str(path), framework="pt") as file:  # numpy knows no bfloat16
            metadata: dict[str, Any] = file.metadata() or {}
            held = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        read = {k: (t.double() if t.is_floating_point() else t).numpy() for k, t in held.items()}
        return read | {k: json.loads(metadata[k]) for k in ("ids", "classes") if k in metadata}
    except (OSError, ValueError, TypeError, RecursionError, SafetensorError) as error:
        raise unreadable(path, _WHAT, error) from None
