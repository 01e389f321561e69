"""Which of the data's classes, labels or targets a teacher's own columns mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtbkd.types import Family, InputError

COLUMN: dict[Family, str] = {
    "classification": "class",
    "multilabel": "label",
    "regression": "target",
}

COLUMNS: dict[Family, str] = {
    "classification": "classes",
    "multilabel": "labels",
    "regression": "targets",
}

ClassMap = Mapping[str, str | Sequence[str] | None]
"""Own class to the class of the data, to several of them, or to None, which drops it."""


@dataclass(frozen=True)
class Columns:
    """What becomes of a teacher's columns.

    Attributes:
        classes: The new columns.
        target: The new column of each own one, -1 for those that are dropped, shape (own class,).
        covers: New column to the classes of the data that it stands for, where that is several.
    """

    classes: tuple[str, ...]
    target: NDArray[np.int64]
    covers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether the numbers stay where they are."""
        return np.array_equal(self.target, np.arange(len(self.classes)))

    @property
    def drops(self) -> bool:
        """Whether some own columns are left out."""
        return bool((self.target < 0).any())


def read_class_map(
    name: str, family: Family, own: tuple[str, ...], class_map: ClassMap | None, merge: bool
) -> Columns:
    """Check a class map against a teacher's own classes.

    Args:
        name: Of the teacher.
        family: What it predicts.
        own: Its classes, without duplicates.
        class_map: What they mean; classes that are not in it keep their names.
        merge: Whether several own classes may mean the same.

    Raises:
        InputError: With one message for each fault.
    """
    given = {str(key): value for key, value in (class_map or {}).items()}
    what, several = COLUMN[family], COLUMNS[family]
    faults = [
        f"Expected {several} of teacher {name!r} as keys of its class map, but got {key!r}, which "
        f"is none of its {several}. Correct the key."
        for key in given
        if key not in own
    ]
    classes: list[str] = []
    target = np.full(len(own), -1)
    covers: dict[str, tuple[str, ...]] = {}
    claimed: dict[str, int] = {}
    meaning: dict[int, frozenset[str]] = {}
    for column, key in enumerate(own):
        value = given.get(key, key)
        if value is None and family != "regression":
            continue
        meant = (str(value),) if value is None or _is_name(value) else tuple(map(str, value))
        if value is None or not meant or len(set(meant)) < len(meant):
            faults.append(
                f"Expected {what} {key!r} of teacher {name!r} to be mapped to a {what} of the "
                f"data, or to different ones, but got {value!r}. "
                + ("Leave the column out." if family == "regression" else "Map it to None to drop.")
            )
            continue
        if len(meant) > 1 and family != "classification":
            faults.append(
                f"Expected {what} {key!r} of teacher {name!r} to be mapped to one {what}, but got "
                f"{', '.join(meant)}. Map it to one; only classes stand for several."
            )
            continue
        taken = next((c for c in meant if c in claimed), None)
        if taken is not None:
            first = claimed[taken]
            if merge and family == "classification" and meaning[first] == frozenset(meant):
                target[column] = target[first]
                continue
            remedy = {
                "classification": "Pass merge=True to add their probabilities, or correct it.",
                "multilabel": "Probabilities of labels do not add; map one of them to None.",
                "regression": "Targets can only be renamed; leave one of them out.",
            }[family]
            if merge and family == "classification":
                remedy = "Only classes that mean exactly the same are merged; correct it."
            faults.append(
                f"Expected one {what} of teacher {name!r} for each {what} of the data, but its "
                f"class map gives {taken!r} both {own[first]!r} and {key!r}. {remedy}"
            )
            continue
        claimed |= dict.fromkeys(meant, column)
        meaning[column] = frozenset(meant)
        target[column] = len(classes)
        classes.append(meant[0] if len(meant) == 1 else key)
        if len(meant) > 1:
            covers[key] = meant
    for key in covers:
        if classes.count(key) > 1:
            faults.append(
                f"Expected class {key!r} of teacher {name!r}, which stands for "
                f"{', '.join(covers[key])}, to have a name of its own, but another class is mapped "
                "to that name. Rename its column."
            )
    if not classes and not faults:
        faults.append(
            f"Expected teacher {name!r} to know a {what} of the data, but its class map drops "
            "all. Map one of them."
        )
    if faults:
        raise InputError(*faults)
    return Columns(tuple(classes), target, covers)


def _is_name(value: object) -> bool:
    return isinstance(value, str) or not isinstance(value, Sequence | set | frozenset)


def merged(log_values: Tensor, columns: Columns) -> Tensor:
    """Log of the summed values of own columns, shape (example, own class) to (example, class)."""
    stays = torch.from_numpy(columns.target >= 0)
    target = torch.from_numpy(columns.target)[stays]
    kept = log_values[:, stays]
    peak = kept.amax(1, keepdim=True)
    peak = torch.where(peak.isfinite(), peak, 0.0)
    if len(target) == len(columns.classes):
        return kept - peak
    summed = kept.new_zeros(len(kept), len(columns.classes))
    return summed.index_add_(1, target, (kept - peak).exp()).log()


def match_classes(
    own: tuple[str, ...], covers: Mapping[str, tuple[str, ...]], classes: tuple[str, ...]
) -> tuple[Tensor, Tensor, list[str]]:
    """Where a teacher's columns stand among the data's classes.

    Args:
        own: The teacher's columns.
        covers: Those that stand for several classes of the data.
        classes: Of the data.

    Returns:
        For each class of the data the first class of its block, -1 where unknown, and the own
        column whose values stand there, -1 where none do, both of shape (class,); and the names
        that are none of the data's.
    """
    position = {c: i for i, c in enumerate(classes)}
    blocks, columns = np.full(len(classes), -1), np.full(len(classes), -1)
    unknown = []
    for column, key in enumerate(own):
        meant = covers.get(key, (key,))
        unknown += [c for c in meant if c not in position]
        where = sorted(position[c] for c in meant if c in position)
        if where:
            blocks[where] = where[0]
            columns[where[0]] = column
    return torch.from_numpy(blocks), torch.from_numpy(columns), unknown
