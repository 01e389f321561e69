"""Judges a run on its test set: predictions, metrics, and what the report shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Costs, Task
from mtbkd.app.run.against import judge_against
from mtbkd.app.run.baselines import rival_name, stages_of
from mtbkd.app.run.by_source import scores_by_source
from mtbkd.app.run.calibration import calibrated, on_calibration
from mtbkd.app.run.chains import chain_values, diagnose_chains, diagnostic_numbers, known_number
from mtbkd.app.run.costs import cpu_seconds, training_seconds
from mtbkd.app.run.few import keep_few
from mtbkd.app.run.others import judge_others
from mtbkd.app.run.scoring import SCORINGS, pool_of, pool_scores, teacher_scores
from mtbkd.app.run.scoring_shared import Rival
from mtbkd.app.run.spread import add_spread
from mtbkd.app.run.thresholds import add_thresholds
from mtbkd.app.tables import prediction_table, write_table
from mtbkd.data import Dataset
from mtbkd.distillation.posterior import Posterior
from mtbkd.explain.causes import FLAGS, Causes, find_causes
from mtbkd.explain.influence import responsibilities
from mtbkd.explain.outside import see
from mtbkd.files import save_json, save_tensors
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.predictive import Answer, LabelPredictive
from mtbkd.training import training_set
from mtbkd.weights.rules import Stacked

_POINTS = 1000  # examples that are drawn by where they lie


class Spent(NamedTuple):
    """What a run has cost.

    Attributes:
        teachers: As in `Costs`.
        milliseconds: Wall-clock time of a prediction for one example.
        seconds: Wall-clock time by stage.
    """

    teachers: Costs
    milliseconds: float
    seconds: dict[str, float]


def evaluate(
    config: RunConfig,
    task: Task,
    teachers: TeacherOutputs,
    posterior: Posterior,
    rivals: dict[str, Rival],
    spent: Spent,
    out: Path,
) -> dict[str, Any]:
    """Write ``predictions.parquet``, ``evaluation.safetensors`` and ``metrics.json``.

    Args:
        config: How predictions are made.
        task: Its test examples are what everybody is judged on.
        teachers: What they say on all examples.
        posterior: The student.
        rivals: Baselines by name.
        spent: Costs, of which the metrics tell.
        out: The run directory.

    Returns:
        The content of ``metrics.json``.
    """
    test, scoring = task.test, SCORINGS[task.test.family]
    posterior, background = calibrated(config, task, teachers, posterior, out)
    predictive = posterior.predict(
        test.inputs, level=config.predict.level, point=config.predict.point
    )
    features = posterior.student.features(test.inputs)
    causes = find_causes(background, see(posterior, features), predictive)
    few = keep_few(posterior, task.train.inputs, out).samples
    outputs = teachers.at(test.ids)
    pool = pool_of(outputs, posterior.weighting, posterior.units, test.inputs)
    weights, taught, probs = _shares(posterior, task.train, teachers)
    _, split, _ = _shares(posterior, test, teachers)
    chains = chain_values(posterior, task)
    diagnostics = diagnose_chains(posterior, chains.pop("functions"))
    told_apart, beside = judge_others(config, task, posterior, predictive)
    table = prediction_table(
        test.ids,
        test.classes,
        predictive,
        causes,
        scoring.columns(test, pool["disagreement"], dict(zip(teachers.names, split, strict=True))),
    )
    write_table(out / "predictions.parquet", table)
    save_tensors(
        out / "evaluation.safetensors",
        {
            **{name: torch.from_numpy(value) for name, value in chains.items()},
            **scoring.shown(posterior, predictive, test, pool),
            **beside,
            **_trust(posterior.weighting.stacked, features, split),
            "weights_by_class": scoring.by_column(weights, probs),
            "responsibilities_by_class": scoring.by_column(taught, probs),
        },
    )
    metrics = {
        "task": task.name,
        "family": test.family,
        "seed": config.seed,
        "n_train": len(task.train),
        "n_labelled": task.train.n_labelled,
        "n_test": len(test),
        "teachers": teacher_scores(outputs, test.labels, posterior.units),
        "teacher_pool": pool_scores(outputs, pool, test.labels, posterior.units),
        "baselines": {
            name: scoring.draws(rival, test, posterior.units) for name, rival in rivals.items()
        },
        "student": scoring.student(posterior, predictive, causes, test) | told_apart,
        "few": {"draws": few.n_chains * few.n_draws}
        | scoring.draws(Rival(posterior.student, few), test, posterior.units),
        "flags": _flags(causes, predictive, test),
        "diagnostics": diagnostic_numbers(diagnostics, posterior),
        "cost": _costs(posterior, spent)
        | {"cpu_seconds": cpu_seconds(training_seconds(out), {n: stages_of(n) for n in rivals})},
    }
    if task.sources is not None:
        metrics["by_source"] = scores_by_source(task, posterior, predictive, causes)
    add_spread(metrics, task, posterior, predictive, rivals)
    name = rival_name(posterior.weighting)
    if name in rivals:
        against = judge_against(task, posterior, predictive, rivals[name], beside)
        metrics["rival"] = {"name": name, **against}
    if isinstance(predictive, LabelPredictive):
        calibrating, _ = on_calibration(config, task, teachers, posterior, out)
        if isinstance(calibrating, LabelPredictive):
            add_thresholds(metrics, task, teachers, posterior, rivals, predictive, calibrating)
    save_json(out / "metrics.json", metrics)
    return metrics


def _flags(causes: Causes, predictive: Answer, test: Dataset) -> dict[str, dict[str, float | None]]:
    """How many answers have each flag, and which share of them is right as a whole."""
    right = SCORINGS[test.family].right(predictive, causes, test.labels.numpy())
    flags, found = np.array(causes.flags), {}
    for name in ("", *FLAGS):
        rows = flags == name
        if rows.any():
            found[name or "none"] = {
                "n": int(rows.sum()),
                "right": known_number(float(right[rows].mean())),
                "expected": known_number(float(causes.reliable[rows].mean())),
            }
    return found


def _shares(
    posterior: Posterior, data: Dataset, teachers: TeacherOutputs
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights and responsibilities of all teachers, and the student's mean outputs there."""
    student, units = posterior.student, posterior.units
    unlabelled = data.without_labels(range(len(data)))
    known = training_set(student, unlabelled, teachers, posterior.weighting, units=units)
    shares, means = responsibilities(student, posterior.samples, known, posterior.prior)
    return known.log_weights.exp().cpu(), shares.cpu(), means.cpu()


def _trust(stacked: Stacked | None, features: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """What the report shows of stacked weights: where, and on which answers, a teacher counts."""
    if stacked is None:
        return {}
    every = -(-len(features) // _POINTS)
    shown = weights[:, ::every]
    found = {"trust.weights": shown.reshape(*shown.shape[:2], -1).mean(2)}
    if stacked.directions is not None:
        place = stacked.directions.place(features[::every]).cpu()[:, :2]
        found["trust.place"] = pad(place, (0, 2 - place.shape[1])).contiguous()
    if stacked.by_class is not None:
        found["trust.by_class"] = stacked.by_class.mean(0).cpu()
    return found


def _costs(posterior: Posterior, spent: Spent) -> dict[str, Any]:
    costs = spent.teachers
    return {
        "seconds": spent.seconds,
        "student_parameters": posterior.student.n_parameters,
        "ms_per_example": {
            **{n: c["ms_per_example"] for n, c in costs.items() if "ms_per_example" in c},
            "student": spent.milliseconds,
        },
        "parameters": {n: int(c["parameters"]) for n, c in costs.items() if "parameters" in c},
    }
