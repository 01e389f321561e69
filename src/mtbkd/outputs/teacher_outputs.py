"""What all teachers say on the same examples and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from mtbkd.observation import OUTCOMES, Observation, Outcome
from mtbkd.types import Family, InputError, Ints


@dataclass(frozen=True)
class TeacherOutputs:
    """All teachers on the same examples and classes.

    Attributes:
        names: Teachers, all different.
        values: Classification: log-probabilities in nats, shape (teacher, example, class).
            Multi-label: log-probabilities of no and of yes, shape (teacher, example, label, 2).
            Regression: mean and log variance, shape (teacher, example, target, 2); the log
            variance is NaN where the teacher gives no variance, which is then estimated from
            labels. Finite everywhere else; where a teacher says nothing they mean nothing. The
            tensor may be mapped from a file and of half precision.
        mask: False where a teacher says nothing, shape (teacher, example) for classification, else
            (teacher, example, label or target).
        ids: Examples, in the order of the axis.
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
        totals: Where some teacher gives counts: how many are behind what it says, those of the
            prior included (`mtbkd.outputs.counts`), shape (teacher, example), infinity for all
            others. None if no teacher does.
        groups: For each teacher the first one of its group, shape (teacher,): teachers of one group
            share mistakes, and count as one. None if no two are in one group.

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
    totals: Tensor | None = None
    groups: Tensor | None = None

    @property
    def outcome(self) -> Outcome:
        """What is predicted."""
        return OUTCOMES[self.family]

    @property
    def observation(self) -> Observation:
        """How a student's outputs meet these teachers."""
        return self.outcome.observe(len(self.classes), self.blocks, self.kept)

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
            values=rows_of(self.values, rows, 1),
            mask=rows_of(self.mask, rows, 1),
            ids=wanted,
            kept=None if self.kept is None else rows_of(self.kept, rows, 1),
            totals=None if self.totals is None else rows_of(self.totals, rows, 1),
        )


def joined_outputs(first: TeacherOutputs, second: TeacherOutputs) -> TeacherOutputs:
    """What the same teachers say on two sets of examples.

    Raises:
        InputError: If teachers, classes or what they tell apart differ, or an id is in both.
    """
    alike = all(
        getattr(first, name) == getattr(second, name) for name in ("names", "classes", "family")
    )
    layouts = [
        (o.blocks is None, None if o.kept is None else o.kept.shape[2]) for o in (first, second)
    ]
    same = alike and layouts[0] == layouts[1]
    if same and first.blocks is not None and second.blocks is not None:
        same = torch.equal(first.blocks, second.blocks)
    if not same:
        raise InputError(
            f"Expected outputs of the teachers {', '.join(first.names)} on the same classes as "
            f"before, but got those of {', '.join(second.names)}, or on others. Align them in the "
            "same way."
        )
    shared = set(first.ids) & set(second.ids)
    if shared:
        raise InputError(
            f"Expected outputs on further examples, but {min(shared)!r} was there before "
            f"({len(shared)} such). Give examples other ids."
        )
    pair = (first, second)
    cut = [o.kept for o in pair if o.kept is not None]
    return replace(
        first,
        values=torch.cat([o.values for o in pair], 1),
        mask=torch.cat([o.mask for o in pair], 1),
        ids=first.ids + second.ids,
        held_out=first.held_out and second.held_out,
        kept=torch.cat(cut, 1) if cut else None,
        totals=_joined_totals(*pair),
    )


def _joined_totals(*pair: TeacherOutputs) -> Tensor | None:
    if all(o.totals is None for o in pair):
        return None
    shapes = [o.values.shape[:2] for o in pair]
    return torch.cat(
        [
            torch.full(shape, torch.inf) if o.totals is None else o.totals
            for o, shape in zip(pair, shapes, strict=True)
        ],
        1,
    )


def _positions(known: tuple[str, ...], wanted: tuple[str, ...]) -> Ints:
    """Where each wanted id stands among the known ones, -1 if nowhere."""
    if known == wanted:
        return np.arange(len(known))
    row_of = dict(zip(known, range(len(known)), strict=True))
    return np.fromiter(map(row_of.get, wanted, repeat(-1)), np.int64, len(wanted))


def rows_of(tensor: Tensor, rows: Ints, axis: int) -> Tensor:
    """These rows, as a view if they follow each other."""
    if not len(rows):
        return tensor.narrow(axis, 0, 0)
    if np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        return tensor.narrow(axis, int(rows[0]), len(rows))
    return tensor.index_select(axis, torch.from_numpy(rows).to(tensor.device))
