"""The known answers of all test examples together, and how far each is off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mtbkd.app.report.data import Classes, Labels, Numbers, ReportData
from mtbkd.types import Bools, Floats


@dataclass(frozen=True)
class Answers:
    """Answers whose truth is known; each array has shape (answer,).

    Uncertainties are in nats, or variances of numbers in `Numbers.unit`.

    Attributes:
        error: 0 or 1 for a right or a wrong answer; the absolute error of a number.
        total: Total uncertainty.
        aleatoric: What more draws would not remove.
        epistemic: What the draws disagree on.
        disagreement: That of the teachers, if there are several.
        unit: Words on what errors are counted in, for axes.
    """

    error: Floats
    total: Floats
    aleatoric: Floats
    epistemic: Floats
    disagreement: Floats | None
    unit: str = ""

    @property
    def hits(self) -> Bools:
        """Which answers are right."""
        return self.error == 0


def of_classes(data: ReportData[Classes]) -> Answers:
    """One answer for each example."""
    return _known(data, data.part.probs.argmax(1) != data.labels, np.ones(len(data.labels), bool))


def of_labels(data: ReportData[Labels]) -> Answers:
    """One answer for each label of each example."""
    wrong = (data.part.probs >= 0.5) != (data.labels == 1)
    return _known(data, wrong, ~np.isnan(data.labels))


def of_numbers(data: ReportData[Numbers]) -> Answers:
    """One answer for each target of each example."""
    unit, words = data.part.unit, " (in sd of the target)" if len(data.classes) > 1 else ""
    error = np.abs(data.part.mean - data.labels) / unit
    return _known(data, error, ~np.isnan(data.labels), unit**2, words)


def _known(
    data: ReportData[Any], error: Any, known: Bools, square: Floats | float = 1.0, unit: str = ""
) -> Answers:
    several = data.disagreement is not None and len(data.teachers) > 1
    return Answers(
        error=error[known].astype(float),
        total=(data.total / square)[known],
        aleatoric=(data.aleatoric / square)[known],
        epistemic=(data.epistemic / square)[known],
        disagreement=(data.disagreement / square)[known] if several else None,
        unit=unit,
    )
