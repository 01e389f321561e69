"""Scores of students, teachers and pools on labelled examples, whatever is predicted."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from mtbkd.app.run.scoring_classes import ClassScoring
from mtbkd.app.run.scoring_labels import LabelScoring
from mtbkd.app.run.scoring_numbers import NumberScoring
from mtbkd.app.run.scoring_shared import Scores
from mtbkd.data import Dataset
from mtbkd.distillation.distill import Posterior
from mtbkd.explain.causes import Causes
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.observation import Said
from mtbkd.observation.units import Units
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.student.student import Student
from mtbkd.types import Bools, Family, Floats
from mtbkd.weights.rules import Weighting


class Scoring(Protocol):
    """How answers of a family are judged."""

    def draws(
        self,
        student: Student,
        samples: PosteriorSamples,
        inputs: Tensor,
        labels: Tensor,
        units: Units | None,
    ) -> dict[str, float]:
        """Scores of the mean prediction of all draws, or of their mixture for numbers."""
        ...

    def teacher(
        self, complete: Tensor, mask: Tensor, labels: Tensor, units: Units | None
    ) -> Scores:
        """Scores of one teacher by itself, where it says something."""
        ...

    def pool(
        self, said: Said, complete: Tensor, heard: Tensor, units: Units | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The teachers' weighted pool, and how much the teachers disagree."""
        ...

    def pooled(
        self, pool: dict[str, Tensor], heard: Tensor, labels: Tensor, units: Units | None
    ) -> dict[str, float]:
        """Scores of the pool, where any teacher says something."""
        ...

    def chains(self, means: Tensor, labels: Tensor) -> dict[str, Floats]:
        """How good each chain is, from its mean answers, (chain, example, column)."""
        ...

    def student(
        self, posterior: Posterior, answer: Any, causes: Causes, test: Dataset
    ) -> dict[str, float | None]:
        """Scores of the student's answers."""
        ...

    def right(self, answer: Any, causes: Causes, labels: Floats) -> Bools | Floats:
        """Which answers are right as a whole, NaN where that has no meaning, (example,)."""
        ...

    def shown(
        self,
        posterior: Posterior,
        answer: Any,
        test: Dataset,
        pool: dict[str, Tensor],
        quarrel: Tensor,
    ) -> dict[str, Tensor]:
        """What the report draws beside the table of predictions."""
        ...

    def columns(
        self, test: Dataset, quarrel: Tensor, shares: Tensor, names: tuple[str, ...]
    ) -> dict[str, Any]:
        """Labels, the teachers' disagreement and each teacher's responsibility, by column."""
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
    said = Weighting("uniform").apply(
        _in_units(outputs, units), outputs.mask, outputs.kept, outputs.observation
    )
    complete, scoring = outputs.observation.complete(said, None), SCORINGS[outputs.family]
    return {
        name: scoring.teacher(complete[k], outputs.mask[k], labels, units)
        for k, name in enumerate(outputs.names)
        if outputs.mask[k].any()
    }


def pool_of(
    outputs: TeacherOutputs, weighting: Weighting, units: Units | None
) -> tuple[dict[str, Tensor], Tensor]:
    """The teachers' weighted pool, and how much the teachers disagree.

    Returns:
        ``probs`` (example, class or label), flat where no teacher says anything, or ``means``,
        ``sds`` and ``weights`` (teacher, example, target); and the weighted Jensen-Shannon
        divergence in nats, (example,) or (example, label), or the weighted variance of means,
        (example, target).
    """
    said = weighting.apply(
        _in_units(outputs, units), outputs.mask, outputs.kept, outputs.observation
    )
    complete = outputs.observation.complete(said, weighting.temperature)
    return SCORINGS[outputs.family].pool(said, complete, outputs.mask.any(0), units)


def pool_scores(
    outputs: TeacherOutputs, pool: dict[str, Tensor], labels: Tensor, units: Units | None
) -> dict[str, float]:
    """Scores of `pool_of`, where any teacher says something.

    Args:
        outputs: What the teachers say.
        pool: As `pool_of` gives it.
        labels: Those of the same examples.
        units: For regression only.
    """
    return SCORINGS[outputs.family].pooled(pool, outputs.mask.any(0), labels, units)


def _in_units(outputs: TeacherOutputs, units: Units | None) -> Tensor:
    values = outputs.values.float()
    return values if units is None else units.values(values)
