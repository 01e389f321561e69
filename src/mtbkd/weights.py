"""How much each teacher counts on each example: uniform, entropy and stacked weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

_SCALES = ((0.0, 0.0), (0.0, 1.0), (0.25, 1.0), (1.0, 1.0), (4.0, 1.0))
"""Prior standard deviations of (a and b, log T) that are tried, the most shrunk first."""
_FOLDS = 5
_SIGNIFICANT = 1.645  # standard errors: one-sided, 5 %


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy of distributions given as log-probabilities, in nats: (..., class) to (...)."""
    return -(log_probs.exp() * log_probs).sum(-1)


def uniform_weights(mask: Tensor) -> Tensor:
    """Log weights, equal among the teachers that speak: (teacher, example), bool to float."""
    return _normalise(torch.zeros(mask.shape, device=mask.device), mask)


def entropy_weights(log_probs: Tensor, mask: Tensor) -> Tensor:
    """Log of the paper's weights, ``w_k ∝ 1 - H_k / sum_j H_j`` (MT-BKD).

    Args:
        log_probs: Shape (teacher, example, class).
        mask: False where a teacher says nothing, shape (teacher, example).

    Returns:
        Log weights, shape (teacher, example); ``-inf`` where masked. A teacher alone on an
        example gets all the weight, and certain teachers share equally.
    """
    h = entropy(log_probs) * mask
    share = h / h.sum(0).clamp_min(1e-12)
    return _normalise(torch.log((1 - share).clamp_min(1e-12)), mask)


@dataclass(frozen=True)
class Stacked:
    """Weights ``softmax_k(a_k + b_k · phi_k(x))`` with one temperature for each teacher.

    ``phi_k`` holds teacher k's normalised entropy and the log of its largest probability.
    Hierarchical stacking: Yao et al. 2021, arXiv:2101.08954.

    Attributes:
        intercept: a, shape (teacher,).
        slope: b, shape (teacher, 2).
        temperature: Divides the teachers' log-probabilities, shape (teacher,).
        scale: Standard deviation of the prior on a and b that was chosen; 0 means uniform.
    """

    intercept: Tensor
    slope: Tensor
    temperature: Tensor
    scale: float

    def log_weights(self, log_probs: Tensor, mask: Tensor) -> Tensor:
        """Log weights, (teacher, example, class) and (teacher, example) to (teacher, example)."""
        scores = self.intercept[:, None] + (_features(log_probs) * self.slope[:, None]).sum(-1)
        return _normalise(scores, mask)

    def tempered(self, log_probs: Tensor) -> Tensor:
        """The teachers' log-probabilities at their temperatures, same shape."""
        return torch.log_softmax(log_probs / self.temperature[:, None, None], -1)


