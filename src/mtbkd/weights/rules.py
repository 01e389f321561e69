"""How much each teacher counts on each example: uniform, entropy and stacked weights.

A *cell* is what weights are given for: an example for classification, a label or a target of an
example for the other families.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mtbkd.observation import CATEGORICAL, Observation, Said
from mtbkd.observation.log_probs import certainty
from mtbkd.observation.log_probs import entropy as entropy
from mtbkd.observation.log_probs import pool_log_probs as pool_log_probs
from mtbkd.weights.directions import Directions

_ROWS = 2**14


def uniform_weights(mask: Tensor, groups: Tensor | None = None) -> Tensor:
    """Log weights, equal among the teachers that speak: (teacher, ...), bool to float.

    Teachers of one group, as in `TeacherOutputs`, share the weight of one.
    """
    return _normalise(-log_alike(mask, groups), mask)


def log_alike(mask: Tensor, groups: Tensor | None) -> Tensor:
    """Log of how many of a teacher's group speak, itself among them: 0 if there are no groups.

    What teachers say that share their mistakes is said once: their weights before any label are
    those of one teacher, in equal parts.

    Args:
        mask: Shape (teacher, ...).
        groups: The first teacher of each one's group, shape (teacher,).
    """
    if groups is None:
        return torch.zeros(mask.shape, device=mask.device)
    one = groups.to(mask.device).long()
    same = (one[:, None] == one).float()
    return torch.tensordot(same, mask.float(), 1).clamp_min(1).log()


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


class Seen(NamedTuple):
    """What stacked weights may depend on.

    Attributes:
        confidence: How sure each teacher is, shape (teacher, ..., feature).
        named: Position of the class that each teacher names, shape (teacher, example).
        place: Where each example lies, as in `Directions`, shape (example, component).
        alike: As `log_alike` has it, shape (teacher, ...).
    """

    confidence: Tensor
    named: Tensor | None = None
    place: Tensor | None = None
    alike: Tensor | None = None


@dataclass(frozen=True)
class Stacked:
    """Weights ``softmax_k(a_k + b_k · phi_k(x) + d_k[c_k(x)] + e_k · psi(x))``, temperatures.

    ``phi_k`` holds teacher k's normalised entropy and the log of its largest probability, or the
    log of its standard deviation; ``c_k`` is the class that it names; ``psi`` is where the example
    lies among the student's inputs. Hierarchical stacking: Yao, Pirs, Vehtari and Gelman 2021,
    arXiv:2101.08954. What the scores rest on has a leading axis of posterior draws, over which the
    weights are averaged, so that few labels do not make them more certain than they are.

    Attributes:
        intercept: a, shape (draw, teacher), or (draw, teacher, column) where there are several
            labels or targets, of which teachers may know some better than others.
        slope: b, shape (draw, teacher, feature).
        temperature: Divides the teachers' log-probabilities, or multiplies their variances, shape
            (teacher,).
        scale: Standard deviation of the prior on a and b that was chosen; 0 means uniform.
        nobody: Score of the case that no teacher is to be trusted, beside those of the teachers,
            shape (draw,); None if it was not fitted.
        gate: For teachers that do not know all classes: log odds that one of those that they know
            is true, ``gate · (1, phi_k)``, shape (teacher, 1 + feature). None if there are none.
        by_class: d, shape (draw, teacher, class); None if the labels do not tell of it.
        by_input: e, shape (draw, teacher, component); None likewise.
        directions: What psi is along; None if the scores do not see the input.
    """

    intercept: Tensor
    slope: Tensor
    temperature: Tensor
    scale: float
    nobody: Tensor | None = None
    gate: Tensor | None = None
    by_class: Tensor | None = None
    by_input: Tensor | None = None
    directions: Directions | None = None

    def log_weights(self, seen: Seen, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Log weights of the teachers and of trusting nobody.

        Args:
            seen: What they depend on.
            mask: Shape (teacher, ...).

        Returns:
            Shapes (teacher, ...) and (...), or None instead of the second.
        """
        scores = self._scores(seen)
        if self.nobody is None:
            return _mean(_normalise(scores, mask)), None
        silent = ~mask.any(0, keepdim=True)
        nobody = self.nobody.view(-1, 1, *[1] * (mask.dim() - 1))
        nobody = nobody.expand(-1, 1, *mask.shape[1:])
        every = _mean(_normalise(torch.cat([scores, nobody], 1), torch.cat([mask, ~silent])))
        return every[:-1], every[-1]

    def _scores(self, seen: Seen) -> Tensor:
        """Before they are normalised, (draw, teacher, ...)."""
        shape = (*self.slope.shape[:2], *[1] * (seen.confidence.dim() - 2))
        intercept = self.intercept
        intercept = intercept.view(shape) if intercept.dim() == 2 else intercept.unsqueeze(2)
        slope = self.slope.view(*shape, self.slope.shape[2])
        scores = intercept + (seen.confidence * slope).sum(-1)
        if self.by_class is not None and seen.named is not None:
            n_draws = len(self.by_class)
            scores = scores + self.by_class.gather(2, seen.named.expand(n_draws, -1, -1))
        if self.by_input is not None and seen.place is not None:
            own = self.by_input @ seen.place.to(self.by_input).T
            scores = scores + own.view(*own.shape, *[1] * (scores.dim() - 3))
        return scores if seen.alike is None else scores - seen.alike

    def inside(self, seen: Seen) -> Tensor | None:
        """Probability that a class that the teacher knows is true, (teacher, example)."""
        if self.gate is None:
            return None
        odds = self.gate[:, :1] + (seen.confidence * self.gate[:, None, 1:]).sum(-1)
        return torch.sigmoid(odds)


