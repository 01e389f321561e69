"""Scores of students, teachers and pools on labelled examples, whatever is predicted."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from mtbkd.app.run.scoring_classes import ClassScoring
from mtbkd.app.run.scoring_labels import LabelScoring
from mtbkd.app.run.scoring_numbers import NumberScoring
from mtbkd.app.run.scoring_shared import Pool, Rival, Scores
from mtbkd.data import Dataset
from mtbkd.distillation.posterior import Posterior
from mtbkd.explain.causes import Causes
from mtbkd.observation import Said
from mtbkd.observation.units import Units
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.types import Family, Floats
from mtbkd.weights.rules import Weighting


class Scoring(Protocol):
    """How answers of a family are judged."""

    def predicted(self, rival: Rival, inputs: Tensor, units: Units | None) -> Any:
        """Mean probabilities, (example, column), or means and standard deviations of draws."""
        ...

    def losses(self, predicted: Any, labels: Any) -> Floats:
        """Negative log scores in nats, (example, column), NaN where a label is missing."""
        ...

    def doubts(self, predicted: Any, units: Units | None) -> Floats:
        """Total uncertainty, (example, column): entropy in nats, or variance by `unit_of`."""
        ...

    def wrong(self, predicted: Any, labels: Any) -> Floats | None:
        """1 for a wrong and 0 for a right answer, NaN where unknown, shaped like `losses`."""
        ...

    def draws(self, rival: Rival, test: Dataset, units: Units | None) -> dict[str, float]:
        """Scores of the mean prediction of all draws, or of their mixture for numbers."""
        ...

    def teacher(self, said: Tensor, mask: Tensor, labels: Tensor, units: Units | None) -> Scores:
        """Scores of what one teacher says by itself, in full, where it says something."""
        ...

    def pool(self, said: Said, complete: Tensor, heard: Tensor, units: Units | None) -> Pool:
        """The teachers' weighted pool, and how much they disagree; see `pool_of`."""
        ...

    def pooled(
        self, pool: Pool, heard: Tensor, labels: Tensor, units: Units | None
    ) -> dict[str, float]:
        """Scores of the pool, where any teacher says something."""
        ...

    def chains(self, means: Tensor, labels: Tensor) -> dict[str, Floats]:
        """How good each chain is, from its mean answers, (chain, example, column)."""
        ...

    def student(self, posterior: Posterior, answer: Any, causes: Causes, test: Dataset) -> Scores:
        """Scores of the student's answers, and of its sets."""
        ...

    def right(self, answer: Any, causes: Causes, labels: Any) -> Any:
        """Which answers are right as a whole, NaN where that has no meaning, (example,)."""
        ...

    def shown(
        self, posterior: Posterior, answer: Any, test: Dataset, pool: Pool
    ) -> dict[str, Tensor]:
        """What the report draws beside the table of predictions."""
        ...

    def columns(self, test: Dataset, quarrel: Tensor, shares: dict[str, Tensor]) -> dict[str, Any]:
        """Labels, the teachers' disagreement and responsibilities by teacher, as columns."""
        ...

    def by_column(self, shares: Tensor, means: Tensor) -> Tensor:
        """Mean shares in each class as the student sees it, or of each label or target."""
        ...


SCORINGS: dict[Family, Scoring] = {
    "classification": ClassScoring(),
    "multilabel": LabelScoring(),
    "regression": NumberScoring(),
}
"""By family."""


def teacher_scores(
    outputs: TeacherOutputs, labels: Tensor, units: Units | None
) -> dict[str, Scores]:
    """Scores of each teacher by itself, where it says something; nothing for one that is silent.

    A teacher's classes that it does not tell apart, or does not know, are equally probable to it.
    """
    _, complete = _weighed(outputs, Weighting("uniform"), units)
    return {
        name: SCORINGS[outputs.family].teacher(complete[k], outputs.mask[k], labels, units)
        for k, name in enumerate(outputs.names)
        if outputs.mask[k].any()
    }


def said_by_each(outputs: TeacherOutputs, units: Units | None) -> Floats:
    """Probabilities, or means in the targets' units, of each teacher: (teacher, example, column).

    NaN where a teacher says nothing.
    """
    outcome = outputs.outcome
    if outcome.numeric:
        found = outputs.values[..., 0].float()
    else:
        complete = _weighed(outputs, Weighting("uniform"), units)[1].exp()
        found = complete if outcome.exclusive else complete[..., 1]
    mask = outputs.mask if outputs.mask.dim() == 3 else outputs.mask[..., None]
    return torch.where(mask, found, torch.nan).numpy()


def pool_of(
    outputs: TeacherOutputs, weighting: Weighting, units: Units | None, features: Tensor
) -> Pool:
    """The teachers' weighted pool, and how much the teachers disagree.

    Args:
        outputs: What the teachers say.
        weighting: How they are weighed.
        units: Units of real-valued targets.
        features: What the student reads there behind its frozen part, shape (example, ...).

    Returns:
        ``probs`` (example, class or label), flat where no teacher says anything, or ``means``,
        ``sds`` and ``weights`` (teacher, example, target); and ``disagreement``, the weighted
        Jensen-Shannon divergence in nats, (example,) or (example, label), or the weighted variance
        of means, (example, target).
    """
    said, complete = _weighed(outputs, weighting, units, features)
    return SCORINGS[outputs.family].pool(said, complete, outputs.mask.any(0), units)


def pool_scores(
    outputs: TeacherOutputs, pool: Pool, labels: Tensor, units: Units | None
) -> dict[str, float]:
    """Scores of `pool_of`, where any teacher says something."""
    return SCORINGS[outputs.family].pooled(pool, outputs.mask.any(0), labels, units)


def _weighed(
    outputs: TeacherOutputs,
    weighting: Weighting,
    units: Units | None,
    features: Tensor | None = None,
) -> tuple[Said, Tensor]:
    """What the teachers say in units of 1, and what each says by itself, in full."""
    values = outputs.values.float()
    values = values if units is None else units.values(values)
    said = weighting.apply(values, outputs.mask, outputs.kept, outputs.observation, features)
    return said, outputs.observation.complete(said, weighting.temperature)
