"""Which of the data's classes, labels or targets a teacher's own columns mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mtbkd.observation import Outcome
from mtbkd.types import Ints, class_name, positions, refuse

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
    target: Ints
    covers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def drops(self) -> bool:
        """Whether some own columns are left out."""
        return bool((self.target < 0).any())


def read_class_map(
    name: str, outcome: Outcome, own: tuple[str, ...], class_map: ClassMap | None, merge: bool
) -> Columns:
    """Check a class map against a teacher's own classes; those not in it keep their names.

    Raises:
        InputError: With one message for each fault.
    """
    place = positions(own)
    named = {class_name(key): value for key, value in (class_map or {}).items()}
    given = {own[place[k]] if k in place else k: value for k, value in named.items()}
    what, several = outcome.column, outcome.columns
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
        if value is None and not outcome.numeric:
            continue
        meant = (str(value),) if value is None or _is_name(value) else tuple(map(str, value))
        if value is None or not meant or len(set(meant)) < len(meant):
            faults.append(
                f"Expected {what} {key!r} of teacher {name!r} to be mapped to a {what} of the "
                f"data, or to different ones, but got {value!r}. "
                + ("Leave the column out." if outcome.numeric else "Map it to None to drop.")
            )
            continue
        if len(meant) > 1 and not outcome.exclusive:
            faults.append(
                f"Expected {what} {key!r} of teacher {name!r} to be mapped to one {what}, but got "
                f"{', '.join(meant)}. Map it to one; only classes stand for several."
            )
            continue
        taken = next((c for c in meant if c in claimed), None)
        if taken is not None:
            first = claimed[taken]
            if merge and outcome.exclusive and meaning[first] == frozenset(meant):
                target[column] = target[first]
                continue
            remedy = outcome.twice
            if merge and outcome.exclusive:
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
    refuse(*faults)
    return Columns(tuple(classes), target, covers)


def _is_name(value: object) -> bool:
    return isinstance(value, str) or not isinstance(value, Sequence | set | frozenset)
