"""How well the student does on the examples of each source, such as a hospital or a language."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mtbkd.app.recipes.base import Task
from mtbkd.app.run.scoring import SCORINGS
from mtbkd.distillation.posterior import Posterior
from mtbkd.explain.causes import OUTSIDE, Causes
from mtbkd.observation.answers import rows_of
from mtbkd.predictive import Answer
from mtbkd.types import Ints


def scores_by_source(
    task: Task, posterior: Posterior, answer: Answer, causes: Causes
) -> dict[str, dict[str, Any]]:
    """The student's scores on the test examples of each source.

    Args:
        task: Its sources are known.
        posterior: The student.
        answer: What it says about the test examples.
        causes: Why its answers there are uncertain.

    Returns:
        By name of the source, sorted: the scores of the family, ``n`` examples, and ``outside``,
        the share of them that is flagged as outside what was trained on.
    """
    if task.sources is None:
        return {}
    names, found = np.array(task.sources.test), {}
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        some = task.test.subset(rows)
        if not some.n_labelled:
            continue
        own = _at(causes, rows)
        scores = SCORINGS[some.family].student(posterior, rows_of(answer, rows), own, some)
        share = own.flags.count(OUTSIDE) / len(rows)
        found[str(name)] = {"n": len(rows)} | scores | {"outside": share}
    return found


def _at(causes: Causes, rows: Ints) -> Causes:
    """The causes of some of the examples."""
    parts = {name: part[rows] for name, part in vars(causes).items() if hasattr(part, "shape")}
    return replace(causes, flags=tuple(causes.flags[row] for row in rows), **parts)
