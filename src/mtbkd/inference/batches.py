"""What chains learn from, and the minibatches that each draws with its own generator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtbkd.posterior import Strength
from mtbkd.prior import mixture_terms
from mtbkd.types import Batch, Generators, Gradient

_ROWS = 2**16


@dataclass(frozen=True)
class TrainingSet:
    """Everything the log posterior needs of the data, on the student's device.

    Attributes:
        features: Inputs of the student's head, shape (example, ...).
        labels: Class indices, -1 where missing, shape (example,).
        log_probs: Teachers' log-probabilities in nats, shape (teacher, example, class).
        log_weights: Log teacher weights, shape (teacher, example).
    """

    features: Tensor
    labels: Tensor
    log_probs: Tensor
    log_weights: Tensor


@dataclass(frozen=True)
class Prior:
    """The mixture prior's settings.

    Attributes:
        concentration: Pseudo-observations that a teacher is worth.
        softening: Divides the teachers' log-probabilities.
        strength: How the mixture enters the posterior.
    """

    concentration: float = 1.0
    softening: float = 1.0
    strength: Strength = Strength()


class Minibatches:
    """Draws examples for each chain with that chain's generator."""

    def __init__(self, data: TrainingSet, prior: Prior, generators: Generators) -> None:
        self.n_examples = len(data.labels)
        self._data, self._prior, self._generators = data, prior, generators
        self.set_concentration(prior.concentration)

    def set_concentration(self, concentration: float) -> None:
        """Prepare the mixture's terms for this concentration."""
        data = self._data
        self._terms = mixture_terms(
            data.log_probs, data.log_weights, concentration, self._prior.softening
        )

    def __call__(self, size: int) -> Batch:
        """A batch with a leading chain axis; all examples, shared, if ``size`` covers them."""
        data, terms, n = self._data, self._terms, self.n_examples
        whole = Batch(data.features, data.labels, terms.pseudo_counts, terms.log_offsets)
        n_chains = len(self._generators)
        if size >= n:
            return Batch(*(part.expand(n_chains, *part.shape) for part in whole))
        device = data.labels.device
        index = torch.stack(
            [torch.randint(n, (size,), generator=g, device=device) for g in self._generators]
        )
        counts, offsets = whole.pseudo_counts[:, index], whole.log_offsets[:, index]
        return Batch(
            data.features[index], data.labels[index], counts.movedim(1, 0), offsets.movedim(1, 0)
        )


def in_parts(gradient: Gradient, n_rows: int = _ROWS) -> Gradient:
    """The same gradient, over a few examples at a time, so that memory is bounded.

    Args:
        gradient: Of the log posterior averaged per example.
        n_rows: Examples held at a time, over all chains together.
    """

    def summed(position: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        n_chains, n = batch.labels.shape
        size = max(1, n_rows // n_chains)
        if n <= size:
            return gradient(position, batch)
        values, grads = torch.zeros_like(position[:, 0]), torch.zeros_like(position)
        for start in range(0, n, size):
            rows = slice(start, start + size)
            part = Batch(
                batch.inputs[:, rows],
                batch.labels[:, rows],
                batch.pseudo_counts[:, :, rows],
                batch.log_offsets[:, :, rows],
            )
            value, grad = gradient(position, part)
            share = part.labels.shape[1] / n
            values.add_(value, alpha=share)
            grads.add_(grad, alpha=share)
        return values, grads

    return summed
