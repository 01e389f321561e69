"""Numbers of any family as a checked table of a teacher's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mtbkd.observation import OUTCOMES
from mtbkd.outputs.aligned import LOG_FLOOR, TeacherTable, make_table
from mtbkd.outputs.kinds import most_probable
from mtbkd.teachers.base import Numbers, Teacher
from mtbkd.types import InputError


def as_table(teacher: Teacher, numbers: Numbers, ids: Sequence[str]) -> TeacherTable:
    """A teacher's numbers on these examples, as its declaration says to read them.

    Raises:
        InputError: If they are not what they are declared to be.
    """
    values, _ = numbers
    if _is_plain(teacher) and float(values.min()) < 0:
        table = TeacherTable(
            name=teacher.name,
            values=_log_softmax(values),
            ids=tuple(ids),
            classes=teacher.classes,
            held_out=teacher.held_out,
            partial=teacher.partial,
            group=teacher.group,
        )
        return table if teacher.top is None else cut(table, teacher.top)
    return checked_table(teacher, numbers, ids)


def sample_table(teacher: Teacher, key: str) -> TeacherTable:
    """What a teacher's table looks like, with numbers that mean nothing, for one example.

    Raises:
        InputError: If the declaration holds faults.
    """
    return checked_table(teacher, neutral(teacher, 1), [key])


def checked_table(teacher: Teacher, numbers: Numbers, ids: Sequence[str]) -> TeacherTable:
    """As `as_table`, always in double precision."""
    values, variance = numbers
    table = make_table(
        teacher.name,
        values,
        kind=teacher.kind,
        ids=ids,
        classes=teacher.classes,
        held_out=teacher.held_out,
        family=teacher.family,
        variance=variance,
        partial=teacher.partial,
        class_map=teacher.class_map,
        merge=teacher.merge,
        group=teacher.group,
    )
    return table if teacher.top is None else cut(table, teacher.top)


def _is_plain(teacher: Teacher) -> bool:
    exclusive = OUTCOMES[teacher.family].exclusive
    return exclusive and teacher.kind == "logits" and not teacher.class_map


def _log_softmax(logits: Tensor) -> Tensor:
    """As `make_table` does it, in the precision given and several times as fast: classes first."""
    rows = logits.T.contiguous()
    rows -= rows.amax(0)
    rows -= rows.exp().sum(0).log_()
    if float(rows.min()) < LOG_FLOOR:
        rows.clamp_min_(LOG_FLOOR)
        rows -= rows.exp().sum(0).log_()
    return rows.T.float().contiguous()


def neutral(teacher: Teacher, rows: int) -> Numbers:
    """Numbers that any teacher with this declaration might give, for examples without any."""
    value = OUTCOMES[teacher.family].neutral(teacher.kind, len(teacher.classes))
    values = torch.full((rows, len(teacher.classes)), value, dtype=torch.float64)
    return values, torch.ones_like(values) if teacher.variance else None


def cut(table: TeacherTable, top: int) -> TeacherTable:
    """Keep the most probable classes of each example, and the mass of all others together.

    Raises:
        InputError: If the table is not of classes, or the number is below 1.
    """
    if not table.outcome.exclusive or table.partial or table.covers:
        raise InputError(
            f"Expected a classification teacher that knows every class, to keep its {top} most "
            f"probable, but teacher {table.name!r} is none. Leave out top."
        )
    if top < 1:
        raise InputError(
            f"Expected 1 or more most probable classes of teacher {table.name!r}, but got {top}. "
            "Raise top, or leave it out."
        )
    if top >= len(table.classes):
        return table
    which, values, rest = most_probable(table.values, top)
    return replace(table, values=torch.cat([values, rest], -1), kept=which.int())
