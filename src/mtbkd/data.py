"""Examples with stable ids, inputs, labels that may be missing, and named classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mtbkd.types import InputError


@dataclass(frozen=True)
class Dataset:
    """Examples in a fixed order.

    Attributes:
        ids: One for each example, unique.
        inputs: What the student reads, shape (example, ...).
        labels: Class indices, shape (example,); -1 where the label is missing.
        classes: Class names in the order of the student's outputs.
    """

    ids: tuple[str, ...]
    inputs: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_labelled(self) -> int:
        """How many examples have a label."""
        return int((self.labels >= 0).sum())

    def subset(self, index: ArrayLike) -> Dataset:
        """The examples at these positions, in this order."""
        rows = np.asarray(index, dtype=np.int64)
        where = torch.from_numpy(rows)
        ids = tuple(self.ids[i] for i in rows)
        return Dataset(ids, self.inputs[where], self.labels[where], self.classes)

    def without_labels(self, index: ArrayLike) -> Dataset:
        """The same examples with the labels at these positions removed."""
        labels = self.labels.clone()
        labels[torch.as_tensor(np.asarray(index, dtype=np.int64))] = -1
        return Dataset(self.ids, self.inputs, labels, self.classes)


def make_dataset(
    inputs: ArrayLike | Tensor,
    *,
    classes: Iterable[object],
    labels: Sequence[object] | ArrayLike | None = None,
    ids: Iterable[object] | None = None,
    name: str = "data set",
) -> Dataset:
    """Check and build a `Dataset`.

    Args:
        inputs: Shape (example, ...), finite numbers; stored as float32 unless a tensor of floats.
        classes: Class names.
        labels: Class indices, class names, or None; a missing label is -1, None or "".
        ids: One for each example; "0", "1", … if not given.
        name: How messages call it.

    Raises:
        InputError: With one message for each fault.
    """
    tensor = inputs if isinstance(inputs, Tensor) else torch.as_tensor(np.asarray(inputs)).float()
    tensor = tensor if tensor.is_floating_point() else tensor.float()
    names = tuple(str(c) for c in classes)
    keys = tuple(str(i) for i in (range(len(tensor)) if ids is None else ids))
    faults = [*_duplicates(names, f"class of the {name}"), *_duplicates(keys, f"id of the {name}")]
    if len(tensor) == 0:
        faults.append(
            f"Expected at least one example in the {name}, but got none. Check the "
            "file or the split."
        )
    if len(names) < 2:
        faults.append(
            f"Expected two classes or more in the {name}, but got {len(names)}. Name every class."
        )
    if len(keys) != len(tensor):
        faults.append(
            f"Expected {len(tensor)} ids, one for each row of the {name}, but got "
            f"{len(keys)}. Give each example one id."
        )
    finite = (
        torch.isfinite(tensor).reshape(len(tensor), -1).all(1) if len(tensor) else torch.ones(0)
    )
    if not finite.all():
        row = int((~finite).nonzero()[0])
        faults.append(
            f"Expected finite inputs in the {name}, but got NaN or infinity for id "
            f"{_pick(keys, row)}. Remove or impute it."
        )
    indices = torch.full((len(tensor),), -1)
    if labels is not None:
        indices, label_faults = _label_indices(labels, names, keys, len(tensor), name)
        faults += label_faults
    if faults:
        raise InputError(*faults)
    return Dataset(keys, tensor, indices, names)


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
    values = labels.tolist() if isinstance(labels, np.ndarray | Tensor) else list(labels)  # type: ignore[arg-type]
    if len(values) != n_rows:
        return torch.empty(0), [
            f"Expected {n_rows} labels in the {name}, but got {len(values)}. Give one for each "
            "example, -1 where it is missing."
        ]
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


def _duplicates(names: tuple[str, ...], what: str) -> list[str]:
    repeated = [n for n, count in Counter(names).items() if count > 1]
    if not repeated:
        return []
    return [
        f"Expected every {what} once, but got {repeated[0]!r} more than once "
        f"({len(repeated)} such). Make them unique."
    ]


def _pick(ids: tuple[str, ...], row: int) -> str:
    return repr(ids[row]) if row < len(ids) else f"of row {row}"
