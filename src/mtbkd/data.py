"""Examples with stable ids, inputs, labels that may be missing, and named columns."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mtbkd.types import Family, InputError

_COLUMN = {"classification": "class", "multilabel": "label", "regression": "target"}
_COLUMNS = {"classification": "classes", "multilabel": "labels", "regression": "targets"}
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
    def n_labelled(self) -> int:
        """How many examples have a label."""
        return int(self.known.sum())

    @property
    def known(self) -> Tensor:
        """Which examples have a label, or any of several, shape (example,)."""
        if self.family == "classification":
            return self.labels >= 0
        return (~self.labels.isnan()).any(1)

    def subset(self, index: ArrayLike) -> Dataset:
        """The examples at these positions, in this order."""
        rows = np.asarray(index, dtype=np.int64)
        where = torch.from_numpy(rows)
        ids = tuple(self.ids[i] for i in rows)
        return replace(self, ids=ids, inputs=self.inputs[where], labels=self.labels[where])

    def without_labels(self, index: ArrayLike) -> Dataset:
        """The same examples with the labels at these positions removed."""
        labels = self.labels.clone()
        missing = -1 if self.family == "classification" else torch.nan
        labels[torch.as_tensor(np.asarray(index, dtype=np.int64))] = missing
        return replace(self, labels=labels)


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
        inputs: Shape (example, ...), finite numbers; stored as float32 unless a tensor of floats.
            An array of float32 is not copied, so one that is mapped from a file stays there.
        classes: Names of the classes, labels or targets.
        labels: Classification: class indices or names, -1, None or "" where missing. Multi-label:
            0, 1 or missing, shape (example, label). Regression: numbers, shape (example, target)
            or (example,) for one. Missing is NaN or None there. No labels at all if not given.
        ids: One for each example; "0", "1", … if not given.
        family: What is predicted.
        name: How messages call it.

    Raises:
        InputError: With one message for each fault.
    """
    tensor = inputs if isinstance(inputs, Tensor) else _shared(np.asarray(inputs)).float()
    tensor = tensor if tensor.is_floating_point() else tensor.float()
    names = tuple(str(c) for c in classes)
    keys = tuple(str(i) for i in (range(len(tensor)) if ids is None else ids))
    faults = [
        *_duplicates(names, f"{_COLUMN[family]} of the {name}"),
        *_duplicates(keys, f"id of the {name}"),
    ]
    if len(tensor) == 0:
        faults.append(
            f"Expected at least one example in the {name}, but got none. Check the "
            "file or the split."
        )
    fewest = 2 if family == "classification" else 1
    if len(names) < fewest:
        faults.append(
            f"Expected {('one', 'two')[fewest - 1]} {_COLUMNS[family]} or more in the {name}, but "
            f"got {len(names)}. Name every {_COLUMN[family]}."
        )
    if len(keys) != len(tensor):
        faults.append(
            f"Expected {len(tensor)} ids, one for each row of the {name}, but got "
            f"{len(keys)}. Give each example one id."
        )
    row = _first_not_finite(tensor)
    if row is not None:
        faults.append(
            f"Expected finite inputs in the {name}, but got NaN or infinity for id "
            f"{_pick(keys, row)}. Remove or impute it."
        )
    if family == "classification":
        known = torch.full((len(tensor),), -1)
    else:
        known = torch.full((len(tensor), len(names)), torch.nan)
    if labels is not None:
        read = _label_indices if family == "classification" else _label_numbers
        known, label_faults = read(labels, names, keys, len(tensor), name)
        faults += label_faults
    if labels is not None and family == "multilabel" and known.numel():
        faults += _not_binary(known, names, keys, name)
    if faults:
        raise InputError(*faults)
    return Dataset(keys, tensor, known, names, family)


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
    if faults:
        raise InputError(*faults)


