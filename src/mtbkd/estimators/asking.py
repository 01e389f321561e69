"""What teachers of every sort say on the rows of X."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import NotFittedError

from mtbkd.observation import OUTCOMES
from mtbkd.outputs.aligned import TeacherOutputs, TeacherTable, align, make_table
from mtbkd.teachers.base import Teacher, from_callable
from mtbkd.teachers.sklearn_estimator import from_sklearn
from mtbkd.types import Family, InputError, class_name

Teachers = Sequence[Any] | Mapping[str, Any] | TeacherOutputs | None


@dataclass(frozen=True)
class FitRows:
    """What teachers are asked about.

    Attributes:
        inputs: As they were given to `fit`.
        ids: One for each row.
        named: Whether the user gave the ids.
        columns: Names of classes or targets.
        held_out: The default for teachers that do not declare it.
        family: What the student predicts.
    """

    inputs: Any
    ids: tuple[str, ...]
    named: bool
    columns: tuple[str, ...]
    held_out: bool
    family: Family = "classification"

    @property
    def numeric(self) -> bool:
        """Whether the student predicts numbers."""
        return OUTCOMES[self.family].numeric


def fit_rows(
    X: Any,
    inputs: Any,
    ids: Sequence[object] | None,
    columns: tuple[str, ...],
    *,
    held_out: bool,
    family: Family = "classification",
) -> FitRows:
    """Rows as teachers read them: data frames as they are, for their names; else numbers."""
    found = tuple(map(str, range(len(inputs)) if ids is None else ids))
    if len(found) != len(inputs):
        raise InputError(
            f"Expected {len(inputs)} ids, one for each row of X, but got {len(found)}. Give one "
            "each."
        )
    return FitRows(
        inputs=X if hasattr(X, "columns") else inputs,
        ids=found,
        named=ids is not None,
        columns=columns,
        held_out=held_out,
        family=family,
    )


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
        sort = getattr(teacher, "__name__", type(teacher).__name__)
        name = own if isinstance(own, str) else f"{i}: {sort}"
        named[name if name not in named else f"{i}: {name}"] = teacher
    return named


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


def _table(name: str, given: Any, rows: FitRows) -> TeacherTable:
    """What one teacher, of whatever sort, says on the rows."""
    if isinstance(given, TeacherTable):
        return _matched(name, given, rows)
    teacher = _declared(name, given, rows)
    said = _ask(name, teacher.predict, rows)
    several = teacher.variance or (rows.numeric and isinstance(said, tuple))
    parts = said if several else (said, None)
    if len(parts) != 2:
        raise InputError(
            f"Expected means, or a tuple (mean, variance), from teacher {name!r}, but got "
            f"{len(parts)} parts. Return one of these."
        )
    shape = np.shape(parts[0])
    _check_rows(f"teacher {name!r}", shape[0] if shape else 0, rows)
    return make_table(
        name,
        parts[0],
        kind=teacher.kind,
        ids=rows.ids,
        classes=teacher.classes,
        held_out=teacher.held_out,
        family=rows.family,
        variance=parts[1],
        partial=teacher.partial,
        class_map=teacher.class_map,
        merge=teacher.merge,
    )


def _declared(name: str, given: Any, rows: FitRows) -> Teacher:
    """A teacher of any sort as one that says what its numbers mean."""
    declared: dict[str, Any] = {"held_out": rows.held_out, "family": rows.family}
    if all(hasattr(given, part) for part in ("kind", "classes", "predict")):
        optional = ("family", "variance", "partial", "class_map", "merge", "held_out")
        declared |= {part: getattr(given, part) for part in optional if hasattr(given, part)}
        if declared["family"] != rows.family:
            raise InputError(
                f"Expected a {rows.family} teacher, but {name!r} is one of {declared['family']}. "
                "Leave it out."
            )
        classes = list(map(class_name, given.classes))
        return from_callable(name, given.predict, kind=given.kind, classes=classes, **declared)
    if rows.numeric:
        if hasattr(given, "predict"):
            return from_sklearn(name, given, classes=rows.columns, **declared)
    elif hasattr(given, "predict_proba"):
        own = getattr(given, "classes_", None)
        if own is None or isinstance(own, list):
            raise InputError(
                f"Expected a fitted classifier of one label for teacher {name!r}, but got "
                f"{type(given).__name__} {'without' if own is None else 'with a list of'} "
                "classes_. Fit it first, on one column of labels."
            )
        classes = tuple(map(class_name, own))
        declared["partial"] = set(classes) < set(rows.columns)
        return from_callable(name, given.predict_proba, kind="probs", classes=classes, **declared)
    elif hasattr(given, "predict"):
        raise InputError(
            f"Expected predict_proba of teacher {name!r}, but got {type(given).__name__} without "
            "it. Calibrate it (CalibratedClassifierCV)."
        )
    answer = given if callable(given) else lambda _: given
    kind = "mean" if rows.numeric else "probs"
    return from_callable(name, answer, kind=kind, classes=rows.columns, **declared)


def _ask(name: str, function: Any, rows: FitRows) -> Any:
    try:
        return function(rows.inputs)
    except NotFittedError:
        raise InputError(
            f"Expected a fitted teacher {name!r}, but got one that is not. Fit it first."
        ) from None
    except Exception as error:
        raise InputError(
            f"Expected an answer on X from teacher {name!r}, but got "
            f"{type(error).__name__}: {error} Give it inputs as it was fitted on."
        ) from error


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
