"""The contracts between the parts: what a batch holds, what an engine is, how errors look."""

from __future__ import annotations

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
    number = isinstance(value, Integral if whole else Real)
    if isinstance(value, bool) or not number:
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
    """

    inputs: Tensor
    labels: Tensor
    terms: Any

    @property
    def n_examples(self) -> int:
        """Examples of each chain, where there is a chain axis."""
        return self.labels.shape[1]

    def rows(self, rows: slice) -> Batch:
        """Some of them, where there is a chain axis."""
        terms = type(self.terms)(*(part[:, :, rows] for part in self.terms))
        return Batch(self.inputs[:, rows], self.labels[:, rows], terms)

    def chain(self, chain: int) -> Batch:
        """Those of one chain."""
        return self.each(lambda part: part[chain])

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same with every tensor changed."""
        terms = type(self.terms)(*map(change, self.terms))
        return Batch(change(self.inputs), change(self.labels), terms)


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
