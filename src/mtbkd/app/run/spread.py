"""Is the student unsure where the truth itself is spread, as people's votes measure it?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scipy.stats import spearmanr

from mtbkd.app.recipes.base import Task
from mtbkd.app.report.families import SPREAD
from mtbkd.app.run.others import of_examples
from mtbkd.app.run.scoring import SCORINGS
from mtbkd.app.run.scoring_shared import Rival, unit_of
from mtbkd.distillation.posterior import Posterior
from mtbkd.predictive import Answer
from mtbkd.types import Floats


def add_spread(
    metrics: dict[str, Any],
    task: Task,
    posterior: Posterior,
    answer: Answer,
    rivals: Mapping[str, Rival],
) -> None:
    """Add to everybody's scores the correlation of total uncertainty with the truth's own spread.

    It is Spearman's over the test examples: 1 where the student's order of examples by total
    uncertainty is that by what was measured, as people's disagreement is by their votes.

    Args:
        metrics: Scores of the student and of the baselines, which are added to.
        task: With the spread of each test example; nothing is added if it was not measured.
        posterior: The student.
        answer: What it says about the test examples.
        rivals: Baselines by name.
    """
    if task.spread is None:
        return
    units, scoring = posterior.units, SCORINGS[task.test.family]
    own = of_examples(answer, unit_of(units))["total"]
    metrics["student"][SPREAD] = rank_correlation(own, task.spread)
    for name, rival in rivals.items():
        answers = scoring.predicted(rival, task.test.inputs, units)
        doubts = scoring.doubts(answers, units).sum(1)
        metrics["baselines"][name][SPREAD] = rank_correlation(doubts, task.spread)


def rank_correlation(first: Floats, second: Floats) -> float:
    """Spearman's, ties sharing their mean rank.

    Example:
        >>> import numpy as np
        >>> rank_correlation(np.array([0.1, 0.5, 0.9]), np.array([1.0, 4.0, 16.0]))
        1.0
    """
    found: Any = spearmanr(first, second)
    return float(round(found.statistic, 12))
