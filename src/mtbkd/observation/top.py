"""One class of very many, of which the teachers give only the most probable: language models.

All other classes are one block, the tail, so a component is the density of a Dirichlet of the kept
classes and the tail (amalgamation property). What the teachers add to the cost of a step grows with
the classes that were kept, not with all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mtbkd.observation.base import Said, Tempering
from mtbkd.observation.log_probs import certainty, confidence, log_likelihood, log_softmax
from mtbkd.prior.mixture import Prior, informed
from mtbkd.prior.spaces import Spaces
from mtbkd.types import Batch, Family, InputError

_LEAST_TAIL = 1e-7  # what float32 tells from zero beside one


class TopTerms(NamedTuple):
    """What the mixture needs from the teachers.

    Attributes:
        kept: Classes, shape (teacher, example, kept); 0 where fewer were kept.
        pseudo_counts: Counts of these classes, 0 where fewer were kept, then of the tail, shape
            (teacher, example, kept + 1).
        log_offsets: Log weight minus log of the relative normaliser, shape (teacher, example).
    """

    kept: Tensor
    pseudo_counts: Tensor
    log_offsets: Tensor


@dataclass(frozen=True)
class Top:
    """Observation of one class of many, the teachers' outputs cut to the most probable.

    Attributes:
        n_classes: How many there are.
    """

    n_classes: int
    family: ClassVar[Family] = "classification"
    spaces: Spaces | None = None
    log_likelihood = staticmethod(log_likelihood)
    certainty = staticmethod(certainty)
    features = staticmethod(confidence)

    def terms(
        self, said: Said, concentration: float, softening: float | Tensor, discount: float
    ) -> TopTerms:
        return top_terms(said, concentration, softening, discount, self.n_classes)

    def value(self, outputs: Tensor, batch: Batch, prior: Prior) -> Tensor:
        log_q = torch.log_softmax(outputs / prior.student_softening, dim=-1)
        mixture = torch.logsumexp(components(batch.terms, log_q)[0], -2)
        return log_likelihood(outputs, batch.labels) + prior.power * mixture

    def value_and_slope(self, outputs: Tensor, batch: Batch, prior: Prior) -> tuple[Tensor, Tensor]:
        """One pass over all classes, for the softmax; the teachers touch only what they kept."""
        log_q = log_softmax(outputs)
        labelled = (batch.labels >= 0).to(outputs.dtype).unsqueeze(-1)
        index = batch.labels.clamp_min(0).unsqueeze(-1)
        values = (log_q.gather(-1, index) * labelled).squeeze(-1)
        soft = prior.student_softening
        softened = log_q if soft == 1.0 else log_softmax(outputs / soft)
        mixture, dense, kept, sparse = pulls(batch.terms, softened, prior.power, soft)
        if soft == 1.0:
            slopes = log_q.exp().mul_(dense - labelled)
        else:
            slopes = log_q.exp().mul_(-labelled).addcmul_(softened.exp(), dense)
        slopes.scatter_add_(-1, index, labelled)
        slopes.scatter_add_(-1, kept, sparse)
        return values.add_(mixture), slopes

    def roots(self, outputs: Tensor, batch: Batch, prior: Prior) -> Tensor:
        """There are none in closed form.

        Raises:
            InputError: Always.
        """
        raise InputError(
            f"Expected teachers' outputs on all classes for sampler.engine=laplace, but got the "
            f"most probable of {outputs.shape[-1]}. Use another engine, such as sghmc."
        )

    def log_responsibilities(self, terms: TopTerms, outputs: Tensor, softening: float) -> Tensor:
        log_q = torch.log_softmax(outputs / softening, dim=-1)
        return torch.log_softmax(components(terms, log_q)[0], -2)

    def complete(self, said: Said, temperature: Tensor | None) -> Tensor:
        """Log-probabilities of all classes, those that were not kept alike."""
        own, kept, n_tail = self._told(said, temperature)
        full = (own[..., -1:] - n_tail.log()[..., None]).expand(*own.shape[:-1], self.n_classes + 1)
        index = torch.where(kept < 0, self.n_classes, kept.long())  # unused ones fall off
        return full.clone().scatter_(-1, index, own[..., :-1])[..., :-1].to(said.values)

    def score(self, said: Said, labels: Tensor, temperature: Tensor | None) -> Tensor:
        own, kept, n_tail = self._told(said, temperature)
        hit = kept == labels.clamp_min(0)[:, None]
        among = own[..., :-1].masked_fill(~hit, -torch.inf).amax(-1)
        found = torch.where(hit.any(-1), among, own[..., -1] - n_tail.log())
        return torch.where(labels >= 0, found, 0.0)

    def tempering(self, said: Said, labels: Tensor) -> Tempering:
        outcomes, log_sizes = told_apart(said, self.n_classes)
        hit = kept_of(said) == labels.clamp_min(0)[:, None]
        among = outcomes[..., :-1].masked_fill(~hit, -torch.inf).amax(-1)
        return Tempering(torch.where(hit.any(-1), among, outcomes[..., -1]), outcomes, log_sizes)

    def n_alike(self, values: Tensor) -> int:
        return self.n_classes

    def _told(self, said: Said, temperature: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Kept classes and tail, tempered; which they are; how many are in the tail."""
        kept = kept_of(said)
        own = log_tempered(said, 1.0 if temperature is None else temperature, self.n_classes)
        return own, kept, (self.n_classes - (kept >= 0).sum(-1)).clamp_min(1)


