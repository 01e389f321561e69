"""One class of several: softmax likelihood, Dirichlet components (MT-BKD)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mtbkd.observation import dirichlet
from mtbkd.observation.base import Said, Tempering
from mtbkd.observation.log_probs import certainty, confidence, log_likelihood, picked, tempered
from mtbkd.prior.mixture import (
    MixtureTerms,
    Prior,
    log_responsibilities,
    mixture_log_density,
    mixture_terms,
)
from mtbkd.prior.spaces import Spaces, block_logits, extended
from mtbkd.types import Batch, Family


@dataclass(frozen=True)
class Categorical:
    """Observation of one class of several.

    Attributes:
        spaces: What the teachers tell apart, where that is not every class.
    """

    spaces: Spaces | None = None
    family: ClassVar[Family] = "classification"
    log_likelihood = staticmethod(log_likelihood)
    certainty = staticmethod(certainty)

    @property
    def unions(self) -> Sequence[Tensor]:
        """Sets of classes whose probability the terms speak of."""
        return () if self.spaces is None else self.spaces.unions

    def terms(
        self,
        said: Said,
        concentration: float | Tensor,
        softening: float | Tensor,
        discount: float,
    ) -> MixtureTerms:
        return mixture_terms(
            said.values,
            said.log_weights,
            concentration,
            softening,
            spaces=self.spaces,
            inside=said.inside,
            nobody=said.nobody,
            discount=discount,
        )

    def value(self, outputs: Tensor, batch: Batch, prior: Prior) -> Tensor:
        log_q = torch.log_softmax(outputs / prior.student_softening, dim=-1)
        mixture = mixture_log_density(batch.terms, extended(log_q, self.unions))
        return log_likelihood(outputs, batch.labels) + prior.power * mixture

    def value_and_slope(self, outputs: Tensor, batch: Batch, prior: Prior) -> tuple[Tensor, Tensor]:
        return dirichlet.pulled(outputs, batch.labels, batch.terms, prior, self.unions)

    def roots(self, outputs: Tensor, batch: Batch, prior: Prior) -> Tensor:
        return dirichlet.curvature_roots(outputs, batch, prior, self.unions)

    def log_responsibilities(
        self, terms: MixtureTerms, outputs: Tensor, softening: float
    ) -> Tensor:
        log_q = torch.log_softmax(outputs / softening, dim=-1)
        return log_responsibilities(terms, extended(log_q, self.unions))

    def complete(self, said: Said, temperature: Tensor | None) -> Tensor:
        if self.spaces is None:
            return tempered(said.values, temperature)
        return _completed(said.values, temperature, self.spaces, said.inside)

    def score(self, said: Said, labels: Tensor, temperature: Tensor | None) -> Tensor:
        return picked(self.complete(said, temperature), labels)

    def tempering(self, said: Said, labels: Tensor) -> Tempering:
        complete = self.complete(said, None)
        sizes = torch.zeros_like(complete[:, :1])
        if self.spaces is not None:
            sizes = sizes.masked_fill((self.spaces.blocks < 0)[:, None], -torch.inf)
        return Tempering(picked(complete, labels), complete, sizes)

    def features(self, values: Tensor) -> Tensor:
        sizes = None if self.spaces is None else (self.spaces.sizes > 0).sum(1)
        return confidence(values, sizes)

    def n_alike(self, values: Tensor) -> int:
        return values.shape[-1]


def _completed(
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


CATEGORICAL = Categorical()
"""One class of several, teachers that know all of them."""
