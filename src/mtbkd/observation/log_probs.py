"""Log-probabilities: floors, entropies, temperatures, pools, and those of labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG_FLOOR = -16.0
"""Smallest log-probability kept, in nats: 1e-7, what float32 tells from zero beside one."""


def floored(log_values: Tensor, padding: Tensor | None = None) -> Tensor:
    """Normalised log-probabilities none of which is below the floor, which padding holds."""
    log_probs = torch.log_softmax(log_values, -1).clamp_min(LOG_FLOOR)
    if padding is None:
        return torch.log_softmax(log_probs, -1).float()
    log_probs = torch.log_softmax(log_probs.masked_fill(padding, -torch.inf), -1)
    return log_probs.masked_fill(padding, LOG_FLOOR).float()


def log_softmax(logits: Tensor) -> Tensor:
    """As torch's, which takes three times as long over few classes on a CPU."""
    return logits - torch.logsumexp(logits, dim=-1, keepdim=True)


def log_likelihood(outputs: Tensor, labels: Tensor) -> Tensor:
    """Log probability of each label, 0 where it is missing: (..., class) and (...) to (...)."""
    return picked(torch.log_softmax(outputs, dim=-1), labels)


def tempered(values: Tensor, temperature: Tensor | None) -> Tensor:
    """Log-probabilities at the teachers' temperatures, shape (teacher, ..., class)."""
    if temperature is None:
        return values
    return torch.log_softmax(values / temperature.view(-1, *[1] * (values.dim() - 1)), -1)


def picked(complete: Tensor, labels: Tensor) -> Tensor:
    """Log probability of each label: (teacher, ..., class) and (...) to (teacher, ...)."""
    index = labels.clamp_min(0).expand(complete.shape[:-1])[..., None]
    return torch.where(labels >= 0, complete.gather(-1, index)[..., 0], 0.0)


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy of distributions given as log-probabilities, in nats: (..., class) to (...)."""
    return -(log_probs.exp() * log_probs).sum(-1)


def confidence(log_probs: Tensor, sizes: Tensor | None = None) -> Tensor:
    """Normalised entropy and log of the largest probability: (teacher, ..., class) to (..., 2).

    ``sizes`` says how many classes each teacher tells apart, shape (teacher,); all if not given.
    """
    most = math.log(log_probs.shape[-1])
    found = entropy(log_probs)
    if sizes is None:
        found = found / most
    else:
        found = found / sizes.clamp_min(2).log().view(-1, *[1] * (found.dim() - 1))
    return torch.stack([found, log_probs.amax(-1)], dim=-1)


def certainty(log_probs: Tensor, mask: Tensor) -> Tensor:
    """Log of the paper's weights before they are normalised, ``1 - H_k / sum_j H_j`` (MT-BKD).

    Log-probabilities (teacher, ..., class), for labels of no and of yes, to the shape of the mask,
    which says how much each teacher counts in the sum.
    """
    h = entropy(log_probs)
    share = h / (h * mask).sum(0).clamp_min(1e-12)
    return torch.log((1 - share).clamp_min(1e-12))


def pool_log_probs(log_weights: Tensor, log_probs: Tensor, nobody: Tensor | None = None) -> Tensor:
    """Log of the teachers' weighted mean; where nobody is trusted, all classes are alike.

    Weights, (teacher, ...), and probabilities, (teacher, ..., class), to (..., class); ``nobody``
    is the log weight of trusting nobody, shape (...).
    """
    pool = torch.logsumexp(log_weights.unsqueeze(-1) + log_probs, 0)
    if nobody is None:
        return pool
    return torch.logaddexp(pool, nobody.unsqueeze(-1) - math.log(log_probs.shape[-1]))
