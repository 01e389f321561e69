"""What labels and a mixture of Dirichlet densities say of logits: value, gradient and curvature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtbkd.observation.base import psd_root
from mtbkd.observation.log_probs import log_softmax
from mtbkd.prior.mixture import (
    MixtureTerms,
    Prior,
    component_log_densities,
    log_responsibilities,
)
from mtbkd.prior.spaces import extended
from mtbkd.types import Batch


def pulled(
    logits: Tensor,
    labels: Tensor,
    terms: MixtureTerms,
    prior: Prior,
    unions: Sequence[Tensor] = (),
) -> tuple[Tensor, Tensor]:
    """Values of each example and their gradients in the logits, in closed form.

    With the responsibilities ``r_k`` the gradient is that of one cross-entropy against
    ``onehot(y) + power * sum_k r_k * concentration * p_k``.
    """
    log_q = log_softmax(logits)
    labelled = (labels >= 0).to(logits.dtype).unsqueeze(-1)
    index = labels.clamp_min(0).unsqueeze(-1)
    values = (log_q.gather(-1, index) * labelled).squeeze(-1)
    slopes = log_q.exp().mul_(-labelled).scatter_add_(-1, index, labelled)
    soft = prior.student_softening
    if soft != 1.0:
        log_q = log_softmax(logits / soft)
    parts = component_log_densities(terms, extended(log_q, unions))
    mixture = torch.logsumexp(parts, dim=-2)
    shares = (parts - mixture.unsqueeze(-2)).exp_().unsqueeze(-1)
    counts = (shares * terms.pseudo_counts).sum(-3)
    q = log_q.exp()
    total = counts.sum(-1, keepdim=True)
    pull = spread(counts, log_q, unions).sub_(total * q)
    power = prior.power
    if isinstance(power, Tensor):
        mixture, pull, power = mixture * power[:, None], pull * power[:, None, None], 1.0
    slopes.add_(pull, alpha=power / soft)
    return values.add_(mixture, alpha=power), slopes


def spread(counts: Tensor, log_q: Tensor, unions: Sequence[Tensor]) -> Tensor:
    """Counts of unions, handed to their classes by the student's odds: (..., class and union)."""
    n_classes = log_q.shape[-1]
    if not unions:
        return counts
    found = counts[..., :n_classes].clone()
    for at, members in enumerate(unions):
        odds = torch.softmax(log_q[..., members], -1)
        found.index_add_(-1, members, odds * counts[..., n_classes + at, None])
    return found


def curvature_roots(
    logits: Tensor, batch: Batch, prior: Prior, unions: Sequence[Tensor] = ()
) -> Tensor:
    """Square root ``R`` of the negative Hessian ``R R'`` of each example in its logits.

    A label gives ``diag(q) - q q'``. The mixture gives, times its power and with the softened
    ``q``, ``sum_k r_k c_k (diag(q) - q q') - Cov_r(g_k)`` over the softening squared, where ``r_k``
    are the responsibilities, ``c_k`` the sum of the pseudo-counts and ``g_k = counts_k - c_k q``
    their pull. The covariance, by which teachers that disagree flatten the density, may make the
    sum indefinite; then its negative eigenvalues are replaced by 0. It must not be left out: with
    two teachers far apart, a regression has 0.99 of the posterior's variance with it and 0.55
    without (``test_without_the_covariance_of_teachers_laplace_would_be_too_sure``). The log
    probability of a union has ``diag(q) - q q'`` too, less that of the odds within it. The batch
    has no chain axis, and the prior's power is a scalar.

    Returns:
        Shape (example, class, class), from logits of shape (example, class).
    """
    labelled = (batch.labels >= 0).to(logits.dtype)
    soft = prior.student_softening
    log_q = torch.log_softmax(logits / soft, dim=-1)
    terms = batch.terms
    shares = log_responsibilities(terms, extended(log_q, unions)).exp()
    counts = terms.pseudo_counts.sum(-1)
    pulls = spread(terms.pseudo_counts, log_q.expand(len(counts), *log_q.shape), unions)
    pulls = pulls - counts.unsqueeze(-1) * log_q.exp()
    centred = pulls - (shares.unsqueeze(-1) * pulls).sum(0)
    covariance = torch.einsum("kn,knc,knd->ncd", shares, centred, centred)
    mixture = (shares * counts).sum(0)[:, None, None] * multinomial(log_q.exp()) - covariance
    mean_counts = (shares.unsqueeze(-1) * terms.pseudo_counts).sum(0)
    for at, members in enumerate(unions):
        within = multinomial(torch.softmax(log_q[:, members], -1))
        within = within * mean_counts[:, log_q.shape[-1] + at, None, None]
        mixture[:, members[:, None], members] -= within
    likelihood = labelled[:, None, None] * multinomial(torch.softmax(logits, dim=-1))
    return psd_root(likelihood + prior.power / soft**2 * mixture)


def multinomial(q: Tensor) -> Tensor:
    """Covariance of one draw: ``diag(q) - q q'``."""
    return torch.diag_embed(q) - q.unsqueeze(-1) * q.unsqueeze(-2)
