"""The contracts between the parts: what a batch holds, what an engine is, how errors look."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtbkd.errors import InputError as InputError

Family = Literal["classification", "multilabel", "regression"]
"""What is predicted: one class of several, any of several labels, or real numbers."""

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

Report = Callable[[str, int, int], None]
"""Called with (stage, steps done, steps in all)."""


Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


def quiet(stage: str, done: int, total: int) -> None:
    """Report nothing."""


MISSING_WORDS = ("", "NaN", "nan", "NA", "N/A", "n/a", "<NA>", "None", "NULL", "null")
"""Texts that spell a missing label, as pandas reads them, unless a class has the name."""


def is_missing(value: object) -> bool:
    """Whether this is None, NaN, or what pandas has for them."""
    absent = value is None or type(value).__name__ in ("NAType", "NaTType")
    return absent or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def class_name(label: object) -> str:
    """The same name for 2 and 2.0, since gaps in a column of integers make floats of them."""
    whole = isinstance(label, float | np.floating) and float(label).is_integer()
    return str(int(label)) if whole else str(label)  # type: ignore[call-overload]


def positions(names: Sequence[str]) -> dict[str, int]:
    """Where each name stands; whole numbers are found as "2" and as "2.0", as what they are first.

    Example:
        >>> positions(["7", "2.0", "x"])
        {'7.0': 0, '2': 1, '7': 0, '2.0': 1, 'x': 2}
    """
    parts = [(i, name.removesuffix(".0"), name) for i, name in enumerate(names)]
    whole = [part for part in parts if part[1].removeprefix("-").isdecimal()]
    other = {f"{n}.0" if n == name else n: i for i, n, name in whole}
    return other | {name: i for i, name in enumerate(names)}


def in_order(given: Any, columns: Sequence[str]) -> Any:
    """A frame whose columns have these names, in this order; all else as it is."""
    own = list(given.columns) if hasattr(given, "columns") else []
    place = {class_name(name): name for name in own}
    ordered = len(own) == len(place) and place.keys() == set(columns)
    return given[[place[name] for name in columns]] if ordered else given


def array_of(given: Any) -> NDArray[Any]:
    """An array of anything that is one, also of pandas or polars; NaN or None is missing."""
    array = np.asarray(given)
    if array.dtype.kind == "O":
        values = [None if is_missing(value) else value for value in array.ravel().tolist()]
        numeric = {*map(type, values)} <= {int, float, type(None)}
        found = np.fromiter(values, float if numeric else object, len(values))
        array = found.reshape(array.shape)
    return array


WHOLE = (torch.uint8, torch.int16, torch.int32, torch.int64)
"""Types of whole numbers that inputs are kept in."""


def tensor_of(given: Any, what: str) -> Tensor:
    """Inputs of a student: a tensor as it is, arrays and frames as float32, without need no copy.

    Bytes, and whole numbers of an array, stay what they are.

    Raises:
        InputError: If they are no numbers.
    """
    if isinstance(given, Tensor):
        return given
    try:
        array = array_of(given)
        numbers = array if array.dtype.kind in "biuf" else array.astype(np.float32)
        if numbers.dtype in (np.uint16, np.uint32, np.uint64, np.int8):  # scarce in PyTorch
            numbers = numbers.astype(np.int64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"Expected {what} as numbers, but got: {error}. Leave such columns out, or make "
            "numbers of them."
        ) from None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        found = torch.as_tensor(numbers)
        return found if found.dtype in WHOLE else found.float()


def tell_missing(words: Sequence[str], owner: str) -> None:
    """Warn, once for all, that these texts are taken as missing labels; an empty one is plain."""
    words = [word for word in words if word]
    if words:
        warnings.warn(
            f"{len(words)} labels of {owner} spell a missing one, as {words[0]!r} does, and are "
            "taken as missing. If that is a class, name all classes.",
            stacklevel=3,
        )


def check_positive(**values: object) -> None:
    """Refuse settings that are no numbers above zero, or absurdly large ones.

    Raises:
        InputError: With one message for each of them.
    """
    refuse(*(fault for name, value in values.items() for fault in outside(name, value)))


def outside(name: str, value: Any, most: float = 1e9, *, whole: bool = False) -> list[str]:
    """What is wrong with a setting that must be above zero, if anything is.

    Args:
        name: How messages call it.
        value: What the user gave.
        most: The largest that makes sense.
        whole: Whether it counts something.
    """
    what = "a whole number" if whole else "a number"
    kind: Any = Integral if whole else Real
    if isinstance(value, bool) or not isinstance(value, kind):
        return [f"Expected {name} as {what}, but got {value!r}. Give {what} above 0."]
    if not value > 0:
        return [f"Expected {name} above 0, but got {value}. Raise it."]
    if value > most:
        got = "inf" if value == inf else f"{min(value, 10**300):g}"
        return [f"Expected {name} of {most:g} at most, but got {got}. Lower it."]
    return []


def refuse(*faults: str) -> None:
    """Raise the faults, if there are any.

    Raises:
        InputError: With these messages.
    """
    if faults:
        raise InputError(*faults)


class Batch(NamedTuple):
    """Examples as the log posterior reads them; a leading chain axis is added by the driver.

    Attributes:
        inputs: Features of the examples, shape (example, ...).
        labels: As in a `Dataset` of the same family, shape (example,) or (example, column).
        terms: What the mixture prior needs of the teachers, a named tuple of tensors of shape
            (teacher, example, ...), as the family prepares it.
        views: How each is seen if the inputs are augmented images, shape (example, 3), see
            `mtbkd.student.augment`.
    """

    inputs: Tensor
    labels: Tensor
    terms: Any
    views: Tensor | None = None

    @property
    def n_examples(self) -> int:
        """Examples of each chain, where there is a chain axis."""
        return self.labels.shape[1]

    def rows(self, rows: slice) -> Batch:
        """Some of them, where there is a chain axis."""
        terms = type(self.terms)(*(part[:, :, rows] for part in self.terms))
        views = None if self.views is None else self.views[:, rows]
        return Batch(self.inputs[:, rows], self.labels[:, rows], terms, views)

    def chain(self, chain: int) -> Batch:
        """Those of one chain."""
        return self.each(lambda part: part[chain])

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same with every tensor changed."""
        terms = type(self.terms)(*map(change, self.terms))
        views = None if self.views is None else change(self.views)
        return Batch(change(self.inputs), change(self.labels), terms, views)


