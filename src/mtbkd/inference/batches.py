"""What chains learn from, and the minibatches that each draws with its own generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mtbkd.prior.settings import Prior
from mtbkd.training import TrainingSet, _on, prior_terms
from mtbkd.types import Batch, BatchSource, Generators, Gradient

_ROWS = 2**16
_PIECE = 2**22  # numbers of teachers' outputs whose terms are worked out at once
_PREPARED = 2**28  # bytes of the mixture's terms that are prepared once, not batch by batch


class Minibatches:
    """Draws examples for each chain with that chain's generator."""

    def __init__(self, data: TrainingSet, prior: Prior, generators: Generators) -> None:
        self.n_examples = len(data)
        self._data, self._prior, self._generators = data, prior, generators
        self._concentration = prior.concentration
        self._terms: Any = None
        self._fit = _size(prior_terms(data, prior, slice(0, 1))) * len(data) <= _PREPARED
        self.set_concentration(prior.concentration)

    def set_concentration(self, concentration: float) -> None:
        """Prepare the mixture's terms for this concentration, once if they fit into memory."""
        known = self._terms is not None and concentration == self._concentration
        self._concentration = concentration
        if self._fit and not known:
            self._terms = None  # makes room for the new ones
            self._terms = _prepared(self._data, self._prior, concentration)

    def __call__(self, size: int) -> BatchSource:
        """A batch with a leading chain axis; all examples, shared, if ``size`` covers them."""
        n, n_chains = self.n_examples, len(self._generators)
        if size >= n:
            prepared = self._terms is not None
            return self._shared(slice(None)) if prepared else _Mapped(n, self._shared)
        device = self._data.labels.device
        index = torch.stack(
            [torch.randint(n, (size,), generator=g, device=device) for g in self._generators]
        )
        if self._terms is not None:
            terms = _each(self._terms, lambda part: part[:, index].movedim(1, 0))
        else:
            found = prior_terms(self._data, self._prior, index.flatten(), at=self._concentration)
            terms = _each(found, lambda part: part.unflatten(1, (n_chains, size)).movedim(1, 0))
        features = self._data.features
        features = features[_on(features, index)].to(device)
        return Batch(features, self._data.labels[index], terms)

    def _shared(self, rows: slice) -> Batch:
        """Consecutive examples, the same for all chains."""
        data, n_chains = self._data, len(self._generators)
        if self._terms is not None:
            terms = _each(self._terms, lambda part: part[:, rows])
        else:
            terms = prior_terms(data, self._prior, rows, at=self._concentration)
        features = data.features[rows].to(data.labels.device)
        batch = Batch(features, data.labels[rows], terms)
        return batch.each(lambda part: part.expand(n_chains, *part.shape))


@dataclass(frozen=True)
class _Mapped:
    """All examples, of which rows are read when they are asked for."""

    n_examples: int
    read: Callable[[slice], Batch]

    def rows(self, rows: slice, /) -> Batch:
        return self.read(rows)


def _prepared(data: TrainingSet, prior: Prior, concentration: float) -> Any:
    """The terms of all examples, worked out over some of them at a time."""
    n, step = len(data), max(1, _PIECE // data.values[:, 0].numel())
    if n <= step:
        return prior_terms(data, prior, at=concentration)
    found: Any = None
    for start in range(0, n, step):
        rows = slice(start, start + step)
        terms = prior_terms(data, prior, rows, at=concentration)
        if found is None:
            found = _each(terms, lambda part: part.new_empty(len(part), n, *part.shape[2:]))
        for whole, part in zip(found, terms, strict=True):
            whole[:, rows] = part
    return found


def _size(terms: Any) -> int:
    """Bytes of these terms."""
    return sum(part.numel() * part.element_size() for part in terms)


def _each(terms: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return type(terms)(*map(change, terms))


def in_parts(gradient: Gradient, n_rows: int = _ROWS) -> Gradient:
    """The same gradient, over a few examples at a time, so that memory is bounded.

    Args:
        gradient: Of the log posterior averaged per example.
        n_rows: BatchSource held at a time, over all chains together.
    """

    def summed(position: Tensor, batch: BatchSource) -> tuple[Tensor, Tensor]:
        n, size = batch.n_examples, max(1, n_rows // len(position))
        if isinstance(batch, Batch) and n <= size:
            return gradient(position, batch)
        values, grads = torch.zeros_like(position[:, 0]), torch.zeros_like(position)
        for start in range(0, n, size):
            part = batch.rows(slice(start, start + size))
            value, grad = gradient(position, part)
            share = part.n_examples / n
            values.add_(value, alpha=share)
            grads.add_(grad, alpha=share)
        return values, grads

    return summed
