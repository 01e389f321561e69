"""Log density of the teacher-informed mixture prior over class probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mtbkd.prior.spaces import Spaces, block_logits


@dataclass(frozen=True)
class Prior:
    """The mixture prior, all its numbers chosen.

    Attributes:
        concentration: Pseudo-observations that a teacher is worth.
        softening: Divides the teachers' log-probabilities.
        power: Exponent of the mixture; `posterior_gradient` also takes one for each chain, shape
            (chain,).
        student_softening: Softens the student inside the mixture, as the paper does.
        discount: How much less teachers count where they are unsure; see `mixture_terms`.
    """

    concentration: float = 1.0
    softening: float = 1.0
    power: float | Tensor = 1.0
    student_softening: float = 1.0
    discount: float = 0.0


class MixtureTerms(NamedTuple):
    """What the mixture needs from the teachers, computed once for each concentration.

    Attributes:
        pseudo_counts: ``concentration * p``, shape (teacher, example, class).
        log_offsets: ``log w - log B(1 + concentration * p)``, shape (teacher, example).
    """

    pseudo_counts: Tensor
    log_offsets: Tensor


def mixture_terms(
    log_probs: Tensor,
    log_weights: Tensor,
    concentration: float | Tensor,
    softening: float | Tensor = 1.0,
    *,
    spaces: Spaces | None = None,
    inside: Tensor | None = None,
    nobody: Tensor | None = None,
    discount: float = 0.0,
) -> MixtureTerms:
    """Prepare the mixture ``sum_k w_k Dir(q; 1 + concentration * p_k)`` (MT-BKD, eq. of the prior).

    The Dirichlet normaliser differs between teachers and therefore stays inside the mixture.

    A teacher that does not tell all classes apart speaks of the probabilities of blocks, given
    that one of the classes that it knows is true. Under a flat Dirichlet these are again Dirichlet,
    with the blocks' sizes as parameters (sub-composition and amalgamation properties, Aitchison
    1986, ch. 3), so its component is the density of ``Dir(sizes + concentration * p_k)`` relative
    to ``Dir(sizes)``. With ``inside``, it also says how sure it is that one of its classes is
    true; all others are then one block more.

    Args:
        log_probs: Teachers' log-probabilities in nats, shape (teacher, example, class).
        log_weights: Log of the teacher weights, shape (teacher, example); ``-inf`` where a
            teacher says nothing. An example without any teacher gets a constant term, 0.
        concentration: How many pseudo-observations a teacher is worth, > 0; one number, or one for
            each teacher and example, shape (teacher, example).
        softening: Divides the teachers' log-probabilities before they are renormalised; one number
            or one for each teacher, shape (teacher,).
        spaces: What the teachers tell apart; None if that is everything.
        inside: For teachers that do not know all classes: probability that one of those that they
            know is true, shape (teacher, example); NaN where a teacher does not say.
        nobody: Log weight of trusting no teacher, shape (example,): the flat density, as one more
            component, which comes last.
        discount: How much less a teacher counts where it is unsure: on an example it is worth
            ``concentration * (1 - H / log C)**discount`` pseudo-observations, where H is the
            entropy of what it says on C classes, in nats.

    Returns:
        The terms; both are finite wherever at least one teacher has weight. With ``spaces``, the
        pseudo-counts have a column more for each union, shape (teacher, example, class and union),
        for use with `extended` probabilities.
    """
    if isinstance(softening, Tensor):
        softening = softening[:, None, None]
    if spaces is None:
        told = torch.log_softmax(log_probs / softening, dim=-1)
        n_classes = log_probs.shape[-1]
        if isinstance(concentration, Tensor):
            counts = concentration[..., None] * told.exp()
            total: Tensor | float = torch.lgamma(n_classes + concentration)
        else:
            counts = concentration * told.exp()
            total = math.lgamma(n_classes + concentration)
        if discount:
            worth = informed(-(told.exp() * told).sum(-1), math.log(n_classes), discount)
            counts = counts * worth[..., None]
            total = torch.lgamma(n_classes + concentration * worth)
        log_beta = torch.lgamma(1 + counts).sum(-1) - total
    else:
        logits = block_logits(log_probs, softening, spaces)
        counts, log_beta = _block_counts(logits, concentration, spaces, inside, discount)
    silent = torch.isneginf(log_weights).all(0)
    offsets = torch.where(silent, -math.log(len(log_probs)), log_weights - log_beta)
    counts = torch.where(silent[:, None], torch.zeros((), device=counts.device), counts)
    if nobody is not None:
        flat = nobody if spaces is not None else nobody + math.lgamma(log_probs.shape[-1])
        counts = torch.cat([counts, torch.zeros_like(counts[:1])])
        offsets = torch.cat([offsets, flat[None].to(offsets)])
    return MixtureTerms(counts, offsets)


def _block_counts(
    logits: Tensor,
    concentration: float | Tensor,
    spaces: Spaces,
    inside: Tensor | None,
    discount: float,
) -> tuple[Tensor, Tensor]:
    """Pseudo-counts of classes and unions, and the log of the relative normaliser."""
    n_classes, n_unions = logits.shape[-1], len(spaces.unions)
    sizes = spaces.sizes.to(logits.dtype)[:, None]  # (teacher, 1, class)
    probs = torch.softmax(logits, -1)
    n_known = sizes.sum(-1)
    partial = n_known < n_classes
    share = torch.ones_like(probs[..., 0])
    gated = torch.zeros_like(partial.expand(share.shape))
    if inside is not None:
        gated = partial & ~inside.isnan()
        share = torch.where(gated, inside, share)
    n_rest = (n_classes - n_known).clamp_min(1)
    worth = concentration * torch.ones_like(share)
    if discount:
        within = torch.special.entr(probs) + probs * sizes.clamp_min(1).log()
        spread = within.sum(-1) * share + torch.special.entr(share)
        spread = spread + torch.special.entr(1 - share) + (1 - share) * n_rest.log()
        most = torch.where(gated, float(n_classes), n_known).clamp_min(2).log()
        worth = worth * informed(spread, most, discount)
    counts = (worth * share)[..., None] * probs
    rest = torch.where(gated, worth * (1 - share), 0.0)

    def relative(size: Tensor, count: Tensor) -> Tensor:
        return torch.lgamma(size + count) - torch.lgamma(size)

    log_beta = torch.where(sizes > 0, relative(sizes.clamp_min(1), counts), 0.0).sum(-1)
    log_beta = log_beta + torch.where(gated, relative(n_rest, rest), 0.0)
    spoken = torch.where(gated, float(n_classes), n_known)
    log_beta = log_beta - relative(spoken, worth)
    of_unions = counts.new_zeros(*counts.shape[:2], n_unions)
    for k in range(len(counts)):
        for union, first in enumerate(spaces.merged[k].tolist()):
            if first >= 0:
                of_unions[k, :, union] += counts[k, :, first]
                counts[k, :, first] = 0.0
        if partial[k]:
            of_unions[k, :, spaces.outside[k]] += rest[k]
            of_unions[k, :, spaces.known[k]] -= torch.where(gated[k], 0.0, worth[k])
    return torch.cat([counts, of_unions], -1), log_beta


def informed(entropy: Tensor, most: Tensor | float, discount: float) -> Tensor:
    """``(1 - H / most)**discount``, never quite 0: what a statement of entropy H is worth."""
    return (1 - entropy / most).clamp(1e-4, 1.0) ** discount


def counted_concentration(concentration: float, power: float, totals: Tensor) -> Tensor:
    """What teachers are worth whose shares are known by counts only.

    With ``m = concentration * power`` pseudo-observations in all, a teacher says ``q | p ~ Dir(m
    p)`` of its true shares p, and counts say ``p ~ Dir(A s)`` of these, A being how many there are
    with the prior's (the conjugate posterior of p). Mean and variances of q are then those of
    ``Dir(m A / (m + A + 1) s)``: worth no more than the counts, however far the teacher is
    trusted, and ``m`` where they are many.

    Args:
        concentration: Pseudo-observations that a teacher is worth whose shares are known.
        power: How often the mixture counts each of them.
        totals: A, shape (teacher, example), infinity where shares are known.

    Returns:
        Pseudo-observations, before the power, shape (teacher, example).
    """
    return concentration / (1 + (1 + concentration * power) / totals)


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
