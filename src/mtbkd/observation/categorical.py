"""One class of several: softmax likelihood, Dirichlet components (MT-BKD)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mtbkd.observation.base import Observation, Said, psd_root
from mtbkd.prior.mixture import (
    MixtureTerms,
    Strength,
    component_log_densities,
    log_responsibilities,
    mixture_log_density,
    mixture_terms,
)
from mtbkd.prior.spaces import Spaces, block_logits, extended
from mtbkd.types import Batch


def categorical(spaces: Spaces | None = None) -> Observation:
    """Observation of one class of several.

    Args:
        spaces: What the teachers tell apart, where that is not every class.
    """
    unions = () if spaces is None else spaces.unions

    def terms(
        said: Said, concentration: float, softening: float | Tensor, discount: float
    ) -> MixtureTerms:
        return mixture_terms(
            said.values,
            said.log_weights,
            concentration,
            softening,
            spaces=spaces,
            inside=said.inside,
            nobody=said.nobody,
            discount=discount,
        )

    def value(outputs: Tensor, batch: Batch, strength: Strength) -> Tensor:
        log_q = torch.log_softmax(outputs / strength.student_softening, dim=-1)
        mixture = mixture_log_density(batch.terms, extended(log_q, unions))
        return log_likelihood(outputs, batch.labels) + strength.power * mixture

    def value_and_slope(outputs: Tensor, batch: Batch, strength: Strength) -> tuple[Tensor, Tensor]:
        return pulled(outputs, batch.labels, batch.terms, strength, unions)

    def roots(outputs: Tensor, batch: Batch, strength: Strength) -> Tensor:
        return curvature_roots(outputs, batch, strength, unions)

    def shares(terms: MixtureTerms, outputs: Tensor, softening: float) -> Tensor:
        log_q = torch.log_softmax(outputs / softening, dim=-1)
        return log_responsibilities(terms, extended(log_q, unions))

    def complete(said: Said, temperature: Tensor | None) -> Tensor:
        if spaces is None:
            return tempered(said.values, temperature)
        return completed(said.values, temperature, spaces, said.inside)

    def features(values: Tensor) -> Tensor:
        sizes = None if spaces is None else (spaces.sizes > 0).sum(1)
        return confidence(values, sizes)

    return Observation(
        family="classification",
        n_outputs=lambda n: n,
        log_likelihood=log_likelihood,
        terms=terms,
        value=value,
        value_and_slope=value_and_slope,
        roots=roots,
        log_responsibilities=shares,
        complete=complete,
        score=lambda said, labels, temperature: picked(complete(said, temperature), labels),
        n_alike=lambda values: values.shape[-1],
        features=features,
    )


def log_likelihood(outputs: Tensor, labels: Tensor) -> Tensor:
    """Log probability of each label, 0 where it is missing: (..., class) and (...) to (...)."""
    log_q = torch.log_softmax(outputs, dim=-1)
    picked = log_q.gather(-1, labels.clamp_min(0).expand(log_q.shape[:-1])[..., None])[..., 0]
    return torch.where(labels >= 0, picked, 0.0)


def tempered(values: Tensor, temperature: Tensor | None) -> Tensor:
    """Log-probabilities at the teachers' temperatures, shape (teacher, ..., class)."""
    if temperature is None:
        return values
    return torch.log_softmax(values / temperature.view(-1, *[1] * (values.dim() - 1)), -1)


def completed(
    values: Tensor, temperature: Tensor | None, spaces: Spaces, inside: Tensor | None
) -> Tensor:
    """Log-probabilities of all classes, those that a teacher does not tell apart equal.

    A partial teacher gives the classes that it knows ``inside`` of the probability together, or,
    where it does not say, as much as they have if all classes are equally probable.
    """
    sizes = spaces.sizes.to(values.dtype)
    softening = 1.0 if temperature is None else temperature[:, None, None]
    own = torch.log_softmax(block_logits(values, softening, spaces), -1)
    own = own - sizes.clamp_min(1).log()[:, None]
    own = own.gather(-1, spaces.blocks.clamp_min(0)[:, None].expand(own.shape))
    n_classes, n_known = values.shape[-1], sizes.sum(-1)
    share = (n_known / n_classes)[:, None].expand(values.shape[:2])
    if inside is not None:
        share = torch.where(inside.isnan() | (n_known == n_classes)[:, None], share, inside)
    rest = (1 - share).clamp_min(1e-7).log() - (n_classes - n_known).clamp_min(1).log()[:, None]
    within = own + share.log()[..., None]
    return torch.where((spaces.blocks >= 0)[:, None], within, rest[..., None])