def kept_of(said: Said) -> Tensor:
    """Which classes were kept."""
    if said.kept is None:
        raise ValueError("these outputs were not cut to the most probable classes")
    return said.kept


def log_tempered(said: Said, softening: float | Tensor, n_classes: int) -> Tensor:
    """Log-probabilities of kept classes and tail, softened: (teacher, example, kept + 1), float64.

    The tail is softened as if its classes were equally probable.
    """
    if isinstance(softening, Tensor):
        softening = softening[:, None, None]
    outcomes, log_sizes = told_apart(said, n_classes)
    return torch.log_softmax(outcomes / softening + log_sizes, -1)


def told_apart(said: Said, n_classes: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities of a kept class and of one in the tail, and log of how many there are.

    Both (teacher, example, kept + 1), float64; the second is ``-inf`` where fewer were kept.
    """
    unused = kept_of(said) < 0
    n_tail = (n_classes - (~unused).sum(-1, keepdim=True)).clamp_min(1).double()
    each, rest = said.values.double().split([unused.shape[-1], 1], -1)
    sizes = torch.zeros_like(each).masked_fill(unused, -torch.inf)
    return torch.cat([each, rest - n_tail.log()], -1), torch.cat([sizes, n_tail.log()], -1)


def top_terms(
    said: Said,
    concentration: float,
    softening: float | Tensor,
    discount: float,
    n_classes: int,
) -> TopTerms:
    """Pseudo-counts of the kept classes and of the tail, and the offsets."""
    kept = kept_of(said).long()
    told = log_tempered(said, softening, n_classes)
    n_tail = (n_classes - (kept >= 0).sum(-1, keepdim=True)).clamp_min(1)
    sizes = torch.cat([torch.ones_like(kept), n_tail], -1).double()
    worth = torch.full_like(told[..., 0], concentration)
    if discount:
        entropy = (torch.special.entr(told.exp()) + told.exp() * sizes.log()).sum(-1)
        worth = worth * informed(entropy, math.log(n_classes), discount)
    counts = worth[..., None] * told.exp()
    log_beta = (torch.lgamma(sizes + counts) - torch.lgamma(sizes)).sum(-1)
    log_beta = log_beta - (torch.lgamma(n_classes + worth) - math.lgamma(n_classes))
    silent = torch.isneginf(said.log_weights).all(0)
    offsets = torch.where(silent, -math.log(len(kept)), said.log_weights - log_beta)
    counts = torch.where(silent[:, None], torch.zeros((), device=counts.device), counts)
    kept = kept.clamp_min(0)
    if said.nobody is not None:
        kept = torch.cat([kept, torch.zeros_like(kept[:1])])
        counts = torch.cat([counts, torch.zeros_like(counts[:1])])
        offsets = torch.cat([offsets, said.nobody[None].to(offsets)])
    return TopTerms(kept, counts.float(), offsets.float())


def components(terms: TopTerms, log_q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log of weighted components, and the student's probabilities of kept classes and tails.

    ``log_q`` has the shape (..., example, class).

    Returns:
        Shapes (..., teacher, example), (..., teacher, example, kept), (..., teacher, example).
    """
    n_teachers = terms.kept.shape[-3]
    index = terms.kept.movedim(-3, -2).flatten(-2)  # (..., example, teacher and kept)
    index = index.expand(*log_q.shape[:-1], -1)
    own = log_q.gather(-1, index).unflatten(-1, (n_teachers, -1)).movedim(-2, -3)
    counts, tail_count = terms.pseudo_counts[..., :-1], terms.pseudo_counts[..., -1]
    q = own.exp() * (counts > 0)
    tail = (1 - q.sum(-1)).clamp_min(_LEAST_TAIL)
    densities = (counts * own).sum(-1) + tail_count * tail.log() + terms.log_offsets
    return densities, q, tail


def pulls(
    terms: TopTerms, log_q: Tensor, power: float | Tensor = 1.0, soft: float = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The mixture and its gradient in the logits: ``all * q``, and more at the kept classes.

    ``log q(tail) = log(1 - sum q_j)`` pulls every class by ``q_c / q(tail) - q_c``, and a kept one
    by ``q_c / q(tail)`` less. The cost grows with the classes that were kept, not with all.

    Args:
        terms: Prepared by `top_terms`.
        log_q: The student's, softened, shape (..., example, class).
        power: Power of the mixture; one number, or one for each chain.
        soft: What divided the student's logits.

    Returns:
        The mixture's log density times the power, (..., example); what multiplies q, (..., example,
        1); classes and what is added to each, (..., example, teacher and kept).
    """
    parts, q, tail = components(terms, log_q)
    mixture = torch.logsumexp(parts, -2)
    pull = (parts - mixture.unsqueeze(-2)).exp().unsqueeze(-1) * terms.pseudo_counts
    if isinstance(power, Tensor):
        mixture, pull = mixture * power[:, None], pull * power[:, None, None, None]
    else:
        mixture, pull = mixture * power, pull * power
    by_tail = pull[..., -1:] / tail.unsqueeze(-1)
    sparse = (pull[..., :-1] - by_tail * q).movedim(-3, -2).flatten(-2) / soft
    dense = (by_tail.squeeze(-1) - pull.sum(-1)).sum(-2).unsqueeze(-1) / soft
    return mixture, dense, terms.kept.movedim(-3, -2).flatten(-2), sparse
