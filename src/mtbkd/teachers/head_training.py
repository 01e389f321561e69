"""Heads linear-ReLU-linear of several folds, trained side by side as one stack of matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from mtbkd.observation import Outcome

_BEST, _SMALLEST = 1e-4, 1e-6  # nats that count as better; share of a column that is no variation
_TEMPERATURES = torch.linspace(-1.5, 2.0, 71).exp()
_ROWS = 2**11


@dataclass(frozen=True)
class Training:
    """How heads are trained.

    Attributes:
        hidden: Units between both linear layers.
        epochs: At most.
        patience: Epochs without a better validation score after which a head is done.
        batch_size: Rows of a step.
        learning_rate: Learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        validation: Share of a head's rows that it is not trained but stopped and calibrated on.
    """

    hidden: int = 128
    epochs: int = 100
    patience: int = 8
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    validation: float = 0.15


@dataclass(frozen=True)
class Part:
    """What one head learns from.

    Attributes:
        train: Rows for its steps.
        validation: Rows that stop and calibrate it.
        generator: Source of its first weights and its batches.
    """

    train: Tensor
    validation: Tensor
    generator: torch.Generator


@dataclass(frozen=True)
class Heads:
    """All heads, stacked: features to calibrated logits, (fold, row, output).

    Attributes:
        mean: Means of the features, shape (fold, feature).
        scale: Inverse standard deviations, of the same shape.
        parameters: Weights and biases of both layers.
        temperature: That divides the logits, shape (fold,).
    """

    mean: Tensor
    scale: Tensor
    parameters: tuple[Tensor, ...]
    temperature: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """What every head says of every row."""
        own = (features.float() - self.mean[:, None]) * self.scale[:, None]
        return _forward(self.parameters, own) / self.temperature[:, None, None]


def fit(
    features: Tensor,
    labels: Tensor,
    parts: list[Part],
    outcome: Outcome,
    n_outputs: int,
    training: Training,
) -> Heads:
    """Train a head for each part until its patience ends, and calibrate it at its best epoch."""
    mean, scale = _stacked([_moments(features, p.train) for p in parts])
    width, hidden = features.shape[1], training.hidden
    parameters = _stacked([_start(width, hidden, n_outputs, p.generator) for p in parts])
    for parameter in parameters:
        parameter.requires_grad_()
    optimiser = torch.optim.AdamW(
        parameters, lr=training.learning_rate, weight_decay=training.weight_decay
    )
    held, held_mask = _padded([p.validation for p in parts])
    best = [p.detach().clone() for p in parameters]
    score = torch.full((len(parts),), torch.inf)
    since = torch.zeros(len(parts), dtype=torch.int64)

    def read(rows: Tensor) -> Tensor:
        return (features[rows].float() - mean[:, None]) * scale[:, None]

    for _ in range(training.epochs):
        orders, masks = _padded(
            [p.train[torch.randperm(len(p.train), generator=p.generator)] for p in parts]
        )
        for start in range(0, orders.shape[1], training.batch_size):
            rows, mask = (t[:, start : start + training.batch_size] for t in (orders, masks))
            optimiser.zero_grad()
            loss = _score(_forward(parameters, read(rows)), labels[rows], mask, outcome)
            loss.sum().backward()
            optimiser.step()
        with torch.no_grad():
            said = _answer(parameters, read, held)
            now = _score(said, labels[held], held_mask, outcome)
        active = since < training.patience
        better = active & (now < score - _BEST)
        for kept, parameter in zip(best, parameters, strict=True):
            kept[better] = parameter.detach()[better]
        score = torch.where(better, now, score)
        since = torch.where(better, 0, since + 1)
        if not (since < training.patience).any():
            break
    with torch.no_grad():
        said = _answer(tuple(best), read, held)
        trials = [_score(said / t, labels[held], held_mask, outcome) for t in _TEMPERATURES]
        temperature = _TEMPERATURES[torch.stack(trials).argmin(0)]
    return Heads(mean, scale, tuple(best), temperature)


def _answer(
    parameters: tuple[Tensor, ...], read: Callable[[Tensor], Tensor], rows: Tensor
) -> Tensor:
    parts = [_forward(parameters, read(some)) for some in rows.split(_ROWS, 1)]
    return torch.cat(parts, 1)


def _forward(parameters: tuple[Tensor, ...], inputs: Tensor) -> Tensor:
    """(fold, row, feature) to (fold, row, output)."""
    weight, bias, weight_out, bias_out = parameters
    return torch.baddbmm(bias_out, torch.baddbmm(bias, inputs, weight).relu(), weight_out)


def _score(said: Tensor, labels: Tensor, mask: Tensor, outcome: Outcome) -> Tensor:
    """Nats by which each head misses a label, on average over known ones, shape (fold,)."""
    if outcome.exclusive:
        nats = cross_entropy(said.flatten(0, 1), labels.flatten(), reduction="none")
        nats, known = nats.view(mask.shape), mask
    else:
        known = mask[:, :, None] & ~labels.isnan()
        targets = labels.nan_to_num(0.0).float()
        nats = binary_cross_entropy_with_logits(said, targets, reduction="none")
        nats, known = nats.flatten(1), known.flatten(1)
    return (nats * known).sum(1) / known.sum(1).clamp_min(1)


def _stacked(each: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Tensors of each head, with a leading fold axis."""
    return tuple(torch.stack(same) for same in zip(*each, strict=True))


def _padded(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows of unequal number side by side, and which of them count: (fold, row)."""
    pad = torch.nn.utils.rnn.pad_sequence
    filled = [torch.cat([r, r[:1].expand(max(map(len, rows)) - len(r))]) for r in rows]
    mask = pad([torch.ones(len(r), dtype=torch.bool) for r in rows], batch_first=True)
    return torch.stack(filled), mask


def _moments(features: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation of the columns over the rows that a head learns from."""
    own = features[rows].double()
    mean = own.mean(0)
    spread = (own - mean).square().mean(0).sqrt()
    flat = spread <= _SMALLEST * own.abs().amax(0)
    return mean.float(), torch.where(flat, 0.0, 1 / spread.masked_fill(flat, 1.0)).float()


def _start(
    inputs: int, hidden: int, outputs: int, generator: torch.Generator
) -> tuple[Tensor, ...]:
    first = torch.randn(inputs, hidden, generator=generator) * (2 / inputs) ** 0.5
    second = torch.randn(hidden, outputs, generator=generator) * (1 / hidden) ** 0.5
    return first, torch.zeros(1, hidden), second, torch.zeros(1, outputs)
