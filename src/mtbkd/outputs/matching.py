"""Where the rows and columns of one teacher's table stand among the examples and classes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from mtbkd.outputs.table import TeacherTable
from mtbkd.types import Ints, positions


def match_rows(
    table: TeacherTable, ids: tuple[str, ...], row_of: Mapping[str, int], missing: str
) -> tuple[Ints, list[str]]:
    """The table's row of each example, -1 where it has none, and what is wrong with its ids."""
    if table.ids == ids:
        return np.arange(len(ids)), []
    n_given = len(table.ids)
    places = np.fromiter(map(row_of.get, table.ids, repeat(-1)), np.int64, n_given)
    inside = places >= 0
    rows = np.full(len(ids), -1)
    rows[places[inside]] = np.flatnonzero(inside)
    unknown, absent = np.flatnonzero(~inside), np.flatnonzero(rows < 0)
    faults = []
    if n_given < len(ids) and missing == "error":
        faults.append(
            f"Expected {len(ids)} rows from teacher {table.name!r}, one for each "
            f"example, but got {n_given}. Give all of them, or pass "
            "missing='mask' if it does not know some."
        )
    elif len(absent) and missing == "error":
        faults.append(
            f"Expected every example from teacher {table.name!r}, but id {ids[absent[0]]!r} "
            f"is missing ({len(absent)} such). Give it, or pass missing='mask'."
        )
    if len(unknown) and (faults or not inside.any()):
        faults.append(
            f"Expected ids of the data from teacher {table.name!r}, but got "
            f"{table.ids[unknown[0]]!r} ({len(unknown)} such). Check the ids."
        )
    return rows, faults


def tell_unused(tables: Sequence[TeacherTable], all_rows: Sequence[Ints]) -> None:
    """Warn of rows that are not of the data, as where a table serves several data sets."""
    for table, rows in zip(tables, all_rows, strict=True):
        n = len(table.ids) - int((rows >= 0).sum())
        if n:
            used = set(rows.tolist())
            first = next(key for row, key in enumerate(table.ids) if row not in used)
            warnings.warn(
                f"{n} of {len(table.ids)} rows of teacher {table.name!r} are not used, as the data "
                f"have no such ids: {first!r} is the first.",
                stacklevel=4,
            )


def match_classes(
    own: tuple[str, ...], covers: Mapping[str, tuple[str, ...]], classes: tuple[str, ...]
) -> tuple[Tensor, Tensor, list[str]]:
    """Where a teacher's own columns, some of which cover several, stand among the data's classes.

    Returns:
        For each class of the data the first class of its block, -1 where unknown, and the own
        column whose values stand there, -1 where none do, both of shape (class,); and the names
        that are none of the data's.
    """
    position = positions(classes)
    blocks, columns = np.full(len(classes), -1), np.full(len(classes), -1)
    unknown = []
    for column, key in enumerate(own):
        meant = covers.get(key, (key,))
        found = {c: position[c] for c in meant if c in position and blocks[position[c]] < 0}
        unknown += [c for c in meant if c not in found]
        where = sorted(found.values())
        if where:
            blocks[where] = where[0]
            columns[where[0]] = column
    return torch.from_numpy(blocks), torch.from_numpy(columns), unknown


def class_faults(
    table: TeacherTable, classes: tuple[str, ...], blocks: Tensor, unknown: list[str]
) -> list[str]:
    """Classes that a teacher lacks, unless it is partial, and those that the data lack."""
    lacking = [classes[i] for i in (blocks < 0).nonzero()[:, 0].tolist()]
    lacking = [] if table.partial else lacking
    if not unknown and not lacking:
        return []
    several = table.outcome.columns
    return [
        f"Expected teacher {table.name!r} to know the {several} {_few(classes)}, but it lacks "
        f"{_few(lacking, quoted=True)} and adds {_few(unknown, quoted=True)}. Rename its columns "
        f"to the data's {table.outcome.column} names, map them with class_map, or pass "
        "partial=True if it knows only some."
    ]


def _few(names: Sequence[str], quoted: bool = False) -> str:
    shown = ", ".join(map(repr, names[:5]) if quoted else names[:5])
    shown = f"[{shown}]" if quoted and names else shown or "none"
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def kept_width(
    tables: Sequence[TeacherTable], gaps: list[bool], top: int | None, n_classes: int
) -> tuple[int | None, list[str]]:
    """How many classes to keep, None for all."""
    widths = [t.kept.shape[1] for t in tables if t.kept is not None]
    if top is None and not widths:
        return None, []
    if not tables[0].outcome.exclusive:
        return None, [
            f"Expected top of classification teachers only, but got {top} for {tables[0].family}. "
            "Leave it out."
        ]
    if top is not None and not (type(top) is int and 1 <= top <= n_classes):
        return None, [
            f"Expected top from 1 to {n_classes}, the number of classes, but got {top!r}. Choose "
            "another, or None for all."
        ]
    return max([*widths, top or 1]), [
        f"Expected teachers that tell all classes apart where only the most probable are kept, but "
        f"got teacher {t.name!r}, which knows only some or has several as one. Give all classes of "
        "the other teachers and leave top out, or leave this one out."
        for t, gap in zip(tables, gaps, strict=True)
        if gap and (t.partial or t.covers)
    ]
