"""Thresholds of several labels, chosen on calibration labels alike for everybody, and scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtbkd.app.recipes.base import Task
from mtbkd.app.run.scoring import pool_of
from mtbkd.app.run.scoring_shared import Rival, mean_probs
from mtbkd.data import Dataset
from mtbkd.distillation.posterior import Posterior
from mtbkd.metrics import best_thresholds, f1_by_label, label_ece, label_scores, mcc_by_label
from mtbkd.observation import BINARY
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.predictive import LabelPredictive
from mtbkd.types import Floats
from mtbkd.weights.rules import Weighting

_AT_THRESHOLDS = ("accuracy", "f1_micro", "f1_macro", "jaccard")


def add_thresholds(
    metrics: dict[str, Any],
    task: Task,
    teachers: TeacherOutputs,
    posterior: Posterior,
    rivals: Mapping[str, Rival],
    answer: LabelPredictive,
    calibrating: LabelPredictive,
) -> None:
    """Judge everybody with several labels at thresholds of their own as well.

    A threshold for each label is chosen on the calibration labels, alike for teachers, their pool,
    baselines and student (`mtbkd.metrics.best_thresholds`), on answers without these labels: the
    student's are cross-fitted, and a baseline's are from before it learned from them. Everybody's
    scores get ``tuned``, the scores that depend on thresholds at these, and ``by_label``: of each
    label ``f1``, ``mcc`` and ``threshold``, ``f1_at_half`` and ``mcc_at_half``, ``ece`` and the
    number of yes, ``n_yes``; of the student's also the means of ``total``, ``aleatoric`` and
    ``epistemic`` uncertainty in nats.

    Args:
        metrics: With ``teachers``, ``teacher_pool``, ``baselines`` and ``student``; changed.
        task: With the calibration and the test labels.
        teachers: On both.
        posterior: The student.
        rivals: Baselines.
        answer: The student's, on the test examples.
        calibrating: Its answers on the calibration examples, had it not learned from them.
    """
    held = {
        name: rival if rival.held is None else rival._replace(samples=rival.held)
        for name, rival in rivals.items()
    }
    chosen_on = _everyone(task.calibration, teachers, posterior, held, calibrating.probs)
    judged = _everyone(task.test, teachers, posterior, rivals, answer.probs)
    for path, probs in judged.items():
        place = metrics
        for key in path:
            place = place.get(key, {})
        if not place:  # a teacher that never speaks has no scores
            continue
        thresholds = best_thresholds(*_heard(chosen_on[path], task.calibration.labels))
        place |= _tuned(*_heard(probs, task.test.labels), thresholds, task.test.classes)
    for i, name in enumerate(task.test.classes):
        metrics["student"]["by_label"][name] |= {
            part: float(getattr(answer, part)[:, i].mean())
            for part in ("total", "aleatoric", "epistemic")
        }


def _everyone(
    data: Dataset,
    teachers: TeacherOutputs,
    posterior: Posterior,
    rivals: Mapping[str, Rival],
    own: Floats,
) -> dict[tuple[str, ...], Floats]:
    """Probabilities of yes by place in the metrics, NaN where nobody speaks; the student last."""
    outputs = teachers.at(data.ids)
    said = Weighting("uniform").apply(outputs.values.float(), outputs.mask, None, BINARY)
    values = BINARY.complete(said, None)[..., 1].exp().double()
    found: dict[tuple[str, ...], Floats] = {
        ("teachers", name): torch.where(outputs.mask[k], values[k], torch.nan).numpy()
        for k, name in enumerate(outputs.names)
    }
    pool = pool_of(outputs, posterior.weighting, None, data.inputs)["probs"]
    found["teacher_pool",] = torch.where(outputs.mask.any(0), pool, torch.nan).numpy()
    for name, rival in rivals.items():
        found["baselines", name] = mean_probs(rival, data.inputs, BINARY)
    found["student",] = own
    return found


def _heard(probs: Floats, labels: Tensor) -> tuple[Floats, Floats]:
    """Probabilities and labels, which count as unknown where nobody speaks."""
    known = np.where(np.isnan(probs), np.nan, labels.numpy())
    return np.nan_to_num(probs, nan=0.5), known


def _tuned(
    probs: Floats, labels: Floats, thresholds: Floats, names: tuple[str, ...]
) -> dict[str, Any]:
    """Scores at thresholds, and of each label at its own and at 0.5."""
    at_own = label_scores(probs, labels, thresholds)
    columns = {
        "f1": f1_by_label(probs, labels, thresholds),
        "mcc": mcc_by_label(probs, labels, thresholds),
        "threshold": thresholds,
        "f1_at_half": f1_by_label(probs, labels),
        "mcc_at_half": mcc_by_label(probs, labels),
        "ece": label_ece(probs, labels),
        "n_yes": (labels == 1).sum(0),
    }
    return {
        "tuned": {k: at_own[k] for k in _AT_THRESHOLDS},
        "by_label": {
            name: {
                k: None if np.isnan(column[i]) else column[i].item()
                for k, column in columns.items()
            }
            for i, name in enumerate(names)
        },
    }
