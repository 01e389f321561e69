"""How much each teacher counts on each example: uniform, entropy and stacked weights.

A *cell* is what weights are given for: an example for classification, a label or a target of an
example for the other families.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mtbkd.observation import CATEGORICAL, Observation, Said
from mtbkd.observation.log_probs import certainty
from mtbkd.observation.log_probs import entropy as entropy
from mtbkd.observation.log_probs import pool_log_probs as pool_log_probs

_ROWS = 2**16


def uniform_weights(mask: Tensor) -> Tensor:
    """Log weights, equal among the teachers that speak: (teacher, ...), bool to float."""
    return _normalise(torch.zeros(mask.shape, device=mask.device), mask)


def entropy_weights(log_probs: Tensor, mask: Tensor) -> Tensor:
    """Log of the paper's weights, ``w_k ∝ 1 - H_k / sum_j H_j`` (MT-BKD).

    Args:
        log_probs: Shape (teacher, ..., class); for labels of no and of yes.
        mask: False where a teacher says nothing, shape (teacher, ...).

    Returns:
        Log weights, shape (teacher, ...); ``-inf`` where masked. A teacher alone on an example
        gets all the weight, and certain teachers share equally.
    """
    return _normalise(certainty(log_probs, mask), mask)


@dataclass(frozen=True)
class Stacked:
    """Weights ``softmax_k(a_k + b_k · phi_k(x))`` with one temperature for each teacher.

    ``phi_k`` holds teacher k's normalised entropy and the log of its largest probability, or the
    log of its standard deviation. Hierarchical stacking: Yao et al. 2021, arXiv:2101.08954.

    Attributes:
        intercept: a, shape (teacher,), or (teacher, column) where there are several labels or
            targets, of which teachers may know some better than others.
        slope: b, shape (teacher, feature).
        temperature: Divides the teachers' log-probabilities, or multiplies their variances, shape
            (teacher,).
        scale: Standard deviation of the prior on a and b that was chosen; 0 means uniform.
        nobody: Score of the case that no teacher is to be trusted, beside those of the teachers;
            ``-inf`` if it was not fitted.
        gate: For teachers that do not know all classes: log odds that one of those that they know
            is true, ``gate · (1, phi_k)``, shape (teacher, 1 + feature). None if there are none.
    """

    intercept: Tensor
    slope: Tensor
    temperature: Tensor
    scale: float
    nobody: Tensor | None = None
    gate: Tensor | None = None

    def log_weights(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Log weights of the teachers and of trusting nobody.

        Args:
            features: Shape (teacher, ..., feature).
            mask: Shape (teacher, ...).

        Returns:
            Shapes (teacher, ...) and (...), or None instead of the second.
        """
        shape = (-1, *[1] * (mask.dim() - 1))
        slope = self.slope.view(*shape, self.slope.shape[1])
        intercept = self.intercept
        intercept = intercept.view(shape) if intercept.dim() == 1 else intercept.unsqueeze(1)
        scores = intercept + (features * slope).sum(-1)
        if self.nobody is None:
            return _normalise(scores, mask), None
        silent = ~mask.any(0, keepdim=True)
        nobody = self.nobody.to(scores).expand(1, *mask.shape[1:])
        every = _normalise(torch.cat([scores, nobody]), torch.cat([mask, ~silent]))
        return every[:-1], every[-1]

    def inside(self, features: Tensor) -> Tensor | None:
        """Probability that a class that the teacher knows is true, (teacher, example)."""
        if self.gate is None:
            return None
        return torch.sigmoid(self.gate[:, :1] + (features * self.gate[:, None, 1:]).sum(-1))


@dataclass(frozen=True)
class Weighting:
    """A rule for weights, ready to be applied to any examples.

    Attributes:
        rule: ``uniform``, ``entropy`` (by precision for numbers) or ``stacked``.
        stacked: The fit, for ``stacked``.
    """

    rule: Literal["uniform", "entropy", "stacked"]
    stacked: Stacked | None = None

    @property
    def temperature(self) -> Tensor | None:
        """The temperature of each teacher, shape (teacher,), if it was fitted."""
        return None if self.stacked is None else self.stacked.temperature

    def apply(
        self,
        values: Tensor,
        mask: Tensor,
        kept: Tensor | None = None,
        observation: Observation = CATEGORICAL,
    ) -> Said:
        """Weigh the teachers.

        Args:
            values: As in `TeacherOutputs`; only a block of rows is read at a time.
            mask: False where a teacher says nothing, shape (teacher, example) or (teacher,
                example, column).
            kept: As in `TeacherOutputs`.
            observation: The object of their family.

        Returns:
            What they say, with weights and, for partial teachers that were stacked, how sure they
            are that one of the classes that they know is true.
        """
        parts = []
        for start in range(0, mask.shape[1], _ROWS):
            rows = slice(start, start + _ROWS)
            parts.append(self._weigh(_single(values[:, rows]), mask[:, rows], observation))
        log_weights, nobody, inside = zip(*parts, strict=True)
        return Said(
            values=values,
            log_weights=torch.cat(log_weights, 1),
            kept=kept,
            inside=None if inside[0] is None else torch.cat(inside, 1),
            nobody=None if nobody[0] is None else torch.cat(nobody),
        )

    def _weigh(
        self, values: Tensor, mask: Tensor, observation: Observation
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if self.stacked is not None:
            features = observation.features(values)
            return *self.stacked.log_weights(features, mask), self.stacked.inside(features)
        if self.rule == "uniform":
            return uniform_weights(mask), None, None
        return _normalise(observation.certainty(values, mask), mask), None, None


def _single(values: Tensor) -> Tensor:
    return values.float() if values.dtype == torch.float16 else values


def _normalise(scores: Tensor, mask: Tensor) -> Tensor:
    """Log softmax over the teachers that speak; ``-inf`` elsewhere and where none does."""
    masked = scores.masked_fill(~mask, -torch.inf)
    silent = ~mask.any(0)
    safe = masked.masked_fill(silent, 0.0)
    return torch.log_softmax(safe, 0).masked_fill(~mask, -torch.inf)
