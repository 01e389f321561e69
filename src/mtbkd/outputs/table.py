"""One teacher's outputs as they were given: checked, in its own order, with the family's values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mtbkd.errors import collect
from mtbkd.observation import OUTCOMES, Kind, Names, Outcome
from mtbkd.outputs.class_map import ClassMap, read_class_map
from mtbkd.outputs.counts import shares
from mtbkd.outputs.kinds import (
    finite_faults,
    floored,
    kept_positions,
    kind_faults,
    log_variance,
    numbers_of,
    repeated,
    top_faults,
)
from mtbkd.types import Family, InputError, class_name, in_order, refuse


@dataclass(frozen=True)
class TeacherTable:
    """One teacher's outputs, checked, in its own order of examples and classes.

    Attributes:
        name: The teacher's name.
        values: As in `TeacherOutputs`, without the teacher axis, in the teacher's own columns. The
            log variance is NaN where the teacher gives no variance; it is then estimated from
            labels.
        ids: One for each row.
        classes: Its own classes, labels or targets.
        held_out: False if the teacher was trained on these examples.
        family: What it predicts.
        kept: Its most probable classes, by position in ``classes``, shape (example, kept), for
            outputs that were cut to these; the last column of ``values`` is then the rest's.
        partial: Whether it is declared to know fewer classes than the data.
        covers: Own class to the classes of the data that it stands for, where that is several.
        totals: As in `TeacherOutputs`, shape (example,), if the outputs are counts.
        group: Teachers of one group share mistakes, and count as one; "" is in none.
    """

    name: str
    values: Tensor
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    held_out: bool = True
    family: Family = "classification"
    kept: Tensor | None = None
    partial: bool = False
    covers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    totals: Tensor | None = None
    group: str = ""

    @property
    def outcome(self) -> Outcome:
        """What is predicted."""
        return OUTCOMES[self.family]


@dataclass(frozen=True)
class Declared:
    """What is said of a teacher, beside the kind of its numbers.

    Attributes:
        family: What the teacher predicts.
        held_out: False if the teacher was trained on these examples.
        partial: Whether it knows only some of the data's classes.
        class_map: What its own classes are called in the data, a sequence where one stands for
            several, None to leave one out; the others are then renormalised, and the table is
            partial. Classes that are not in it keep their names.
        merge: Whether own classes that mean the same are added; else they are refused.
        group: Teachers of one group share mistakes, such as prompts of one model, and count as one.
    """

    family: Family = "classification"
    held_out: bool = True
    partial: bool = False
    class_map: ClassMap | None = None
    merge: bool = False
    group: str = ""


def make_table(
    name: str,
    values: ArrayLike | Tensor,
    *,
    kind: Kind,
    ids: Sequence[object],
    classes: Sequence[object],
    variance: ArrayLike | Tensor | None = None,
    **declared: Any,
) -> TeacherTable:
    """Check one teacher's outputs and turn them into the family's values.

    Args:
        name: The teacher's name.
        values: Shape (example, class); (example,) will do for one target. A frame of pandas or
            polars whose columns have the names of the classes is taken by name.
        kind: What the numbers are. It is declared, never guessed, but refused when impossible.
            Classification: logits, probs, log_probs, or counts such as people's votes, of which
            few are worth less than many. Multi-label: logits, which are log-odds,
            or probs of yes. Regression: mean.
        ids: One for each row.
        classes: One for each column, in the teacher's own words.
        variance: A regression teacher's, above zero, in squared units of the target: one number,
            one for each target, or shape (example, target). None if it gives none.
        **declared: ``family``, ``held_out``, ``partial``, ``class_map``, ``merge`` and ``group``,
            as `Declared` describes them.

    Raises:
        InputError: With one message for each fault.
    """
    keys, columns = tuple(map(str, ids)), tuple(map(class_name, classes))
    said = Declared(**declared)
    family, outcome = said.family, OUTCOMES.get(said.family)
    if outcome is None:
        raise InputError(
            f"Expected the family of teacher {name!r} among {', '.join(OUTCOMES)}, but got "
            f"{family!r}. Declare one of them."
        )
    what = outcome.column
    numbers = numbers_of(f"outputs of teacher {name!r}", in_order(values, columns))
    if numbers.ndim == 1 and len(columns) == 1 and outcome.numeric:
        numbers = numbers[:, None]
    if numbers.ndim != 2:
        raise InputError(
            f"Expected outputs of teacher {name!r} as (example, {what}), but got "
            f"{numbers.ndim} axes. Give a table."
        )
    faults = kind_faults(name, kind, outcome.kinds)
    if numbers.size == 0:
        faults.append(f"Expected outputs from teacher {name!r}, but got none. Check the file.")
    if numbers.shape != (len(keys), len(columns)):
        faults.append(
            f"Expected {len(keys)} rows and {len(columns)} columns from teacher "
            f"{name!r}, one for each id and {what}, but got {numbers.shape[0]} and "
            f"{numbers.shape[1]}. Check the file's header and rows."
        )
    faults += [*repeated(name, "id", keys), *(twice := repeated(name, what, columns))]
    if variance is not None and not outcome.numeric:
        faults.append(
            f"Expected a variance of regression teachers only, but got one of teacher {name!r}, "
            f"whose family is {family}. Leave it out."
        )
    mapped = columns, said.class_map, said.merge
    plan = None if twice else collect(faults, lambda: read_class_map(name, outcome, *mapped))
    spread, totals = None, None
    if not faults:
        wrong = finite_faults(name, numbers, kind, keys)
        faults += wrong or outcome.faults(numbers, kind, Names(name, keys, columns))
        if variance is not None:
            spread, wrong = log_variance(name, in_order(variance, columns), keys, columns)
            faults += wrong
    if faults or plan is None:
        raise InputError(*faults)
    if kind == "counts":
        numbers, behind = shares(numbers)
        kind, totals = "probs", torch.from_numpy(behind).float()
    return TeacherTable(
        name=name,
        values=outcome.settle(numbers, kind, plan.target, spread),
        ids=keys,
        classes=plan.classes,
        held_out=said.held_out,
        family=family,
        partial=said.partial or plan.drops,
        covers=plan.covers,
        totals=totals,
        group=said.group,
    )


def make_top_table(
    name: str,
    values: ArrayLike | Tensor,
    kept: ArrayLike | Tensor,
    tail: ArrayLike | Tensor | None,
    *,
    kind: Kind,
    ids: Sequence[object],
    classes: Sequence[object],
    held_out: bool = True,
) -> TeacherTable:
    """Check the outputs of a teacher that gives its most probable classes only.

    Args:
        name: The teacher's name.
        values: What it says of these classes, shape (example, kept); what stands beside a padding
            is left out.
        kept: Which they are, shape (example, kept): positions in ``classes``, -1 as padding, or
            their names, "" as padding.
        tail: Probability of all other classes together, shape (example,).
        kind: What ``values`` are: probs or log_probs.
        ids: One for each row.
        classes: All that the teacher can tell apart.
        held_out: False if the teacher was trained on these examples.

    Raises:
        InputError: With one message for each fault.
    """
    keys, columns = tuple(map(str, ids)), tuple(map(class_name, classes))
    if tail is None:
        raise InputError(
            f"Expected the tail mass of teacher {name!r}, the probability of all classes that "
            "are not among its most probable ones, but got none. Give 1 - sum, or all classes."
        )
    numbers = numbers_of(f"outputs of teacher {name!r}", values)
    rest = numbers_of(f"the tail of teacher {name!r}", tail)
    which, unnamed = kept_positions(name, kept, columns)
    faults = kind_faults(name, kind, ("probs", "log_probs"))
    faults += [*repeated(name, "id", keys), *repeated(name, "class", columns)]
    n_rows = len(keys)
    if numbers.ndim != 2 or numbers.shape != which.shape or rest.shape != (len(numbers),):
        faults.append(
            f"Expected outputs, kept classes and tail of teacher {name!r} as (example, kept) twice "
            f"and (example,), but got {numbers.shape}, {which.shape} and {rest.shape}. Give one "
            "class for each number and one tail for each example."
        )
    elif len(numbers) != n_rows or not numbers.size:
        faults.append(
            f"Expected {n_rows} rows from teacher {name!r}, one for each id, and a column or "
            f"more, but got {numbers.shape[0]} and {numbers.shape[1]}. Check the file's rows."
        )
    elif numbers.shape[1] > len(columns):
        faults.append(
            f"Expected at most {len(columns)} kept classes from teacher {name!r}, which knows no "
            f"more, but got {numbers.shape[1]}. Name all of its classes."
        )
    if not faults:
        faults += [
            f"Expected kept classes of teacher {name!r} among its {len(columns)}, but got "
            f"{label!r} for id {keys[row]!r} ({count} such). Name the class; "
            "pad with -1, or '' among names."
            for row, label, count in unnamed
        ]
    if not faults:
        faults += top_faults(name, numbers, which, rest, kind, keys, len(columns))
    refuse(*faults)
    padding = np.column_stack([which < 0, np.zeros(n_rows, dtype=bool)])
    probs = np.where(which < 0, 0.0, np.exp(numbers) if kind == "log_probs" else numbers)
    with np.errstate(divide="ignore"):
        logs = torch.from_numpy(np.log(np.column_stack([probs, rest])))
    settled = floored(logs.clamp_min(-1e4), torch.from_numpy(padding))
    return TeacherTable(
        name=name,
        values=settled,
        ids=keys,
        classes=columns,
        held_out=held_out,
        kept=torch.from_numpy(which),
    )
