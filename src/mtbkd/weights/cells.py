"""Labelled cells as fits of the teachers' pool read them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtbkd.observation import OUTCOMES, Observation, Outcome, Said
from mtbkd.observation.base import labelled
from mtbkd.types import Bools, Floats
from mtbkd.weights.rules import log_alike


@dataclass(frozen=True)
class Cells:
    """Labelled cells, and what the teachers say of them, in double precision.

    What is read off them is NumPy's, with all cells on one axis in the order of examples.
    """

    values: Tensor
    mask: Tensor
    labels: Tensor
    kept: Tensor | None
    observation: Observation
    place: Tensor | None
    groups: Tensor | None = None

    def at(self, rows: Tensor) -> Cells:
        """Some of the examples."""
        return replace(
            self,
            values=self.values[:, rows],
            mask=self.mask[:, rows],
            labels=self.labels[rows],
            kept=None if self.kept is None else self.kept[:, rows],
            place=None if self.place is None else self.place[rows],
        )

    @property
    def outcome(self) -> Outcome:
        """What is predicted."""
        return OUTCOMES[self.observation.family]

    @cached_property
    def known(self) -> Bools:
        """Cells with a label and a teacher, (cell,)."""
        return _array(labelled(self.outcome, self.labels) & self.mask.any(0)).ravel()

    @cached_property
    def speaking(self) -> Bools:
        """The mask, true for everybody in cells that do not count, so that all is finite."""
        return _array(self.mask.flatten(1)) | ~self.known

    @cached_property
    def alike(self) -> Floats:
        """As `mtbkd.weights.rules.log_alike` has it, (teacher, cell)."""
        return _array(log_alike(self.mask, self.groups).flatten(1).double())

    @cached_property
    def confidence(self) -> Floats:
        """One, and how sure each teacher is, (teacher, 1 + feature, cell)."""
        found = self.observation.features(self.values).flatten(1, -2).mT
        return _array(torch.cat([torch.ones_like(found[:, :1]), found], 1))

    def scores(self, log_temperature: Floats, odds: Floats | None = None) -> list[Floats]:
        """Log scores of the teachers by themselves, and how they change.

        Takes log temperatures, (problem, teacher), and log odds that one of a partial teacher's
        classes is true, (problem, teacher, cell). Returns the scores, their first two derivatives
        in the log temperature and, where there are odds, in these, all of the latter shape.
        """
        label, outcomes, log_sizes, power = self._tempering
        inverse = np.exp(-log_temperature)[..., None]
        masses = np.exp(inverse[:, None] * outcomes + log_sizes)  # (problem, outcome, ...)
        total = masses.sum(1)
        masses *= outcomes
        mean = masses.sum(1) / total
        masses *= outcomes
        gap = inverse * (label - mean)
        bend = gap - inverse * inverse * (masses.sum(1) / total - mean * mean)
        value = inverse * label - np.log(total) - power * log_temperature[..., None]
        found = [value, -gap - power, bend]
        if odds is not None and self.gates is not None:
            _, inside, among, partial = self.gates
            found = [np.where(inside, part, 0.0) for part in found]
            sign = np.where(inside, 1.0, -1.0)
            doubt = 1 / (1 + np.exp(sign * odds))
            found[0] += among - partial * np.logaddexp(0, -sign * odds)
            found += [partial * sign * doubt, partial * doubt * (doubt - 1)]
        return [np.where(self.speaking, part, 0.0) for part in found]

    @cached_property
    def _tempering(self) -> tuple[Any, ...]:
        """As the observation has it, outcomes on the first axis and the largest of them at 0."""
        said = Said(self.values, self.values[..., 0], self.kept)
        found = self.observation.tempering(said, self.labels)
        most = found.outcomes.masked_fill(torch.isneginf(found.log_sizes), -torch.inf)
        most = most.amax(-1, keepdim=True)
        outcomes = (found.outcomes - most).clamp_max(0)  # those of no outcome have no mass
        n_teachers = len(outcomes)
        flat = (
            _array(part.movedim(-1, 0).reshape(part.shape[-1], n_teachers, -1).contiguous())
            for part in (outcomes, found.log_sizes)
        )
        label = (found.label - most[..., 0]).reshape(n_teachers, -1)
        return _array(label), *flat, found.power

    @cached_property
    def gates(self) -> tuple[Floats, Bools, Floats, Floats] | None:
        """What partial teachers know of the labels; None if all teachers know all classes.

        Returns:
            The log odds of their classes if all are equally probable, (teacher,); whether a label
            is one of them, (teacher, cell); the log probability of one that is not, among those,
            else 0; whether there are such, (teacher, 1).
        """
        spaces = self.observation.spaces
        if spaces is None or not any(k >= 0 for k in spaces.known):
            return None
        told = _array(spaces.blocks >= 0)
        base = _array(torch.logit(torch.from_numpy(told).double().mean(1), 1e-6))
        n_outside = (~told).sum(1, keepdims=True)
        inside = told[:, _array(self.labels.clamp_min(0))]
        among = np.where(inside, 0.0, -np.log(np.maximum(n_outside, 1)))
        return base, inside, among, (n_outside > 0).astype(float)


def _array(values: Tensor) -> Any:
    return values.cpu().numpy()
