"""Who taught what: teacher weights, posterior responsibilities, and teachers' disagreement."""

from __future__ import annotations

import torch
from torch import Tensor

from mtbkd.prior import MixtureTerms, log_responsibilities
from mtbkd.samples import PosteriorSamples
from mtbkd.student import Student
from mtbkd.weights import entropy, pool_log_probs

_BATCH = 1024


def responsibilities(
    student: Student,
    samples: PosteriorSamples,
    features: Tensor,
    terms: MixtureTerms,
    *,
    student_softening: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Posterior mean of each teacher's responsibility ``r_k`` on each example.

    A teacher's responsibility is its share of the gradient with which the prior pulls the
    student on that example.

    Args:
        student: As it was trained.
        samples: Its posterior draws.
        features: Inputs of the student's head, shape (example, ...).
        terms: The mixture on these examples.
        student_softening: As in training.

    Returns:
        Responsibilities, shape (teacher, example), 0 for a teacher that says nothing there, and
        the student's mean probabilities, shape (example, class).
    """
    forward = torch.vmap(student.logits_at, in_dims=(0, None))
    shares, probs = [], []
    with torch.no_grad():
        for rows in torch.arange(len(features)).split(_BATCH):
            part = MixtureTerms(terms.pseudo_counts[:, rows], terms.log_offsets[:, rows])
            share = torch.zeros_like(part.log_offsets)
            mean = torch.zeros_like(part.pseudo_counts[0])
            for draw in samples:
                logits = forward(draw.to(features.device), features[rows])
                soft = torch.log_softmax(logits / student_softening, -1)
                share += log_responsibilities(part, soft).exp().mean(0)
                mean += torch.softmax(logits, -1).mean(0)
            shares.append(share / samples.n_draws)
            probs.append(mean / samples.n_draws)
    return torch.cat(shares, dim=1), torch.cat(probs)


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
        log_weights: Shape (teacher, example).
        log_probs: Shape (teacher, example, class).

    Returns:
        Shape (example,).
    """
    pooled = entropy(pool_log_probs(log_weights, log_probs))
    return (pooled - (log_weights.exp() * entropy(log_probs)).sum(0)).clamp_min(0.0)
