"""What the teachers said: their values aligned by id and by class name, whatever the gaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtbkd.outputs.class_map import COLUMN, COLUMNS, match_classes
from mtbkd.outputs.kinds import LOG_FLOOR as LOG_FLOOR
from mtbkd.outputs.kinds import Kind as Kind
from mtbkd.outputs.kinds import in_order, most_probable
from mtbkd.outputs.table import TeacherTable as TeacherTable
from mtbkd.outputs.table import make_table as make_table
from mtbkd.outputs.table import make_top_table as make_top_table
from mtbkd.types import Family, InputError

_PIECE = 2**22  # numbers that are worked on at once: 16 MB in single precision


@dataclass(frozen=True)
class TeacherOutputs:
    """All teachers on the same examples and classes.

    Attributes:
        names: Of the teachers.
        values: Classification: log-probabilities in nats, shape (teacher, example, class).
            Multi-label: log-probabilities of no and of yes, shape (teacher, example, label, 2).
            Regression: mean and log variance, shape (teacher, example, target, 2); the log
            variance is NaN where the teacher gives no variance, which is then estimated from
            labels. Finite everywhere else; where a teacher says nothing they mean nothing. The
            tensor may be mapped from a file and of half precision.
        mask: False where a teacher says nothing, shape (teacher, example) for classification, else
            (teacher, example, label or target).
        ids: Of the examples.
        classes: The data's classes, labels or targets.
        held_out: Whether no teacher was trained on these examples.
        family: What is predicted.
        blocks: Where some teacher does not tell all classes apart: for each teacher and class the
            first class of those that it has as one, -1 for a class that it does not know, shape
            (teacher, class). The values of a block stand in the column of its first class; all
            other columns hold the floor. None if every teacher knows every class.
        kept: For outputs cut to the most probable classes: which, shape (teacher, example, kept),
            -1 where fewer were kept, the most probable first. ``values`` then has shape (teacher,
            example, kept + 1), the last column for all other classes together. Where nothing was
            kept the column holds the floor.

    ``blocks`` and ``kept`` are of the smallest integers that hold the number of classes, so that
    they may stay mapped too: call ``.long()`` on the part that is used as an index.
    """

    names: tuple[str, ...]
    values: Tensor
    mask: Tensor
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    held_out: bool = True
    family: Family = "classification"
    blocks: Tensor | None = None
    kept: Tensor | None = None

    def at(self, ids: Sequence[str]) -> TeacherOutputs:
        """The outputs on the examples with these ids, in this order.

        Nothing is copied if these are all ids, or follow each other in the outputs.

        Raises:
            InputError: If an id is not known.
        """
        wanted = tuple(ids)
        if wanted == self.ids:
            return self
        rows = _positions(self.ids, wanted)
        if len(rows) and rows.min() < 0:
            unknown = np.flatnonzero(rows < 0)
            raise InputError(
                f"Expected teacher outputs for every example, but got none for id "
                f"{wanted[unknown[0]]!r} ({len(unknown)} such). Label it first."
            )
        return replace(
            self,
            values=_rows(self.values, rows, 1),
            mask=_rows(self.mask, rows, 1),
            ids=wanted,
            kept=None if self.kept is None else _rows(self.kept, rows, 1),
        )


def _positions(known: tuple[str, ...], wanted: tuple[str, ...]) -> NDArray[np.int64]:
    """Where each wanted id stands among the known ones, -1 if nowhere."""
    if known == wanted:
        return np.arange(len(known))
    row_of = dict(zip(known, range(len(known)), strict=True))
    return np.fromiter(map(row_of.get, wanted, repeat(-1)), np.int64, len(wanted))


def _rows(tensor: Tensor, rows: NDArray[np.int64], axis: int) -> Tensor:
    """These rows, as a view if they follow each other."""
    if not len(rows):
        return tensor.narrow(axis, 0, 0)
    if np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        return tensor.narrow(axis, int(rows[0]), len(rows))
    return tensor.index_select(axis, torch.from_numpy(rows).to(tensor.device))


class Piece(NamedTuple):
    """Some rows of one teacher's aligned outputs, as in `TeacherOutputs`."""

    teacher: int
    start: int
    values: Tensor
    mask: Tensor
    kept: Tensor | None


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
    rows: tuple[NDArray[np.int64], ...]
    columns: tuple[Tensor, ...]


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
        ids: Of the examples, in the order wanted.
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
    values, mask = (torch.empty_like(t, device="cpu") for t in (layout.values, layout.mask))
    kept = None if layout.kept is None else torch.empty_like(layout.kept, device="cpu")
    for piece in aligned_pieces(alignment):
        stop = piece.start + len(piece.mask)
        values[piece.teacher, piece.start : stop] = piece.values
        mask[piece.teacher, piece.start : stop] = piece.mask
        if kept is not None and piece.kept is not None:
            kept[piece.teacher, piece.start : stop] = piece.kept
    return replace(layout, values=values, mask=mask, kept=kept)


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
    names = tuple(t.name for t in tables)
    faults = []
    if missing not in ("error", "mask"):
        faults.append(
            f"Expected missing to be 'error' or 'mask', but got {missing!r}. Choose one of them."
        )
    row_of = dict(zip(ids, range(len(ids)), strict=True))
    for what, labels, distinct in (
        ("id", ids, row_of),
        (COLUMN[family], classes, set(classes)),
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
        rows, wrong = _match_rows(table, ids, row_of, missing)
        faults += [*_class_faults(table, classes, blocks, unknown), *wrong]
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
    width, wrong = _kept_width(tables, gaps, top, len(classes))
    if faults or wrong:
        raise InputError(*faults, *wrong)
    small = torch.int16 if len(classes) < 2**15 else torch.int32
    shape = (len(tables), len(ids))
    flat = family == "classification"
    n_values = (len(classes) if width is None else width + 1,) if flat else (len(classes), 2)
    layout = TeacherOutputs(
        names,
        torch.empty(*shape, *n_values, device="meta"),
        torch.empty(*shape, *(() if flat else n_values[:1]), dtype=torch.bool, device="meta"),
        ids,
        classes,
        all(t.held_out for t in tables),
        family,
        torch.stack(all_blocks).to(small) if flat and any(gaps) else None,
        None if width is None else torch.empty(*shape, width, dtype=small, device="meta"),
    )
    return Alignment(layout, tuple(tables), tuple(all_rows), tuple(all_columns))


def aligned_pieces(alignment: Alignment) -> Iterator[Piece]:
    """Every teacher's aligned outputs, some rows at a time; only these are held in memory."""
    layout = alignment.layout
    for k, table in enumerate(alignment.tables):
        place = torch.full((len(table.classes) + 1,), -1)
        if table.kept is not None:
            place[alignment.columns[k]] = torch.arange(len(layout.classes))
        step = max(1, _PIECE // max(1, table.values[:1].numel()))
        for start in range(0, len(layout.ids), step):
            rows = alignment.rows[k][start : start + step]
            values, mask, kept = _piece(table, rows, alignment.columns[k], place, layout)
            yield Piece(k, start, values, mask, kept)


def _match_rows(
    table: TeacherTable, ids: tuple[str, ...], row_of: Mapping[str, int], missing: str
) -> tuple[NDArray[np.int64], list[str]]:
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
    if n_given != len(ids) and missing == "error":
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
    if len(unknown):
        faults.append(
            f"Expected only ids of the data from teacher {table.name!r}, but got "
            f"{table.ids[unknown[0]]!r} ({len(unknown)} such). Remove them or check the ids."
        )
    return rows, faults


def _class_faults(
    table: TeacherTable, classes: tuple[str, ...], blocks: Tensor, unknown: list[str]
) -> list[str]:
    lacking = [classes[i] for i in (blocks < 0).nonzero()[:, 0].tolist()]
    lacking = [] if table.partial else lacking
    if not unknown and not lacking:
        return []
    several = COLUMNS[table.family]
    return [
        f"Expected teacher {table.name!r} to know the {several} {_few(classes)}, but it lacks "
        f"{_few(lacking, quoted=True)} and adds {_few(unknown, quoted=True)}. Rename its columns "
        f"to the data's {COLUMN[table.family]} names, map them with class_map, or pass "
        "partial=True if it knows only some."
    ]


def _few(names: Sequence[str], quoted: bool = False) -> str:
    shown = ", ".join(map(repr, names[:5]) if quoted else names[:5])
    shown = f"[{shown}]" if quoted and names else shown or "none"
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _kept_width(
    tables: Sequence[TeacherTable], gaps: list[bool], top: int | None, n_classes: int
) -> tuple[int | None, list[str]]:
    """How many classes to keep, None for all."""
    widths = [t.kept.shape[1] for t in tables if t.kept is not None]
    if top is None and not widths:
        return None, []
    if tables[0].family != "classification":
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


def _piece(
    table: TeacherTable,
    rows: NDArray[np.int64],
    columns: Tensor,
    place: Tensor,
    layout: TeacherOutputs,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Values, mask and kept classes of some examples.

    Args:
        table: Of the teacher.
        rows: Of the table, one for each example, -1 where it has none.
        columns: Of the table, one for each class of the data, -1 where it has none.
        place: The class of the data of each of its own, -1 behind them for padding.
        layout: What the outputs will be.
    """
    speaks = torch.from_numpy(rows >= 0)
    found = rows[rows >= 0]
    has = columns >= 0
    given = _rows(table.values, found, 0).float()
    if table.kept is not None and layout.kept is not None:
        which, tail = place[_rows(table.kept, found, 0).long()], given[:, -1:]
        given = given[:, :-1]
    else:
        if not has.all() or not torch.equal(columns, torch.arange(len(columns))):
            placed = given.new_full((len(given), len(columns), *given.shape[2:]), LOG_FLOOR)
            placed[:, has] = given[:, columns[has]]
            given = placed
        if layout.family != "classification":
            unsaid = torch.zeros(len(columns), 2)
            if layout.family == "multilabel":
                unsaid -= float(np.log(2))
            if not has.all():
                given[:, ~has] = unsaid[~has]
            return _filled(given, speaks, unsaid), speaks[:, None] & has, None
        if layout.kept is None:
            unsaid = torch.where(has, -float(np.log(int(has.sum()))), LOG_FLOOR)
            return _filled(given, speaks, unsaid), speaks, None
        which, given, tail = most_probable(given, layout.kept.shape[-1])
    which, given = in_order(which, given, layout.kept.shape[-1])
    none = torch.full(layout.kept.shape[2:], -1)
    unsaid = torch.cat([torch.full(none.shape, LOG_FLOOR), torch.zeros(1)])
    values = _filled(torch.cat([given, tail], 1), speaks, unsaid)
    return values, speaks, _filled(which, speaks, none).to(layout.kept.dtype)


def _filled(given: Tensor, speaks: Tensor, unsaid: Tensor) -> Tensor:
    """The given rows where the teacher speaks, else what stands for saying nothing."""
    if len(given) == len(speaks):
        return given
    filled = unsaid.expand(len(speaks), *unsaid.shape).clone()
    filled[speaks] = given
    return filled
