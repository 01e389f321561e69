"""What the posterior adds over an ensemble that knows all that the student knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from mtbkd.app.recipes.base import Task
from mtbkd.app.run.others import of_examples
from mtbkd.app.run.scoring import SCORINGS
from mtbkd.app.run.scoring_shared import Rival, unit_of
from mtbkd.distillation.posterior import Posterior
from mtbkd.metrics import (
    bootstrap_error,
    crps_of_draws,
    mean_with_error,
    selective_risk,
    wrong_auroc,
)
from mtbkd.predictive import Answer, NumberPredictive
from mtbkd.types import Bools, Floats

Compared = dict[str, float]
_Measure = Callable[[Floats, Bools], float | None]


def judge_against(
    task: Task, posterior: Posterior, answer: Answer, rival: Rival, beside: dict[str, Tensor]
) -> dict[str, Any]:
    """Compare the student with a rival on the test examples, and on inputs from elsewhere.

    Args:
        task: With the test examples and the others.
        posterior: The student.
        answer: What it says about the test examples.
        rival: The other one.
        beside: The student's uncertainty about the others, as `judge_others` gives it.

    Returns:
        ``temperature`` of the rival; and what is compared, each with the scores of ``student`` and
        ``rival``, their ``difference``, and its standard ``error`` over test examples: ``nll`` in
        nats; of numbers ``crps``; of the other families ``error_auroc`` of total uncertainty for
        wrong answers, and ``selective_risk``; and ``others`` by name, the AUROC of total
        uncertainty for inputs from there. What cannot be told is left out.
    """
    test, scoring, units = task.test, SCORINGS[task.test.family], posterior.units
    labels = test.labels.numpy()
    other = scoring.predicted(rival, test.inputs, units)
    own: Any
    if isinstance(answer, NumberPredictive):
        own = scoring.predicted(Rival(posterior.student, posterior.samples), test.inputs, units)
    else:
        own = answer.probs
    found: dict[str, Any] = {
        "nll": _means(*(scoring.losses(one, labels) for one in (own, other))),
    }
    if isinstance(answer, NumberPredictive):
        found["crps"] = _means(*(_crps(one, labels, unit_of(units)) for one in (own, other)))
    wrong, its_wrong = scoring.wrong(own, labels), scoring.wrong(other, labels)
    if wrong is not None and its_wrong is not None:
        errors = wrong, its_wrong
        doubts = answer.total.reshape(wrong.shape), scoring.doubts(other, units)
        found["error_auroc"] = _compared(wrong_auroc, doubts, errors)
        found["selective_risk"] = _compared(selective_risk, doubts, errors)
    usual = of_examples(answer, unit_of(units))["total"], scoring.doubts(other, units).sum(1)
    others = {}
    for name, elsewhere in task.others.items():
        its = scoring.doubts(scoring.predicted(rival, elsewhere.inputs, units), units).sum(1)
        unusual = beside[f"other.{name}.total"].numpy(), its
        totals = tuple(np.concatenate(pair) for pair in zip(usual, unusual, strict=True))
        which = np.repeat([0.0, 1.0], [len(test), len(elsewhere)])
        others[name] = _compared(wrong_auroc, totals, (which, which))
    known = {name: one for name, one in found.items() if one is not None}
    return {"temperature": rival.temperature, **known, "others": others}


def _crps(draws: tuple[Floats, Floats], labels: Floats, unit: Floats | None) -> Floats:
    """The loss of each number, in the target's unit."""
    means, sds, labels = (part if unit is None else part / unit for part in (*draws, labels))
    return crps_of_draws(means, sds, labels)


def _means(own: Floats, other: Floats) -> Compared | None:
    """Mean losses of both, each (example, column), and a paired standard error."""
    known = ~np.isnan(own)
    if not known.any():
        return None
    difference, error = mean_with_error(own - other, known)
    return {
        "student": float(own[known].mean()),
        "rival": float(other[known].mean()),
        "difference": difference,
        "error": error,
    }


def _compared(
    measure: _Measure, doubts: tuple[Floats, ...], errors: tuple[Floats, Floats]
) -> Compared | None:
    """How well uncertainties, (example, ...), go with errors, NaN where unknown; a paired error."""

    def at(rows: Any) -> tuple[float | None, ...]:
        scores = []
        for doubt, wrong in zip(doubts, errors, strict=True):
            known = ~np.isnan(wrong[rows])
            scores.append(measure(doubt[rows][known], wrong[rows][known] == 1))
        return tuple(scores)

    def gap(rows: Any) -> float | None:
        own, other = at(rows)
        return None if own is None or other is None else own - other

    own, other = at(slice(None))
    if own is None or other is None:
        return None
    error = bootstrap_error(gap, len(errors[0]))
    if np.isnan(error):
        return None
    return {"student": own, "rival": other, "difference": own - other, "error": error}
