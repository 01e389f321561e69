"""What a posterior answers: point estimates, the split of uncertainty, intervals and sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mtbkd.types import Bools, Floats, Ints

_GRID = torch.linspace(0, 1, 64).tolist()


@dataclass(frozen=True)
class Predictive:
    """What the posterior says about each example; uncertainties are in nats.

    Attributes:
        probs: The point estimate, shape (example, class).
        total: Entropy of the mean over draws, shape (example,).
        aleatoric: Mean entropy of a draw, shape (example,).
        lower: Lower end of the credible interval of each probability, shape (example, class).
        upper: Upper end, shape (example, class).
        second: Mean probability of a draw's second most probable class, shape (example,): how much
            it is believed that there is another one. Two classes alike give nearly 0.5, many
            classes alike little.
        level: Posterior mass of the intervals.
    """

    probs: Floats
    total: Floats
    aleatoric: Floats
    lower: Floats
    upper: Floats
    second: Floats
    level: float

    @property
    def epistemic(self) -> Floats:
        """Mutual information of label and parameters, ``total - aleatoric``, in nats."""
        return np.maximum(self.total - self.aleatoric, 0.0)

    @property
    def deviance(self) -> Floats:
        """The paper's mean Bayesian deviance, ``mean sum_c -2 q_c log q_c``, in nats."""
        return 2 * self.aleatoric

    def credible_set(self, level: float = 0.9) -> Bools:
        """Smallest set of classes with this predictive mass, shape (example, class)."""
        return credible_set(self.probs, level)


def credible_set(probs: Floats, level: float) -> Bools:
    """Smallest set of classes of a mass of ``level``, in (0, 1), or more: (example, class).

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


@dataclass(frozen=True)
class LabelPredictive:
    """What the posterior says about each label; uncertainties are in nats.

    Attributes:
        probs: Probability of yes, shape (example, label).
        total: Binary entropy of the mean over draws, shape (example, label).
        aleatoric: Mean binary entropy of a draw, shape (example, label).
        lower: Lower end of the credible interval of each probability, shape (example, label).
        upper: Upper end, shape (example, label).
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
        """Mutual information of each label and the parameters, in nats."""
        return np.maximum(self.total - self.aleatoric, 0.0)


@dataclass(frozen=True)
class NumberPredictive:
    """What the posterior says about real-valued targets, in their own units.

    Attributes:
        mean: Shape (example, target).
        aleatoric: Mean variance of a draw: noise that more data would not remove.
        epistemic: Variance of the draws' means: what the draws disagree on.
        lower: Lower end of the interval that holds a new observation with mass ``level``.
        upper: Upper end.
        mean_lower: Lower end of the credible interval of the mean.
        mean_upper: Upper end.
        level: Posterior mass of the intervals.
    """

    mean: Floats
    aleatoric: Floats
    epistemic: Floats
    lower: Floats
    upper: Floats
    mean_lower: Floats
    mean_upper: Floats
    level: float

    @property
    def total(self) -> Floats:
        """Variance of a new observation, ``aleatoric + epistemic``."""
        return self.aleatoric + self.epistemic


Answer = Predictive | LabelPredictive | NumberPredictive


def arrays(**fields: Tensor) -> dict[str, Floats]:
    """Fields of an answer, in double precision."""
    return {name: field.double().cpu().numpy() for name, field in fields.items()}


def joined(parts: Sequence[Answer]) -> Answer:
    """One answer on all examples."""
    rows = {name: [getattr(part, name) for part in parts] for name in vars(parts[0])}
    rows = {name: np.concatenate(each) for name, each in rows.items() if name != "level"}
    return replace(parts[0], **rows)


def rows_of(answer: Answer, rows: Ints) -> Answer:
    """The answer on some of the examples."""
    parts = {n: getattr(answer, n)[rows] for n in vars(answer) if n != "level"}
    return replace(answer, **parts)


def quantiles(values: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Ends of the central interval of the draws: (draw, ...) to two of (...)."""
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=values.dtype)
    ranked = values.sort(0).values
    at = tails * (len(ranked) - 1)
    below, share = at.floor().long(), at - at.floor()
    above = (below + 1).clamp_max(len(ranked) - 1)
    lower, upper = (
        ranked[b].lerp(ranked[a], s.item()) for b, a, s in zip(below, above, share, strict=True)
    )
    return lower, upper


def marginal_mode(probs: Tensor) -> Tensor:
    """Mode of a Gaussian kernel density of each class's draws, renormalised over classes.

    The bandwidth is Scott's; the mode is sought on a grid from the smallest to the largest draw.
    """
    n_draws = len(probs)
    low, high = probs.amin(0), probs.amax(0)
    width = (probs.std(0) * n_draws ** (-0.2)).clamp_min(1e-6)
    best, mode = torch.full_like(low, -1.0), low
    for fraction in _GRID:
        at = low + fraction * (high - low)
        density = torch.exp(-0.5 * ((at - probs) / width) ** 2).sum(0)
        mode, best = torch.where(density > best, at, mode), torch.maximum(best, density)
    return mode / mode.sum(-1, keepdim=True)
