"""Who taught what: teacher weights, posterior responsibilities, and teachers' disagreement."""

from __future__ import annotations

import torch
from torch import Tensor

from mtbkd.inference.samples import PosteriorSamples
from mtbkd.observation import OUTCOMES
from mtbkd.prior.settings import Prior
from mtbkd.student.student import Student
from mtbkd.training import TrainingSet, prior_terms
from mtbkd.weights.rules import entropy, pool_log_probs

_BATCH = 1024


def responsibilities(
    student: Student,
    samples: PosteriorSamples,
    data: TrainingSet,
    prior: Prior,
) -> tuple[Tensor, Tensor]:
    """Posterior mean of each teacher's responsibility ``r_k`` on each example.

    A teacher's responsibility is its share of the gradient with which the prior pulls the
    student on that example.

    Args:
        student: As it was trained.
        samples: Its posterior draws.
        data: The examples and what the teachers say on them.
        prior: As in training.

    Returns:
        Responsibilities, shape (teacher, example) or (teacher, example, column), 0 for a teacher
        that says nothing there; what they lack to 1 is the share of trusting nobody. And the
        student's mean probabilities, or means of numbers in units of 1, shape (example, column).
    """
    soft = prior.student_softening
    outcome, shares, means = OUTCOMES[data.observation.family], [], []
    with torch.no_grad():
        for start in range(0, len(data), _BATCH):
            rows = slice(start, start + _BATCH)
            features = data.features[rows].to(data.labels.device)
            terms = prior_terms(data, prior, rows)
            share, mean = 0.0, 0.0
            for draw in samples:
                outputs = student.logits_each(draw.to(features.device), features)
                told = data.observation.log_responsibilities(terms, outputs, soft)
                share = share + told.exp().mean(0)[: len(data.values)]
                mean = mean + outcome.point(outputs, None).mean(0)
            shares.append(torch.as_tensor(share) / samples.n_draws)
            means.append(torch.as_tensor(mean) / samples.n_draws)
    return torch.cat(shares, dim=1), torch.cat(means)


def by_class(shares: Tensor, probs: Tensor) -> Tensor:
    """Average shares over the examples of each class, as the student sees the classes.

    Args:
        shares: Weights or responsibilities, shape (teacher, example).
        probs: The student's probabilities, shape (example, class).

    Returns:
        Shape (teacher, class); each column sums to 1 where every example has a teacher.
    """
    return shares @ probs / probs.sum(0).clamp_min(1e-12)


def disagreement(log_weights: Tensor, log_probs: Tensor) -> Tensor:
    """Weighted Jensen-Shannon divergence of the teachers, in nats: 0 when they agree.

    ``H(sum_k w_k p_k) - sum_k w_k H(p_k)`` (Lin 1991).

    Args:
        log_weights: Shape (teacher, ...).
        log_probs: Shape (teacher, ..., class).

    Returns:
        Shape (...).
    """
    pooled = entropy(pool_log_probs(log_weights, log_probs))
    return (pooled - (log_weights.exp() * entropy(log_probs)).sum(0)).clamp_min(0.0)


def spread_of_means(log_weights: Tensor, values: Tensor) -> Tensor:
    """How far teachers' means are apart: their weighted standard deviation, 0 when they agree.

    Args:
        log_weights: Shape (teacher, example, target).
        values: Means and log variances, shape (teacher, example, target, 2).

    Returns:
        Shape (example, target), in the unit of the means.
    """
    weights, means = log_weights.exp(), values[..., 0]
    centre = (weights * means).sum(0)
    return (weights * (means - centre).square()).sum(0).sqrt()


def dissent(log_weights: Tensor, log_probs: Tensor) -> Tensor:
    """Share of the teachers' weight that answers otherwise than their pool does.

    Args:
        log_weights: Shape (teacher, ...), -inf for a teacher that says nothing.
        log_probs: Shape (teacher, ..., class).

    Returns:
        Shape (...), in [0, 1]: 0 if all give the pool's answer, about a half if two equally trusted
        teachers give two answers. NaN where fewer than two say anything.
    """
    speaks = ~torch.isneginf(log_weights)
    shares = torch.softmax(log_weights.masked_fill(~speaks.any(0), 0.0), 0)
    answer = pool_log_probs(log_weights, log_probs).argmax(-1)
    otherwise = (shares * (log_probs.argmax(-1) != answer)).sum(0)
    return torch.where(speaks.sum(0) > 1, otherwise, torch.nan)