@dataclass(frozen=True)
class Weighting:
    """A rule for weights, ready to be applied to any examples.

    Attributes:
        rule: ``uniform``, ``entropy`` or ``stacked``.
        stacked: The fit, for ``stacked``.
    """

    rule: Literal["uniform", "entropy", "stacked"]
    stacked: Stacked | None = None

    def apply(self, log_probs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh the teachers.

        Args:
            log_probs: In nats, shape (teacher, example, class).
            mask: False where a teacher says nothing, shape (teacher, example).

        Returns:
            The log-probabilities, at the teachers' temperatures if these were fitted, and the log
            weights, shape (teacher, example).
        """
        if self.stacked is not None:
            return self.stacked.tempered(log_probs), self.stacked.log_weights(log_probs, mask)
        if self.rule == "entropy":
            return log_probs, entropy_weights(log_probs, mask)
        return log_probs, uniform_weights(mask)


def fit_stacked(log_probs: Tensor, mask: Tensor, labels: Tensor) -> Stacked:
    """Fit stacked weights and temperatures jointly on labels that no teacher was trained on.

    Maximises the log score of the pool ``sum_k w_k softmax(z_k / T_k)`` with Gaussian priors on
    a, b and log T. The scales of these priors are chosen by five-fold cross-validation: weights
    are uniform and temperatures 1 unless the labels tell otherwise at the level of 5 %, for a
    temperature fitted to few labels harms intervals for p(y | x) more than it helps; of the rest
    the most shrunk within one standard error of the best. Examples without any teacher are left
    out.

    Args:
        log_probs: Shape (teacher, example, class).
        mask: Shape (teacher, example).
        labels: Class indices, none missing, shape (example,).
    """
    known = mask.any(0)
    log_probs, mask, labels = log_probs[:, known], mask[:, known], labels[known]
    fold = torch.arange(len(labels), device=labels.device) % _FOLDS
    scores = []
    for scales in _SCALES:
        score = torch.empty(len(labels), dtype=torch.float64)
        for held in range(min(_FOLDS, len(labels))):
            train, test = fold != held, fold == held
            if not train.any():
                continue
            fit = _fit(log_probs[:, train], mask[:, train], labels[train], scales)
            score[test.cpu()] = pool_log_score(fit, log_probs[:, test], mask[:, test], labels[test])
        scores.append(score)
    return _fit(log_probs, mask, labels, _SCALES[_choose(scores)])


def pool_log_probs(log_weights: Tensor, log_probs: Tensor) -> Tensor:
    """Log of the teachers' weighted mean: (teacher, example) and (…, class) to (example, class)."""
    return torch.logsumexp(log_weights[:, :, None] + log_probs, 0)


def pool_log_score(fit: Stacked, log_probs: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """Log probability of each label under the stacked pool, in nats, float64, shape (example,)."""
    pool = pool_log_probs(fit.log_weights(log_probs, mask), fit.tempered(log_probs))
    return pool.gather(1, labels[:, None])[:, 0].double().cpu()


def _choose(scores: Sequence[Tensor]) -> int:
    """The plain pool unless another is better at 5 %, else the most shrunk of the others.

    The most shrunk is the first within one standard error of the best.
    """
    best = max(range(len(scores)), key=lambda i: float(scores[i].mean()))

    def errors_below(i: int) -> float:
        gap = scores[best] - scores[i]
        return float(gap.mean()) / max(float(gap.std()) / math.sqrt(len(gap)), 1e-12)

    if errors_below(0) <= _SIGNIFICANT:
        return 0
    return next(i for i in range(1, len(scores)) if i == best or errors_below(i) <= 1)


def _fit(log_probs: Tensor, mask: Tensor, labels: Tensor, scales: tuple[float, float]) -> Stacked:
    scale, temperature_scale = scales
    n_teachers = len(log_probs)
    z = log_probs.double()
    phi = _features(z)
    unknown = torch.zeros(n_teachers, 4, dtype=torch.float64, device=z.device, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [unknown], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )
    picked = labels[None, :, None].expand(n_teachers, -1, 1)

    def loss() -> Tensor:
        optimiser.zero_grad()
        scores = scale * (unknown[:, :1] + (phi * unknown[:, None, 1:3]).sum(-1))
        log_temperature = temperature_scale * unknown[:, 3]
        tempered = torch.log_softmax(z / log_temperature.exp()[:, None, None], -1)
        score = _normalise(scores, mask) + tempered.gather(2, picked)[:, :, 0]
        value = 0.5 * unknown.square().sum() - torch.logsumexp(score, 0).sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[arg-type]
    best = unknown.detach()
    return Stacked(
        (scale * best[:, 0]).float(),
        (scale * best[:, 1:3]).float(),
        (temperature_scale * best[:, 3]).exp().float(),
        scale,
    )


def _features(log_probs: Tensor) -> Tensor:
    """Normalised entropy and log of the largest probability: (…, class) to (…, 2)."""
    return torch.stack(
        [entropy(log_probs) / math.log(log_probs.shape[-1]), log_probs.amax(-1)], dim=-1
    )


def _normalise(scores: Tensor, mask: Tensor) -> Tensor:
    """Log softmax over the teachers that speak; ``-inf`` elsewhere and where none does."""
    masked = scores.masked_fill(~mask, -torch.inf)
    silent = ~mask.any(0)
    safe = masked.masked_fill(silent, 0.0)
    return torch.log_softmax(safe, 0).masked_fill(~mask, -torch.inf)
