"""What every kind of input is asked: the contract of tables, proteins, images and texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from mtbkd.inputs.columns import Table
from mtbkd.types import Ints, Report

Scaling = Literal["columns", "clipped", "none"]
"""How a student's inputs are put in standard deviations of the training rows: each column; the
same, with rows to come kept within a few deviations; or not at all, as the network does it."""


@dataclass(frozen=True)
class Rows:
    """Rows of a file, checked.

    Attributes:
        ids: One for each row.
        values: What `InputKind` takes of each row, by position: numbers (row, column), sequences,
            texts, or images that are opened when they are needed.
        about: What has to be known to read other rows in the same way, as a run records it.
        table: All columns of the file, with those values clean that were cleaned.
        notes: What was changed or left out, one sentence each.
    """

    ids: tuple[str, ...]
    values: Any
    about: dict[str, Any] = field(default_factory=dict)
    table: Table | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unread:
    """What a student reads of rows, made of some of them when it is asked for.

    Attributes:
        n: How many rows there are.
        read: Consecutive ones, shape (row, ...).
    """

    n: int
    read: Callable[[slice], Tensor]

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, rows: slice) -> Tensor:
        return self.read(rows)


@dataclass(frozen=True)
class Encoder:
    """A frozen model that makes numbers of rows.

    Attributes:
        about: Which one it is, as a run records it; ``key`` is a hash of all that its features
            depend on.
        encode: Features of values, through the cache, float32, shape (row, feature).
    """

    about: dict[str, Any]
    encode: Callable[[Any, Report], Tensor]


@dataclass(frozen=True)
class Fitting:
    """How a kind of input that is no numbers yet becomes numbers, without a model.

    Attributes:
        fit: What is learned for that from the values of training rows, by a seed and without
            labels: tensors by name, which the run keeps.
        tensor: These, and values of any rows, to what a student reads, shape (row, feature).
    """

    fit: Callable[[Any, int], dict[str, Tensor]]
    tensor: Callable[[dict[str, Tensor], Any], Tensor]


def listed(values: Any, rows: Ints) -> list[Any]:
    """The values at these positions, as a list."""
    return [values[row] for row in rows]


@dataclass(frozen=True)
class InputKind:
    """One kind of input, as functions.

    Attributes:
        name: What the rows are, in the plural: ``images``.
        check: Rows of a file of examples. Raises `InputError` with one message for each fault,
            naming row and file.
        read: The same of new rows without labels, for predictions.
        tensor: What a student without an encoder reads of values, shape (row, ...); where there
            is a ``fitting``, only once that is fitted.
        scaling: How that is put in standard deviations.
        ask: What teachers are asked with: values, at these positions.
        find_encoder: A frozen model by name, on a device, and as it was recorded if it was; it is
            not read into memory. None where a student of this kind reads no encoder.
        draw: Markup that shows a person the row at a position: all rows, which one, and what the
            student reads of it.
        fitting: What has to be learned from training rows before a student without an encoder can
            read any; None if nothing has.
    """

    name: str
    check: Callable[[Table], Rows]
    read: Callable[[Path], Rows]
    tensor: Callable[[Any], Tensor]
    scaling: Scaling
    draw: Callable[[Rows, int, Tensor], str]
    ask: Callable[[Any, Ints], Any] = listed
    find_encoder: Callable[[str, str, dict[str, Any] | None], Encoder] | None = None
    fitting: Fitting | None = None