def picked(complete: Tensor, labels: Tensor) -> Tensor:
    """Log probability of each label: (teacher, ..., class) and (...) to (teacher, ...)."""
    index = labels.clamp_min(0).expand(complete.shape[:-1])[..., None]
    return torch.where(labels >= 0, complete.gather(-1, index)[..., 0], 0.0)


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy of distributions given as log-probabilities, in nats: (..., class) to (...)."""
    return -(log_probs.exp() * log_probs).sum(-1)


def confidence(log_probs: Tensor, sizes: Tensor | None = None) -> Tensor:
    """Normalised entropy and log of the largest probability: (teacher, ..., class) to (..., 2).

    Args:
        log_probs: In nats.
        sizes: How many classes each teacher tells apart, shape (teacher,); all if not given.
    """
    most = math.log(log_probs.shape[-1])
    found = entropy(log_probs)
    if sizes is None:
        found = found / most
    else:
        found = found / sizes.clamp_min(2).log().view(-1, *[1] * (found.dim() - 1))
    return torch.stack([found, log_probs.amax(-1)], dim=-1)


def pulled(
    logits: Tensor,
    labels: Tensor,
    terms: MixtureTerms,
    strength: Strength,
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
    soft = strength.student_softening
    if soft != 1.0:
        log_q = log_softmax(logits / soft)
    parts = component_log_densities(terms, extended(log_q, unions))
    mixture = torch.logsumexp(parts, dim=-2)
    shares = (parts - mixture.unsqueeze(-2)).exp_().unsqueeze(-1)
    counts = (shares * terms.pseudo_counts).sum(-3)
    q = log_q.exp()
    total = counts.sum(-1, keepdim=True)
    pull = spread(counts, log_q, unions).sub_(total * q)
    power = strength.power
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
    logits: Tensor, batch: Batch, strength: Strength, unions: Sequence[Tensor] = ()
) -> Tensor:
    """Square root ``R`` of the negative Hessian ``R R'`` of each example in its logits.

    A label gives ``diag(q) - q q'``. The mixture gives, times its power and with the softened
    ``q``, ``sum_k r_k c_k (diag(q) - q q') - Cov_r(g_k)`` over the softening squared, where ``r_k``
    are the responsibilities, ``c_k`` the sum of the pseudo-counts and ``g_k = counts_k - c_k q``
    their pull. The covariance, by which teachers that disagree flatten the density, may make the
    sum indefinite; then its negative eigenvalues are replaced by 0. It must not be left out: with
    two teachers far apart, a regression has 0.99 of the posterior's variance with it and 0.55
    without (``test_without_the_covariance_of_teachers_laplace_would_be_too_sure``). The log
    probability of a union has ``diag(q) - q q'`` too, less that of the odds within it.

    Args:
        logits: Shape (example, class).
        batch: The examples, without a chain axis.
        strength: Of the mixture prior, the power a scalar.
        unions: Of classes, which the terms speak of.

    Returns:
        Shape (example, class, class).
    """
    labelled = (batch.labels >= 0).to(logits.dtype)
    soft = strength.student_softening
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
    return psd_root(likelihood + strength.power / soft**2 * mixture)


def multinomial(q: Tensor) -> Tensor:
    """Covariance of one draw: ``diag(q) - q q'``."""
    return torch.diag_embed(q) - q.unsqueeze(-1) * q.unsqueeze(-2)


def log_softmax(logits: Tensor) -> Tensor:
    """As torch's, which takes three times as long over few classes on a CPU."""
    return logits - torch.logsumexp(logits, dim=-1, keepdim=True)


CATEGORICAL = categorical()
"""One class of several, teachers that know all of them."""