class BatchSource(Protocol):
    """A `Batch`, or all examples of a data set that is mapped from files."""

    @property
    def n_examples(self) -> int:
        """Examples of each chain."""
        ...

    def rows(self, rows: slice, /) -> Batch:
        """Some of them, with a leading chain axis."""
        ...


LogPosterior = Callable[[Tensor, Any], Tensor]
"""``(position, batch) -> scalar`` for one chain, averaged per example; position is flat."""

Gradient = Callable[[Tensor, Any], tuple[Tensor, Tensor]]
"""``(position, batch) -> (values, gradients)`` for all chains: (chain,), (chain, parameter).

The gradients may live in a buffer that the next call overwrites.
"""

Generators = Sequence[torch.Generator]
"""One generator for each chain, so that a chain is the same alone or beside others."""


@dataclass(frozen=True)
class Engine:
    """A transition kernel over all chains at once.

    Attributes:
        init: ``(position, generators) -> state``; position has shape (chain, parameter).
        update: ``(state, batch, generators) -> (state, info)``. Every tensor in a state has a
            leading chain axis; ``info`` holds diagnostics that the next step does not need. The
            old state is used up: its memory becomes that of the new one.
    """

    init: Callable[[Tensor, Generators], Any]
    update: Callable[[Any, Any, Generators], tuple[Any, dict[str, Tensor]]]