def _label_indices(
    labels: Sequence[object] | ArrayLike,
    classes: tuple[str, ...],
    ids: tuple[str, ...],
    n_rows: int,
    name: str,
) -> tuple[Tensor, list[str]]:
    if isinstance(labels, Tensor):
        labels = labels.tolist() if labels.is_floating_point() else labels.numpy(force=True)
    values = labels if isinstance(labels, np.ndarray) else list(labels)  # type: ignore[arg-type]
    if len(values) != n_rows:
        return torch.empty(0), [
            f"Expected {n_rows} labels in the {name}, but got {len(values)}. Give one for each "
            "example, -1 where it is missing."
        ]
    if isinstance(values, np.ndarray):
        if values.ndim == 1 and values.dtype.kind in "iu" and len(values):
            if -1 <= values.min() and values.max() < len(classes):
                return torch.from_numpy(values.astype(np.int64)), []
        values = values.tolist()
    position = {c: i for i, c in enumerate(classes)}
    found: list[int] = []
    outside: list[tuple[int, object]] = []
    for row, value in enumerate(values):
        if value is None or value == "" or value == -1:
            index: int | None = -1
        elif isinstance(value, str):
            index = position.get(value)
        else:
            index = int(value) if float(value) in range(len(classes)) else None  # type: ignore[arg-type]
        if index is None:
            outside.append((row, value))
        found.append(-1 if index is None else index)
    if outside:
        row, value = outside[0]
        return torch.empty(0), [
            f"Expected labels among the {len(classes)} classes of the {name}, but got {value!r} "
            f"for id {_pick(ids, row)} ({len(outside)} such). Correct them or add the class."
        ]
    return torch.tensor(found), []


def _label_numbers(
    labels: Sequence[object] | ArrayLike,
    columns: tuple[str, ...],
    ids: tuple[str, ...],
    n_rows: int,
    name: str,
) -> tuple[Tensor, list[str]]:
    if isinstance(labels, Tensor):
        labels = labels.numpy(force=True)
    try:
        numbers = torch.as_tensor(np.array(labels, dtype=np.float32))
    except (TypeError, ValueError):
        return torch.empty(0), [
            f"Expected labels of the {name} as numbers, NaN where missing, but got "
            f"{_first_word(labels)!r}. Give one number for each of {', '.join(columns)}."
        ]
    if numbers.dim() == 1 and len(columns) == 1:
        numbers = numbers[:, None]
    if tuple(numbers.shape) != (n_rows, len(columns)):
        return torch.empty(0), [
            f"Expected labels of shape ({n_rows}, {len(columns)}) in the {name}, one row for each "
            f"example and one column for each of {', '.join(columns)}, but got "
            f"{tuple(numbers.shape)}. Give NaN where one is missing."
        ]
    infinite = numbers.isinf().any(1)
    if infinite.any():
        return torch.empty(0), [
            f"Expected finite labels in the {name}, but got infinity for id "
            f"{_pick(ids, int(infinite.nonzero()[0]))}. Correct it, or give NaN."
        ]
    return numbers, []


def _not_binary(
    labels: Tensor, columns: tuple[str, ...], ids: tuple[str, ...], name: str
) -> list[str]:
    wrong = ~(labels.isnan() | (labels == 0) | (labels == 1))
    if not wrong.any():
        return []
    row, column = wrong.nonzero()[0].tolist()
    return [
        f"Expected labels of 0 or 1 in the {name}, but got {labels[row, column]:g} for "
        f"{columns[column]!r} of id {_pick(ids, row)} ({int(wrong.sum())} such). Correct them; NaN "
        "is a missing one."
    ]


def _first_word(labels: object) -> object:
    """Something among the labels that is not a number."""
    values = np.array(labels, dtype=object).ravel().tolist()
    return next((value for value in values if isinstance(value, str)), labels)


def _shared(array: NDArray[Any]) -> Tensor:
    """The array as a tensor without a copy, also one that must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.as_tensor(array)


def _first_not_finite(tensor: Tensor) -> int | None:
    """The first row with NaN or infinity, looked for some rows at a time."""
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


def _pick(ids: tuple[str, ...], row: int) -> str:
    return repr(ids[row]) if row < len(ids) else f"of row {row}"
