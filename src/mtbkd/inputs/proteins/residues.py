"""All residues of some proteins in one row, and sums over regions and windows of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mtbkd.inputs.proteins.scales import TABLE, UNKNOWN
from mtbkd.types import Bools, Floats, Ints

_FAR = 1 << 40


@dataclass(frozen=True)
class Residues:
    """All residues of some proteins in one row: shapes (residue,), or (protein,) where marked."""

    codes: Ints
    owner: Ints
    position: Ints  # from the first residue, starting at 0
    remaining: Ints  # residues that follow in the same protein
    start: Ints  # (protein,)
    length: Ints  # (protein,)

    @classmethod
    def of(cls, sequences: Sequence[str]) -> Self:
        """Lay the sequences end to end."""
        length = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        start = np.cumsum(length) - length
        owner = np.repeat(np.arange(len(sequences)), length)
        text = "".join(sequences).encode("ascii", "replace")
        position = np.arange(len(text)) - start[owner]
        return cls(
            codes=TABLE[np.frombuffer(text, dtype=np.uint8)],
            owner=owner,
            position=position,
            remaining=length[owner] - 1 - position,
            start=start,
            length=length,
        )

    def total(self, values: NDArray[np.generic], where: Bools | None = None) -> Floats:
        """Sum (residue,) values per protein -> (protein,), in order of position."""
        owner = self.owner
        if where is not None:
            owner, values = owner[where], values[where]
        sums = np.bincount(owner, values.astype(np.float64), len(self.length))
        return sums.astype(np.float64)

    def mean(self, values: NDArray[np.generic], where: Bools) -> Floats:
        """Mean of (residue,) values per protein -> (protein,); 0 where nothing is selected."""
        return self.total(values, where) / np.maximum(self.total(where), 1)

    def largest(self, values: Floats, where: Bools, default: float) -> Floats:
        """Largest (residue,) value per protein -> (protein,); default where nothing is selected."""
        top = np.maximum.reduceat(np.where(where, values, -np.inf), self.start)
        return np.where(np.isfinite(top), top, default)

    def first(self, where: Bools) -> Ints:
        """Position of the first selected residue -> (protein,); the length where there is none."""
        position = np.minimum.reduceat(np.where(where, self.position, _FAR), self.start)
        return np.minimum(position, self.length)

    def windows(self, values: Ints, width: int) -> tuple[Floats, Bools]:
        """Means over windows starting at each residue, and which windows are whole.

        A protein shorter than the width has one window, itself.
        """
        sums = np.concatenate([[0], np.cumsum(values)])
        begin = np.arange(len(values))
        count = np.minimum(width, self.remaining + 1)
        whole = (self.remaining + 1 >= width) | (self.position == 0)
        return (sums[begin + count] - sums[begin]) / count, whole

    def composition(self, where: Bools) -> Floats:
        """Root frequencies of the 20 amino acids in a region -> (protein, 20)."""
        counts = self.counts(where)
        return np.sqrt(counts / np.maximum(counts.sum(1, keepdims=True), 1))

    def counts(self, where: Bools) -> Floats:
        """How often each of the 20 amino acids occurs in a region -> (protein, 20)."""
        where = where & (self.codes != UNKNOWN)
        cell = self.owner[where] * UNKNOWN + self.codes[where]
        shape = (len(self.length), UNKNOWN)
        return np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