@dataclass(frozen=True)
class Weighting:
    """A rule for weights, ready to be applied to any examples.

    Attributes:
        rule: ``uniform``, ``entropy`` (by precision for numbers) or ``stacked``.
        stacked: The fit, for ``stacked``.
        groups: As in `TeacherOutputs`.
    """

    rule: Literal["uniform", "entropy", "stacked"]
    stacked: Stacked | None = None
    groups: Tensor | None = None

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
        features: Tensor | None = None,
    ) -> Said:
        """Weigh the teachers.

        Args:
            values: As in `TeacherOutputs`; only a block of rows is read at a time.
            mask: False where a teacher says nothing, shape (teacher, example) or (teacher,
                example, column).
            kept: As in `TeacherOutputs`.
            observation: How a student's outputs meet these teachers.
            features: What the student reads behind its frozen part, shape (example, ...); needed by
                stacked weights that see the input.

        Returns:
            What they say, with weights and, for partial teachers that were stacked, how sure they
            are that one of the classes that they know is true.
        """
        parts = []
        for start in range(0, mask.shape[1], _ROWS):
            rows = slice(start, start + _ROWS)
            place = None
            if self.stacked is not None and self.stacked.directions is not None:
                if features is None:
                    raise ValueError("these weights see the input, which is not given")
                place = self.stacked.directions.place(features[rows]).to(mask.device)
            own = _single(values[:, rows])
            parts.append(self._weigh(own, mask[:, rows], observation, place))
        log_weights, nobody, inside = zip(*parts, strict=True)
        return Said(
            values=values,
            log_weights=torch.cat(log_weights, 1),
            kept=kept,
            inside=None if inside[0] is None else torch.cat(inside, 1),
            nobody=None if nobody[0] is None else torch.cat(nobody),
        )

    def _weigh(
        self, values: Tensor, mask: Tensor, observation: Observation, place: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        alike = None if self.groups is None else log_alike(mask, self.groups)
        if self.stacked is not None:
            named = None if self.stacked.by_class is None else values.argmax(-1)
            seen = Seen(observation.features(values), named, place, alike)
            return *self.stacked.log_weights(seen, mask), self.stacked.inside(seen)
        if self.rule == "uniform":
            return uniform_weights(mask, self.groups), None, None
        if alike is None:
            return _normalise(observation.certainty(values, mask), mask), None, None
        scores = observation.certainty(values, mask * torch.exp(-alike)) - alike
        return _normalise(scores, mask), None, None


def _single(values: Tensor) -> Tensor:
    return values.float() if values.dtype == torch.float16 else values


def _normalise(scores: Tensor, mask: Tensor) -> Tensor:
    """Log softmax over the teachers that speak; ``-inf`` elsewhere and where none does.

    Scores are of the shape of the mask, or have an axis of draws before it.
    """
    axis = scores.dim() - mask.dim()
    masked = scores.masked_fill(~mask, -torch.inf)
    silent = ~mask.any(0)
    safe = masked.masked_fill(silent, 0.0)
    return torch.log_softmax(safe, axis).masked_fill(~mask, -torch.inf)


def _mean(log_weights: Tensor) -> Tensor:
    """Log of the mean over draws: (draw, teacher, ...) to (teacher, ...)."""
    if len(log_weights) == 1:
        return log_weights[0]
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))
