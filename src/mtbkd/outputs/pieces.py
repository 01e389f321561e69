"""The aligned outputs of one teacher after another, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mtbkd.outputs.kinds import LOG_FLOOR, in_order, most_probable
from mtbkd.outputs.matching import tell_unused
from mtbkd.outputs.table import TeacherTable
from mtbkd.outputs.teacher_outputs import TeacherOutputs, rows_of
from mtbkd.types import Ints

_PIECE = 2**22  # numbers that are worked on at once: 16 MB in single precision


@dataclass(frozen=True)
class Alignment:
    """Teachers matched to examples and classes, before any value is read.

    Attributes:
        layout: What the outputs will be; all tensors but ``blocks`` are of the device ``meta``.
        tables: The teachers.
        rows: For each teacher the row of each example, -1 where it has none.
        columns: For each teacher the column of each class, -1 where it has none.
    """

    layout: TeacherOutputs
    tables: tuple[TeacherTable, ...]
    rows: tuple[Ints, ...]
    columns: tuple[Tensor, ...]


class Piece(NamedTuple):
    """Some rows of one teacher's aligned outputs, as in `TeacherOutputs`."""

    teacher: int
    start: int
    values: Tensor
    mask: Tensor
    kept: Tensor | None
    totals: Tensor | None = None


def aligned_pieces(alignment: Alignment) -> Iterator[Piece]:
    """Every teacher's aligned outputs, some rows at a time; only these are held in memory."""
    layout = alignment.layout
    tell_unused(alignment.tables, alignment.rows)
    for k, table in enumerate(alignment.tables):
        place = torch.full((len(table.classes) + 1,), -1)
        if table.kept is not None:
            place[alignment.columns[k]] = torch.arange(len(layout.classes))
        step = max(1, _PIECE // max(1, table.values[:1].numel()))
        for start in range(0, len(layout.ids), step):
            rows = alignment.rows[k][start : start + step]
            values, mask, kept = _piece(table, rows, alignment.columns[k], place, layout)
            totals = None if layout.totals is None else _totals(table, rows)
            yield Piece(teacher=k, start=start, values=values, mask=mask, kept=kept, totals=totals)


def _totals(table: TeacherTable, rows: Ints) -> Tensor:
    """Counts behind what a teacher says, infinity if it does not count or says nothing."""
    totals = torch.full((len(rows),), torch.inf)
    if table.totals is not None:
        totals[torch.from_numpy(rows >= 0)] = rows_of(table.totals, rows[rows >= 0], 0)
    return totals


def _piece(
    table: TeacherTable, rows: Ints, columns: Tensor, place: Tensor, layout: TeacherOutputs
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Values, mask and kept classes of some examples.

    ``rows`` and ``columns`` are the table's for each example and class, -1 where it has none;
    ``place`` is the class for each of its columns, -1 behind them for padding.
    """
    speaks = torch.from_numpy(rows >= 0)
    found = rows[rows >= 0]
    given = rows_of(table.values, found, 0).float()
    if table.kept is not None and layout.kept is not None:
        which = place[rows_of(table.kept, found, 0).long()]
        return _kept(which, given[:, :-1], given[:, -1:], speaks, layout.kept)
    has = columns >= 0
    if not has.all() or not torch.equal(columns, torch.arange(len(columns))):
        placed = given.new_full((len(given), len(columns), *given.shape[2:]), LOG_FLOOR)
        placed[:, has] = given[:, columns[has]]
        given = placed
    if layout.kept is not None:
        return _kept(*most_probable(given, layout.kept.shape[-1]), speaks, layout.kept)
    unsaid = torch.full(layout.values.shape[2:], LOG_FLOOR)
    if not layout.outcome.exclusive:
        unsaid = layout.outcome.unsaid(len(columns))
        given[:, ~has] = unsaid[~has]
        return _filled(given, speaks, unsaid), speaks[:, None] & has, None
    unsaid[has] = layout.outcome.unsaid(int(has.sum()))
    return _filled(given, speaks, unsaid), speaks, None


def _kept(
    which: Tensor, given: Tensor, tail: Tensor, speaks: Tensor, like: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_piece`, of the most probable classes: which they are, their values, and the rest's."""
    which, given = in_order(which, given, like.shape[-1])
    none = torch.full(like.shape[2:], -1)
    unsaid = torch.cat([torch.full(none.shape, LOG_FLOOR), torch.zeros(1)])
    values = _filled(torch.cat([given, tail], 1), speaks, unsaid)
    return values, speaks, _filled(which, speaks, none).to(like.dtype)


def _filled(given: Tensor, speaks: Tensor, unsaid: Tensor) -> Tensor:
    """The given rows where the teacher speaks, else what stands for saying nothing."""
    if len(given) == len(speaks):
        return given
    filled = unsaid.expand(len(speaks), *unsaid.shape).clone()
    filled[speaks] = given
    return filled
