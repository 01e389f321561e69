"""Examples with stable ids, inputs, labels that may be missing, and named columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mtbkd.observation import OUTCOMES, Names, Outcome
from mtbkd.observation.base import cell_shape, labelled
from mtbkd.types import WHOLE, Family, array_of, class_name, in_order, is_missing, refuse, tensor_of

_ROWS = 2**16  # rows that are checked at once


@dataclass(frozen=True)
class Dataset:
    """Examples in a fixed order.

    Attributes:
        ids: One for each example, unique.
        inputs: What the student reads, shape (example, ...).
        labels: Classification: class indices, shape (example,), -1 where the label is missing.
            Multi-label: 0 or 1, shape (example, label). Regression: shape (example, target). These
            two are float32, NaN where missing.
        classes: Names of the classes, labels or targets.
        family: What is predicted.
    """

    ids: tuple[str, ...]
    inputs: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    family: Family = "classification"

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def outcome(self) -> Outcome:
        """What is predicted."""
        return OUTCOMES[self.family]

    @property
    def n_labelled(self) -> int:
        """How many examples have a label."""
        return int(self.known.sum())

    @property
    def known(self) -> Tensor:
        """Which examples have a label, or any of several, shape (example,)."""
        return labelled(self.outcome, self.labels).unsqueeze(-1).flatten(1).any(1)

    def subset(self, index: ArrayLike) -> Dataset:
        """The examples at these positions, in this order."""
        rows = np.asarray(index, dtype=np.int64)
        where = torch.from_numpy(rows)
        ids = tuple(self.ids[i] for i in rows)
        return replace(self, ids=ids, inputs=self.inputs[where], labels=self.labels[where])

    def without_labels(self, index: ArrayLike) -> Dataset:
        """The same examples with the labels at these positions removed."""
        labels = self.labels.clone()
        labels[torch.as_tensor(np.asarray(index, dtype=np.int64))] = self.outcome.missing
        return replace(self, labels=labels)


def joined(first: Dataset, second: Dataset) -> Dataset:
    """The examples of two data sets of the same family and names."""
    return replace(
        first,
        ids=first.ids + second.ids,
        inputs=torch.cat([first.inputs, second.inputs]),
        labels=torch.cat([first.labels, second.labels]),
    )


def make_dataset(
    inputs: ArrayLike | Tensor,
    *,
    classes: Iterable[object],
    labels: Sequence[object] | ArrayLike | None = None,
    ids: Iterable[object] | None = None,
    family: Family = "classification",
    name: str = "data set",
) -> Dataset:
    """Check and build a `Dataset`.

    Args:
        inputs: Shape (example, ...), finite numbers, an array, a tensor or a frame of pandas or
            polars; stored as float32, but whole numbers as they are, so that pictures stay bytes.
            What is of such a type already is not copied: an array that is mapped from a file stays
            there.
        classes: Names of the classes, labels or targets; 2.0 is called "2".
        labels: Classification: class indices or names, -1, None, NaN or "" where missing; so is a
            text that spells it, as "NA" does, unless a class has this name. Numbers are names where
            the classes were given as numbers, else indices. Multi-label:
            0, 1 or missing, shape (example, label). Regression: numbers, shape (example, target)
            or (example,) for one. Missing is NaN or None there. A frame's columns are taken by
            name if they have the names of the classes. No labels at all if not given.
        ids: One for each example; "0", "1", … if not given.
        family: What is predicted.
        name: How messages call it.

    Raises:
        InputError: With one message for each fault.
    """
    tensor = tensor_of(inputs, f"inputs of the {name}").detach()
    tensor = tensor if tensor.dtype in WHOLE else tensor.float()
    outcome = OUTCOMES[family]
    given = list(classes)
    columns = tuple(map(class_name, given))
    keys = tuple(str(i) for i in (range(len(tensor)) if ids is None else ids))
    faults = [
        *_duplicates(columns, f"{outcome.column} of the {name}"),
        *_duplicates(keys, f"id of the {name}"),
    ]
    if len(tensor) == 0:
        faults.append(
            f"Expected at least one example in the {name}, but got none. Check the "
            "file or the split."
        )
    if len(columns) < 1 + outcome.exclusive:
        faults.append(
            f"Expected {'two' if outcome.exclusive else 'one'} {outcome.columns} or more in the "
            f"{name}, but got {len(columns)}. Name every {outcome.column}."
        )
    if len(keys) != len(tensor):
        faults.append(
            f"Expected {len(tensor)} ids, one for each row of the {name}, but got "
            f"{len(keys)}. Give each example one id."
        )
    names = Names(name, keys, columns)
    row = _first_not_finite(tensor)
    if row is not None:
        faults.append(
            f"Expected finite inputs in the {name}, but got NaN or infinity for id "
            f"{names.row(row)}. Remove or impute it."
        )
    if labels is None:
        known = torch.full((len(tensor), *cell_shape(outcome, len(columns))), outcome.missing)
    else:
        said: Any = labels
        if hasattr(said, "__array__") and not isinstance(said, Tensor):
            said = array_of(said if outcome.exclusive else in_order(said, columns))
            if outcome.exclusive and said.shape[1:] == (1,):
                said = said[:, 0]
        if outcome.exclusive and all(isinstance(c, Real) for c in given):
            said = _named(said, columns)
        known, wrong = outcome.read_labels(said, len(tensor), names)
        faults += wrong
    refuse(*faults)
    return Dataset(ids=keys, inputs=tensor, labels=known, classes=columns, family=family)


def _named(labels: Any, columns: tuple[str, ...]) -> Any:
    """Labels that are the numbers of classes as their names, unless these count from zero."""
    if columns == tuple(map(str, range(len(columns)))):
        return labels
    values = labels.tolist() if isinstance(labels, np.ndarray | Tensor) else list(labels)
    names = [value if is_missing(value) else class_name(value) for value in values]
    return [None if name == "-1" and name not in columns else name for name in names]


def check_splits(**splits: Dataset) -> None:
    """Refuse empty splits.

    Raises:
        InputError: With one message for each of them.
    """
    faults = [
        f"Expected at least one example in the split `{name}`, but got none. Enlarge the data or "
        "the split's share."
        for name, split in splits.items()
        if not len(split)
    ]
    refuse(*faults)


def _first_not_finite(tensor: Tensor) -> int | None:
    """The first row with NaN or infinity, looked for some rows at a time."""
    if not tensor.is_floating_point():
        return None
    for start in range(0, len(tensor), _ROWS):
        part = tensor[start : start + _ROWS]
        wrong = ~torch.isfinite(part).reshape(len(part), -1).all(1)
        if wrong.any():
            return start + int(wrong.nonzero()[0])
    return None


def _duplicates(names: tuple[str, ...], what: str) -> list[str]:
    if len(set(names)) == len(names):
        return []
    repeated = [n for n, count in Counter(names).items() if count > 1]
    return [
        f"Expected every {what} once, but got {repeated[0]!r} more than once "
        f"({len(repeated)} such). Make them unique."
    ]
