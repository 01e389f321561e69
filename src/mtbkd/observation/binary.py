"""Any of several labels: a Bernoulli likelihood and Beta components for each, mixed label by label.

A label is a classification into no and yes with logits ``(0, f)``, so all of it is the categorical
family over (example, label).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mtbkd.observation import dirichlet
from mtbkd.observation.answers import Answer, LabelPredictive, arrays, quantiles
from mtbkd.observation.base import Kind, Labels, Names, Observation, Said, Tempering
from mtbkd.observation.log_probs import (
    LOG_FLOOR,
    certainty,
    confidence,
    floored,
    log_likelihood,
    picked,
    pool_log_probs,
    tempered,
)
from mtbkd.observation.reading import number_labels
from mtbkd.observation.units import Units
from mtbkd.prior.mixture import (
    MixtureTerms,
    Prior,
    log_responsibilities,
    mixture_log_density,
    mixture_terms,
)
from mtbkd.prior.spaces import Spaces
from mtbkd.types import Batch, Family, Floats, Ints

_MANY = 100
"""So many log-odds are not all between 0 and 1; so many probabilities are."""


@dataclass(frozen=True)
class Binary:
    """Any of several labels, each with the student's logit for yes.

    Values are log-probabilities of no and of yes.
    """

    spaces: Spaces | None = None
    certainty = staticmethod(certainty)
    features = staticmethod(confidence)
    family: ClassVar[Family] = "multilabel"
    column: ClassVar[str] = "label"
    columns: ClassVar[str] = "labels"
    exclusive: ClassVar[bool] = False
    twice: ClassVar[str] = "Probabilities of labels do not add; map one of them to None."
    kinds: ClassVar[tuple[Kind, ...]] = ("logits", "probs")
    missing: ClassVar[float] = math.nan
    mapping: ClassVar[str] = "labels, one logit each"
    n_outputs: ClassVar[int] = 1
    numeric: ClassVar[bool] = False

    def observe(
        self, n_columns: int, blocks: Tensor | None = None, kept: Tensor | None = None
    ) -> Observation:
        return self

    def read_labels(self, labels: Labels, n_rows: int, names: Names) -> tuple[Tensor, list[str]]:
        """0, 1 or NaN, shape (example, label)."""
        found, faults = number_labels(labels, n_rows, names)
        wrong = ~(found.isnan() | (found == 0) | (found == 1))
        if faults or not wrong.any():
            return found, faults
        row, column = wrong.nonzero()[0].tolist()
        return found, [
            f"Expected labels of 0 or 1 in the {names.owner}, but got {found[row, column]:g} for "
            f"{names.columns[column]!r} of id {names.row(row)} ({int(wrong.sum())} such). Correct "
            "them; NaN is a missing one."
        ]

    def faults(self, numbers: Floats, kind: Kind, names: Names) -> list[str]:
        """Probabilities that are declared log-odds, and numbers that are no probabilities."""
        outside = (numbers < 0) | (numbers > 1)
        if kind == "logits" and numbers.size >= _MANY and not outside.any():
            return [
                f"Expected log-odds from teacher {names.owner!r}, but all of its {numbers.size} "
                "numbers are between 0 and 1. Declare kind='probs'."
            ]
        if kind == "probs" and outside.any():
            row, column = np.argwhere(outside)[0]
            return [
                f"Expected probs of teacher {names.owner!r} between 0 and 1, but got "
                f"{numbers[row, column]:.4g} for {names.columns[column]!r} of id "
                f"{names.row(row)} ({outside.sum()} such). Correct them, or declare kind='logits' "
                "if they are log-odds."
            ]
        return []

    def settle(
        self, numbers: Floats, kind: Kind, target: Ints, log_variance: Floats | None
    ) -> Tensor:
        """Floored log-probabilities of no and of yes."""
        yes = torch.from_numpy(numbers[:, target >= 0])
        if kind == "probs":
            return floored(torch.stack([1 - yes, yes], -1).log().clamp_min(-1e4))
        return floored(torch.nn.functional.logsigmoid(torch.stack([-yes, yes], -1)))

    def unsaid(self, n_columns: int) -> Tensor:
        return torch.full((n_columns, 2), -math.log(2))

    def neutral(self, kind: Kind, n_columns: int) -> float:
        """No and yes alike, and log-odds that are no probabilities."""
        return {"probs": 0.5, "logits": -1.0}.get(kind, 0.0)

    def pooled(self, log_weights: Tensor, complete: Tensor) -> Tensor:
        return pool_log_probs(log_weights, complete).nan_to_num(neginf=LOG_FLOOR)

    def point(self, outputs: Tensor, units: Units | None) -> Tensor:
        return torch.sigmoid(outputs)

    def traced(self, outputs: Tensor) -> Tensor:
        return outputs

    def cuts(self, draws: Tensor) -> Tensor:
        return draws.new_empty(draws.shape[1], 0)

    def events(self, outputs: Tensor, cuts: Tensor) -> Tensor:
        """No and yes."""
        return torch.stack([torch.sigmoid(-outputs), torch.sigmoid(outputs)], -1)

    def summarise(self, draws: Tensor, *, units: Units | None, level: float, point: str) -> Answer:
        """From (draw, example, label) to the fields of `LabelPredictive`."""
        probs = torch.sigmoid(draws)
        mean = probs.double().mean(0)
        lower, upper = quantiles(probs, level)

        def spread(p: Tensor) -> Tensor:
            return -torch.special.xlogy(p, p) - torch.special.xlogy(1 - p, 1 - p)

        fields = arrays(
            probs=mean,
            total=spread(mean),
            aleatoric=spread(probs.double()).mean(0),
            lower=lower,
            upper=upper,
        )
        return LabelPredictive(**fields, level=level)

    def log_likelihood(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return log_likelihood(_logits(outputs), _index(labels)).sum(-1)

    def terms(
        self, said: Said, concentration: float, softening: float | Tensor, discount: float
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

    def value(self, outputs: Tensor, batch: Batch, prior: Prior) -> Tensor:
        logits, labels, terms = _flat(outputs, batch)
        log_q = torch.log_softmax(logits / prior.student_softening, -1)
        cells = log_likelihood(logits, labels) + prior.power * mixture_log_density(terms, log_q)
        return cells.unflatten(-1, outputs.shape[-2:]).sum(-1)

    def value_and_slope(self, outputs: Tensor, batch: Batch, prior: Prior) -> tuple[Tensor, Tensor]:
        values, slopes = dirichlet.pulled(*_flat(outputs, batch), prior)
        shape = outputs.shape[-2:]
        return values.unflatten(-1, shape).sum(-1), slopes[..., 1].unflatten(-1, shape)

    def roots(self, outputs: Tensor, batch: Batch, prior: Prior) -> Tensor:
        """Diagonal, shape (example, label, label)."""
        logits, labels, terms = _flat(outputs, batch)
        both = dirichlet.curvature_roots(logits, Batch(batch.inputs, labels, terms), prior)
        curvature = both[:, 1].square().sum(-1).unflatten(0, outputs.shape)
        return torch.diag_embed(curvature.sqrt())

    def log_responsibilities(self, terms: Any, outputs: Tensor, softening: float) -> Tensor:
        log_q = torch.log_softmax(_logits(outputs).flatten(-3, -2) / softening, -1)
        shares = log_responsibilities(_flat_terms(terms), log_q)
        return shares.unflatten(-1, outputs.shape[-2:])

    def complete(self, said: Said, temperature: Tensor | None) -> Tensor:
        return tempered(said.values, temperature)

    def score(self, said: Said, labels: Tensor, temperature: Tensor | None) -> Tensor:
        return picked(tempered(said.values, temperature), _index(labels))

    def tempering(self, said: Said, labels: Tensor) -> Tempering:
        sizes = torch.zeros_like(said.values[:, :1, :1])
        return Tempering(picked(said.values, _index(labels)), said.values, sizes)

    def n_alike(self, values: Tensor) -> int:
        return 2


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


BINARY = Binary()
"""Any of several labels."""
