"""The posterior predictive: point estimates, the split of uncertainty, intervals and sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtbkd.samples import PosteriorSamples
from mtbkd.student import Student

Floats = NDArray[np.float64]

_BUDGET = 2**24  # floats held at a time: draws times examples times classes
_GRID = 64


@dataclass(frozen=True)
class Predictive:
    """What the posterior says about each example; uncertainties are in nats.

    Attributes:
        probs: The point estimate, shape (example, class).
        total: Entropy of the mean over draws, shape (example,).
        aleatoric: Mean entropy of a draw, shape (example,).
        lower: Lower end of the credible interval of each probability, shape (example, class).
        upper: Upper end, shape (example, class).
        level: Posterior mass of the intervals.
    """

    probs: Floats
    total: Floats
    aleatoric: Floats
    lower: Floats
    upper: Floats
    level: float

    @property
    def epistemic(self) -> Floats:
        """Mutual information of label and parameters, ``total - aleatoric``, in nats."""
        return np.maximum(self.total - self.aleatoric, 0.0)

    @property
    def deviance(self) -> Floats:
        """The paper's mean Bayesian deviance, ``mean sum_c -2 q_c log q_c``, in nats."""
        return 2 * self.aleatoric

    def credible_set(self, level: float = 0.9) -> NDArray[np.bool_]:
        """Smallest set of classes with this predictive mass, shape (example, class)."""
        return credible_set(self.probs, level)


def credible_set(probs: Floats, level: float) -> NDArray[np.bool_]:
    """Smallest set of classes whose probabilities sum to ``level`` or more.

    Args:
        probs: Shape (example, class).
        level: In (0, 1).

    Example:
        >>> credible_set(np.array([[0.2, 0.7, 0.1]]), 0.8)
        array([[ True,  True, False]])
    """
    order = np.argsort(-probs, axis=1, kind="stable")
    ranked = np.take_along_axis(probs, order, 1)
    inside = np.cumsum(ranked, axis=1) - ranked < level - 1e-12
    sets = np.zeros(probs.shape, dtype=bool)
    np.put_along_axis(sets, order, inside, 1)
    return sets


def predict(
    student: Student,
    samples: PosteriorSamples,
    inputs: Tensor,
    *,
    level: float = 0.9,
    point: Literal["mean", "mode"] = "mean",
) -> Predictive:
    """Average the student over its posterior.

    Examples are taken in batches and draws one at a time, so memory does not grow with the
    number of examples, nor with the size of the student times the number of draws.

    Args:
        student: As it was trained.
        samples: Its posterior draws.
        inputs: Raw inputs of the student, shape (example, ...).
        level: Posterior mass of the credible intervals, in (0, 1).
        point: ``mean`` over draws, or the paper's ``mode`` of each class's marginal density,
            renormalised (MT-BKD).
    """
    parts = [
        _summarise(probs.reshape(-1, *probs.shape[2:]), level, point)
        for probs in draw_probs(student, samples, inputs)
    ]
    probs, total, aleatoric, lower, upper = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    return Predictive(probs, total, aleatoric, lower, upper, level)


def draw_probs(student: Student, samples: PosteriorSamples, inputs: Tensor) -> Iterator[Tensor]:
    """Class probabilities under each draw, batch of examples by batch.

    Yields:
        Tensors of shape (chain, draw, example, class).
    """
    device = student.prior_mean.device
    forward = torch.vmap(student.logits_at, in_dims=(0, None))
    for batch in _batches(student, samples, inputs):
        features = student.features(batch.to(device))
        with torch.no_grad():
            yield torch.stack(
                [torch.softmax(forward(draw.to(device), features), -1) for draw in samples], dim=1
            )


def _batches(student: Student, samples: PosteriorSamples, inputs: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        first = student.features(inputs[:1].to(student.prior_mean.device))
        draw = samples.segments[0][0, 0].to(first.device)
        n_classes = student.logits_at(draw, first).shape[-1]
    per_example = samples.n_chains * samples.n_draws * n_classes
    return inputs.split(max(1, min(4096, _BUDGET // per_example)))


def _summarise(
    probs: Tensor, level: float, point: str
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """From (draw, example, class) to the fields of `Predictive`."""
    mean = probs.double().mean(0)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=probs.dtype)
    lower, upper = _quantiles(probs, tails)
    estimate = mean if point == "mean" else _marginal_mode(probs)
    total = -torch.special.xlogy(mean, mean).sum(-1)
    aleatoric = -torch.special.xlogy(probs, probs).sum(-1).double().mean(0)
    fields = (estimate, total, aleatoric, lower, upper)
    return tuple(field.double().cpu().numpy() for field in fields)  # type: ignore[return-value]


def _quantiles(probs: Tensor, tails: Tensor) -> tuple[Tensor, Tensor]:
    ranked = probs.sort(0).values
    at = tails * (len(ranked) - 1)
    below, share = at.floor().long(), at - at.floor()
    above = (below + 1).clamp_max(len(ranked) - 1)
    lower, upper = (
        ranked[b].lerp(ranked[a], s.item()) for b, a, s in zip(below, above, share, strict=True)
    )
    return lower, upper


def _marginal_mode(probs: Tensor) -> Tensor:
    """Mode of a Gaussian kernel density of each class's draws, renormalised over classes.

    The bandwidth is Scott's; the mode is sought on a grid from the smallest to the largest draw.
    """
    n_draws = len(probs)
    low, high = probs.amin(0), probs.amax(0)
    width = (probs.std(0) * n_draws ** (-0.2)).clamp_min(1e-6)
    best, mode = torch.full_like(low, -1.0), low
    for fraction in torch.linspace(0, 1, _GRID).tolist():
        at = low + fraction * (high - low)
        density = torch.exp(-0.5 * ((at - probs) / width) ** 2).sum(0)
        mode, best = torch.where(density > best, at, mode), torch.maximum(best, density)
    return mode / mode.sum(-1, keepdim=True)
