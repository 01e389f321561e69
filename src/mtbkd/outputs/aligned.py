"""What the teachers said: their values aligned by id and by class name, whatever the gaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from mtbkd.observation import Kind as Kind
from mtbkd.observation import Outcome
from mtbkd.observation.base import cell_shape, value_shape
from mtbkd.outputs.kinds import LOG_FLOOR as LOG_FLOOR
from mtbkd.outputs.matching import class_faults, kept_width, match_classes, match_rows
from mtbkd.outputs.pieces import Alignment as Alignment
from mtbkd.outputs.pieces import Piece as Piece
from mtbkd.outputs.pieces import aligned_pieces as aligned_pieces
from mtbkd.outputs.table import TeacherTable as TeacherTable
from mtbkd.outputs.table import make_table as make_table
from mtbkd.outputs.table import make_top_table as make_top_table
from mtbkd.outputs.teacher_outputs import TeacherOutputs as TeacherOutputs
from mtbkd.types import InputError


def align(
    tables: Sequence[TeacherTable],
    ids: tuple[str, ...],
    classes: tuple[str, ...],
    *,
    missing: Literal["error", "mask"] = "error",
    top: int | None = None,
) -> TeacherOutputs:
    """Match teachers to examples by id and to classes by name.

    Args:
        tables: At least one, all of one family.
        ids: Ids of the examples, in the order wanted.
        classes: In the order wanted.
        missing: Whether an example that a teacher does not know is an error or masked.
        top: Cut classification teachers to so many of their most probable classes and the rest's
            mass. They are cut without it too if one of them gives no more: all are cut to the
            largest number that any of them, or this argument, asks for.

    Raises:
        InputError: With one message for each fault of each teacher.
    """
    alignment = plan_alignment(tables, ids, classes, missing=missing, top=top)
    layout = alignment.layout
    values, mask = _room(layout.values), _room(layout.mask)
    kept, totals = (None if t is None else _room(t) for t in (layout.kept, layout.totals))
    for piece in aligned_pieces(alignment):
        stop = piece.start + len(piece.mask)
        values[piece.teacher, piece.start : stop] = piece.values
        mask[piece.teacher, piece.start : stop] = piece.mask
        if kept is not None and piece.kept is not None:
            kept[piece.teacher, piece.start : stop] = piece.kept
        if totals is not None and piece.totals is not None:
            totals[piece.teacher, piece.start : stop] = piece.totals
    return replace(layout, values=values, mask=mask, kept=kept, totals=totals)


def _room(like: Tensor) -> Tensor:
    """An empty tensor in memory; `torch.empty_like` of what is in none imports for a second."""
    return torch.empty(like.shape, dtype=like.dtype)


def plan_alignment(
    tables: Sequence[TeacherTable],
    ids: tuple[str, ...],
    classes: tuple[str, ...],
    *,
    missing: Literal["error", "mask"] = "error",
    top: int | None = None,
) -> Alignment:
    """Find every fault of an alignment, and where its values come from; see `align`.

    Raises:
        InputError: With one message for each fault of each teacher.
    """
    ids, classes = tuple(ids), tuple(classes)
    if not tables:
        raise InputError("Expected one teacher or more, but got none. Name a teacher.")
    family = tables[0].family
    other = next((t for t in tables if t.family != family), None)
    if other is not None:
        raise InputError(
            f"Expected teachers of one family, but got {family} of teacher {tables[0].name!r} and "
            f"{other.family} of teacher {other.name!r}. Distil them apart."
        )
    outcome, names = tables[0].outcome, tuple(t.name for t in tables)
    faults = []
    if missing not in ("error", "mask"):
        faults.append(
            f"Expected missing to be 'error' or 'mask', but got {missing!r}. Choose one of them."
        )
    row_of = dict(zip(ids, range(len(ids)), strict=True))
    for what, labels, distinct in (
        ("id", ids, row_of),
        (outcome.column, classes, set(classes)),
    ):
        if len(distinct) < len(labels):
            first = next(n for n, count in Counter(labels).items() if count > 1)
            faults.append(
                f"Expected every {what} of the data once, but got {first!r} more than once. "
                "Remove the duplicate."
            )
    all_rows, all_blocks, all_columns = [], [], []
    for table in tables:
        blocks, columns, unknown = match_classes(table.classes, table.covers, classes)
        rows, wrong = match_rows(table, ids, row_of, missing)
        faults += [*class_faults(table, classes, blocks, unknown), *wrong]
        all_rows.append(rows)
        all_blocks.append(blocks)
        all_columns.append(columns)
    twice = [n for n, count in Counter(names).items() if count > 1]
    if twice:
        faults.append(
            f"Expected teachers with different names, but got {twice[0]!r} more "
            "than once. Rename one."
        )
    gaps = [bool((c < 0).any()) for c in all_columns]
    width, wrong = kept_width(tables, gaps, top, len(classes))
    counted = [t.name for t in tables if t.totals is not None]
    if counted and width is not None:
        wrong.append(
            f"Expected no most probable classes beside counts, but got both, counts of teacher "
            f"{counted[0]!r}. Declare its shares as probs, or give all classes of the others."
        )
    if faults or wrong:
        raise InputError(*faults, *wrong)
    layout = TeacherOutputs(
        names=names,
        ids=ids,
        classes=classes,
        held_out=all(t.held_out for t in tables),
        family=family,
        **_layout(outcome, len(ids), torch.stack(all_blocks), width),
        totals=torch.empty(len(tables), len(ids), device="meta") if counted else None,
        groups=_groups([t.group for t in tables]),
    )
    return Alignment(
        layout=layout, tables=tuple(tables), rows=tuple(all_rows), columns=tuple(all_columns)
    )


def _groups(named: Sequence[str]) -> Tensor | None:
    """For each teacher the first one of its group; None if no two are in one."""
    first = [named.index(name) if name else row for row, name in enumerate(named)]
    if first == list(range(len(named))):
        return None
    return torch.tensor(first, dtype=torch.int16)


def _layout(outcome: Outcome, n_examples: int, blocks: Tensor, width: int | None) -> dict[str, Any]:
    """Tensors of the outputs, all but the blocks on the device ``meta``."""
    n_teachers, n_columns = blocks.shape
    shape = (n_teachers, n_examples)
    small = torch.int16 if n_columns < 2**15 else torch.int32
    n_values = value_shape(outcome, n_columns) if width is None else (width + 1,)
    n_cells = cell_shape(outcome, n_columns)
    gaps = outcome.exclusive and bool((blocks != torch.arange(n_columns)).any())
    return {
        "values": torch.empty(*shape, *n_values, device="meta"),
        "mask": torch.empty(*shape, *n_cells, dtype=torch.bool, device="meta"),
        "blocks": blocks.to(small) if gaps else None,
        "kept": None if width is None else torch.empty(*shape, width, dtype=small, device="meta"),
    }
