"""Inputs beside the test set: is the student less sure of them?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Task
from mtbkd.app.run.scoring_shared import unit_of
from mtbkd.distillation.posterior import Posterior
from mtbkd.metrics import wrong_auroc
from mtbkd.predictive import Answer, NumberPredictive, Predictive
from mtbkd.types import Floats

PARTS = ("total", "aleatoric", "epistemic")


def judge_others(
    config: RunConfig, task: Task, posterior: Posterior, predictive: Answer
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Uncertainty of the task's other inputs, and how well it tells them from test examples.

    Args:
        config: How predictions are made.
        task: Its ``others`` are predicted.
        posterior: The student.
        predictive: What it says about the test examples.

    Returns:
        ``{"others": {name: {"n", "auroc_total", "auroc_aleatoric", "auroc_epistemic"}}}``, for
        classes also "auroc_second", by the belief in a second class; and
        ``other.NAME.total`` and so on, each of shape (example,) and as in `of_examples`; both empty
        if there are no other inputs. The AUROC is the chance that one of them is more uncertain
        than a test example.
    """
    if not task.others:
        return {}, {}
    unit = unit_of(posterior.units)
    usual = of_examples(predictive, unit)
    numbers, stored = {}, {}
    for name, other in task.others.items():
        answer = posterior.predict(
            other.inputs, level=config.predict.level, point=config.predict.point
        )
        unusual = of_examples(answer, unit)
        numbers[name] = {"n": len(other)} | {
            f"auroc_{part}": told_apart(usual[part], unusual[part]) for part in usual
        }
        stored |= {f"other.{name}.{part}": torch.from_numpy(unusual[part]) for part in usual}
    return {"others": numbers}, stored


def of_examples(answer: Answer, unit: Floats | None) -> dict[str, Floats]:
    """Total, aleatoric and epistemic uncertainty, and of classes ``second``, each (example,).

    Of classes in nats; of several labels the sum over them, in nats; of numbers the sum of the
    variances of targets.

    Args:
        answer: The student's answer.
        unit: What each target is counted in, shape (target,); 1 if not given.
    """
    parts = {name: np.asarray(getattr(answer, name), dtype=np.float64) for name in PARTS}
    if isinstance(answer, NumberPredictive) and unit is not None:
        parts = {name: values / np.square(unit) for name, values in parts.items()}
    if isinstance(answer, Predictive):
        parts["second"] = np.asarray(answer.second, dtype=np.float64)
    return {n: np.ascontiguousarray(v if v.ndim == 1 else v.sum(1)) for n, v in parts.items()}


def told_apart(usual: Floats, unusual: Floats) -> float | None:
    """Area under the ROC curve of an uncertainty as a detector of unusual examples.

    Args:
        usual: Uncertainty of the usual examples, shape (example,).
        unusual: That of the others.

    Returns:
        The chance that an unusual example is more uncertain than a usual one, ties counted half;
        None if there are none of either.

    Example:
        >>> told_apart(np.array([0.1, 0.3]), np.array([0.2, 0.9]))
        0.75
    """
    which = np.repeat([False, True], [len(usual), len(unusual)])
    return wrong_auroc(np.concatenate([usual, unusual]), which)
