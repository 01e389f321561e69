"""Log density of the teacher-informed mixture prior over class probabilities."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class MixtureTerms(NamedTuple):
    """What the mixture needs from the teachers, computed once for each concentration.

    Attributes:
        pseudo_counts: ``concentration * p``, shape (teacher, example, class).
        log_offsets: ``log w - log B(1 + concentration * p)``, shape (teacher, example).
    """

    pseudo_counts: Tensor
    log_offsets: Tensor


def mixture_terms(
    log_probs: Tensor, log_weights: Tensor, concentration: float, softening: float = 1.0
) -> MixtureTerms:
    """Prepare the mixture ``sum_k w_k Dir(q; 1 + concentration * p_k)`` (MT-BKD, eq. of the prior).

    The Dirichlet normaliser differs between teachers and therefore stays inside the mixture.

    Args:
        log_probs: Teachers' log-probabilities in nats, shape (teacher, example, class).
        log_weights: Log of the teacher weights, shape (teacher, example); ``-inf`` where a
            teacher says nothing. An example without any teacher gets a constant term, 0.
        concentration: How many pseudo-observations a teacher is worth, > 0.
        softening: Divides the teachers' log-probabilities before they are renormalised.

    Returns:
        The terms; both are finite wherever at least one teacher has weight.
    """
    probs = torch.log_softmax(log_probs / softening, dim=-1).exp()
    counts = concentration * probs
    n_teachers, _, n_classes = log_probs.shape
    log_beta = torch.lgamma(1 + counts).sum(-1) - math.lgamma(n_classes + concentration)
    silent = torch.isneginf(log_weights).all(0)
    offsets = torch.where(silent, -math.log(n_teachers), log_weights - log_beta)
    counts = torch.where(silent[:, None], torch.zeros((), device=counts.device), counts)
    return MixtureTerms(counts, offsets)


def component_log_densities(terms: MixtureTerms, log_q: Tensor) -> Tensor:
    """Return ``log w_k + log Dir(q; 1 + concentration * p_k)``.

    Args:
        terms: Prepared by `mixture_terms`.
        log_q: Student's log-probabilities in nats, shape (..., example, class).

    Returns:
        Log densities, shape (..., teacher, example).
    """
    return (terms.pseudo_counts * log_q.unsqueeze(-3)).sum(-1) + terms.log_offsets


def mixture_log_density(terms: MixtureTerms, log_q: Tensor) -> Tensor:
    """Return ``log sum_k w_k f_k(q)`` for each example, shape (..., example)."""
    return torch.logsumexp(component_log_densities(terms, log_q), dim=-2)


def log_responsibilities(terms: MixtureTerms, log_q: Tensor) -> Tensor:
    """Return ``log r_k``, ``r_k = w_k f_k / sum_j w_j f_j``: each teacher's share of the gradient.

    Returns:
        Log responsibilities, shape (..., teacher, example).
    """
    return torch.log_softmax(component_log_densities(terms, log_q), dim=-2)


def warmed_concentration(progress: float, concentration: float, warm_up: float = 0.5) -> float:
    """Concentration at a point of the MAP phase: from 1 to its target, geometrically.

    At a near-uniform student a large concentration favours the most uncertain teacher, and the
    mixture locks on it; starting from 1 removes this collapse.

    Args:
        progress: Fraction of the MAP phase done, in [0, 1].
        concentration: The target.
        warm_up: Fraction of the phase after which the target is reached.
    """
    start = min(1.0, concentration)
    fraction = min(progress / warm_up, 1.0)
    return start * (concentration / start) ** fraction
