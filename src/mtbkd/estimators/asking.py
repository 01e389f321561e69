"""What teachers of every sort say on the rows of X."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import NotFittedError

from mtbkd.estimators.labels import class_name
from mtbkd.observation import OUTCOMES
from mtbkd.outputs.aligned import TeacherOutputs, TeacherTable, align, make_table
from mtbkd.types import Family, InputError

Teachers = Sequence[Any] | Mapping[str, Any] | TeacherOutputs | None


@dataclass(frozen=True)
class FitRows:
    """What teachers are asked about.

    Attributes:
        inputs: As they were given to `fit`.
        ids: One for each row.
        named: Whether the user gave the ids.
        columns: Names of classes or targets.
        held_out: Whether teachers that do not say are.
        family: Of the student.
    """

    inputs: Any
    ids: tuple[str, ...]
    named: bool
    columns: tuple[str, ...]
    held_out: bool
    family: Family = "classification"


def as_teachers_read(X: Any, inputs: Any) -> Any:
    """Data frames as they are, since estimators look at their names; else numbers."""
    return X if hasattr(X, "columns") else inputs


def check_ids(ids: Sequence[object] | None, n_rows: int) -> tuple[tuple[str, ...], bool]:
    """Ids of the rows, and whether the user gave them."""
    found = tuple(map(str, range(n_rows) if ids is None else ids))
    if len(found) != n_rows:
        raise InputError(
            f"Expected {n_rows} ids, one for each row of X, but got {len(found)}. Give one each."
        )
    return found, ids is not None


def by_name(teachers: Any) -> Mapping[str, Any] | TeacherOutputs | None:
    """Teachers with names: their own, or their place and what they are."""
    if teachers is None or isinstance(teachers, TeacherOutputs):
        return teachers
    if not isinstance(teachers, list | Mapping) or not teachers:
        got = "none in it" if isinstance(teachers, list | Mapping) else type(teachers).__name__
        raise InputError(
            f"Expected teachers as a list, a dict by name or TeacherOutputs, but got {got}. Put "
            "them into a list, or pass None for a student of labels alone."
        )
    if isinstance(teachers, Mapping):
        return {str(name): teacher for name, teacher in teachers.items()}
    named: dict[str, Any] = {}
    for i, teacher in enumerate(teachers):
        own = getattr(teacher, "name", None)
        name = own if isinstance(own, str) else f"{i}: {_kind_of(teacher)}"
        named[name if name not in named else f"{i}: {name}"] = teacher
    return named


def _kind_of(teacher: Any) -> str:
    return getattr(teacher, "__name__", type(teacher).__name__)


def ask_all(given: Mapping[str, Any] | TeacherOutputs, rows: FitRows) -> TeacherOutputs:
    """What the teachers say on the rows."""
    if isinstance(given, TeacherOutputs):
        if rows.named:
            return given.at(rows.ids)
        _check_rows("the teachers", len(given.ids), rows)
        return replace(given, ids=rows.ids)
    tables, faults = [], []
    for name, teacher in given.items():
        try:
            tables.append(_table(name, teacher, rows))
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(*faults)
    return align(tables, rows.ids, rows.columns)


def _table(name: str, teacher: Any, rows: FitRows) -> TeacherTable:
    """What one teacher, of whatever sort, says on the rows."""
    if isinstance(teacher, TeacherTable):
        return _matched(name, teacher, rows)
    if all(hasattr(teacher, part) for part in ("kind", "classes", "predict")):
        own = getattr(teacher, "family", rows.family)
        if own != rows.family:
            raise InputError(
                f"Expected a {rows.family} teacher, but {name!r} is one of {own}. Leave it out."
            )
        said = _ask(name, teacher.predict, rows)
        optional = {
            part: getattr(teacher, part)
            for part in ("partial", "class_map", "merge", "held_out")
            if hasattr(teacher, part)
        }
        declared = {"held_out": rows.held_out} | optional
        mean, variance = said if getattr(teacher, "variance", False) else (said, None)
        columns = tuple(map(class_name, teacher.classes))
        return _made(name, mean, variance, rows, teacher.kind, columns, **declared)
    if OUTCOMES[rows.family].numeric:
        return _regression_table(name, teacher, rows)
    if hasattr(teacher, "predict_proba"):
        own = getattr(teacher, "classes_", None)
        if own is None or isinstance(own, list):
            raise InputError(
                f"Expected a fitted classifier of one label for teacher {name!r}, but got "
                f"{type(teacher).__name__} {'without' if own is None else 'with a list of'} "
                "classes_. Fit it first, on one column of labels."
            )
        said = _ask(name, teacher.predict_proba, rows)
        columns = tuple(map(class_name, own))
        partial = set(columns) < set(rows.columns)
        return _made(
            name, said, None, rows, "probs", columns, held_out=rows.held_out, partial=partial
        )
    if hasattr(teacher, "predict"):
        raise InputError(
            f"Expected predict_proba of teacher {name!r}, but got {type(teacher).__name__} without "
            "it. Calibrate it (CalibratedClassifierCV)."
        )
    said = _ask(name, teacher, rows) if callable(teacher) else teacher
    return _made(name, said, None, rows, "probs", rows.columns, held_out=rows.held_out)


def _regression_table(name: str, teacher: Any, rows: FitRows) -> TeacherTable:
    if hasattr(teacher, "predict"):
        options = {"return_std": True} if _knows_its_deviation(teacher) else {}
        said = _ask(name, teacher.predict, rows, **options)
        if options:
            said = (said[0], np.square(said[1]))
    else:
        said = _ask(name, teacher, rows) if callable(teacher) else teacher
    parts = said if isinstance(said, tuple) else (said, None)
    if len(parts) != 2:
        raise InputError(
            f"Expected means, or a tuple (mean, variance), from teacher {name!r}, but got "
            f"{len(parts)} parts. Return one of these."
        )
    mean, variance = parts
    return _made(name, mean, variance, rows, "mean", rows.columns, held_out=rows.held_out)


def _knows_its_deviation(teacher: Any) -> bool:
    """Whether ``predict`` takes ``return_std``, of a pipeline that of its last step."""
    last = teacher.steps[-1][1] if hasattr(teacher, "steps") else teacher
    return "return_std" in inspect.signature(last.predict).parameters


def _ask(name: str, function: Any, rows: FitRows, **options: Any) -> Any:
    try:
        return function(rows.inputs, **options)
    except NotFittedError:
        raise InputError(
            f"Expected a fitted teacher {name!r}, but got one that is not. Fit it first."
        ) from None
    except Exception as error:
        raise InputError(
            f"Expected an answer on X from teacher {name!r}, but got "
            f"{type(error).__name__}: {error} Give it inputs as it was fitted on."
        ) from error


def _made(
    name: str,
    values: Any,
    variance: Any,
    rows: FitRows,
    kind: Any,
    columns: tuple[str, ...],
    **declared: Any,
) -> TeacherTable:
    shape = np.shape(values)
    _check_rows(f"teacher {name!r}", shape[0] if shape else 0, rows)
    return make_table(
        name,
        values,
        kind=kind,
        ids=rows.ids,
        classes=columns,
        family=rows.family,
        variance=variance,
        **declared,
    )


def _matched(name: str, table: TeacherTable, rows: FitRows) -> TeacherTable:
    """A table's rows in the order of X: by id if the user gave ids, else as they are."""
    if not rows.named:
        _check_rows(f"teacher {name!r}", len(table.ids), rows)
        return replace(table, name=name, ids=rows.ids)
    row_of = dict(zip(table.ids, range(len(table.ids)), strict=True))
    ids = tuple(i for i in rows.ids if i in row_of)
    where = torch.tensor([row_of[i] for i in ids], dtype=torch.long)
    kept = None if table.kept is None else table.kept[where]
    return replace(table, name=name, ids=ids, values=table.values[where], kept=kept)


def _check_rows(whose: str, n_given: int, rows: FitRows) -> None:
    if n_given != len(rows.ids):
        raise InputError(
            f"Expected {len(rows.ids)} rows from {whose}, one for each row of X, but got "
            f"{n_given}. Give as many; where rows are split, as in cross-validation, give an "
            "estimator or a function of X, or tables and ids."
        )
