"""Any of several labels: a Bernoulli likelihood and Beta components for each, mixed label by label.

A label is a classification into no and yes with logits ``(0, f)``, so all of it is the categorical
family over (example, label).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mtbkd.observation.base import Observation, Said
from mtbkd.observation.categorical import (
    confidence,
    curvature_roots,
    log_likelihood,
    picked,
    pulled,
    tempered,
)
from mtbkd.prior.mixture import (
    MixtureTerms,
    Strength,
    log_responsibilities,
    mixture_log_density,
    mixture_terms,
)
from mtbkd.types import Batch


def _terms(
    said: Said, concentration: float, softening: float | Tensor, discount: float
) -> MixtureTerms:
    """``Beta(q; 1 + c p, 1 + c (1 - p))`` for concentration c: (teacher, example, label)."""
    n_labels = said.values.shape[2]
    found = mixture_terms(
        said.values.flatten(1, 2),
        said.log_weights.flatten(1, 2),
        concentration,
        softening,
        nobody=None if said.nobody is None else said.nobody.flatten(),
        discount=discount,
    )
    return MixtureTerms(*(part.unflatten(1, (-1, n_labels)) for part in found))


def _flat(outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor, MixtureTerms]:
    """Logits of no and yes, indices of labels and terms, examples and labels on one axis."""
    labels = _index(batch.labels).flatten(-2)
    return _logits(outputs).flatten(-3, -2), labels, _flat_terms(batch.terms)


def _index(labels: Tensor) -> Tensor:
    """0 for no, 1 for yes, -1 where missing."""
    return torch.where(labels.isnan(), -1, labels).long()


def _flat_terms(terms: MixtureTerms) -> MixtureTerms:
    return MixtureTerms(terms.pseudo_counts.flatten(-3, -2), terms.log_offsets.flatten(-2))


def _logits(outputs: Tensor) -> Tensor:
    return torch.stack([torch.zeros_like(outputs), outputs], -1)


def _value(outputs: Tensor, batch: Batch, strength: Strength) -> Tensor:
    logits, labels, terms = _flat(outputs, batch)
    log_q = torch.log_softmax(logits / strength.student_softening, -1)
    cells = log_likelihood(logits, labels) + strength.power * mixture_log_density(terms, log_q)
    return cells.unflatten(-1, outputs.shape[-2:]).sum(-1)


def _log_likelihood(outputs: Tensor, labels: Tensor) -> Tensor:
    return log_likelihood(_logits(outputs), _index(labels)).sum(-1)


def _value_and_slope(outputs: Tensor, batch: Batch, strength: Strength) -> tuple[Tensor, Tensor]:
    values, slopes = pulled(*_flat(outputs, batch), strength)
    shape = outputs.shape[-2:]
    return values.unflatten(-1, shape).sum(-1), slopes[..., 1].unflatten(-1, shape)


def _roots(outputs: Tensor, batch: Batch, strength: Strength) -> Tensor:
    logits, labels, terms = _flat(outputs, batch)
    both = curvature_roots(logits, Batch(batch.inputs, labels, terms), strength)
    curvature = both[:, 1].square().sum(-1).unflatten(0, outputs.shape)
    return torch.diag_embed(curvature.sqrt())


def _log_responsibilities(terms: Any, outputs: Tensor, softening: float) -> Tensor:
    log_q = torch.log_softmax(_logits(outputs).flatten(-3, -2) / softening, -1)
    shares = log_responsibilities(_flat_terms(terms), log_q)
    return shares.unflatten(-1, outputs.shape[-2:])


def _score(said: Said, labels: Tensor, temperature: Tensor | None) -> Tensor:
    return picked(tempered(said.values, temperature), _index(labels))


BINARY = Observation(
    family="multilabel",
    n_outputs=lambda n: n,
    log_likelihood=_log_likelihood,
    terms=_terms,
    value=_value,
    value_and_slope=_value_and_slope,
    roots=_roots,
    log_responsibilities=_log_responsibilities,
    complete=lambda said, temperature: tempered(said.values, temperature),
    score=_score,
    n_alike=lambda values: 2,
    features=confidence,
)
"""Any of several labels, each with the student's logit for yes."""
