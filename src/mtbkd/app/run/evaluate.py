"""Judges a run on its test set: predictions, metrics, and what the report shows."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Task
from mtbkd.app.run import stages
from mtbkd.app.run.chains import chain_values, diagnose_chains, diagnostic_numbers, known_number
from mtbkd.app.run.others import judge_others
from mtbkd.app.run.scoring import (
    draw_scores,
    draws_of_numbers,
    pool_of,
    pool_scores,
    teacher_scores,
    unit_of,
)
from mtbkd.app.run.stages import Rival
from mtbkd.app.run.thresholds import add_thresholds
from mtbkd.app.tables import prediction_table, write_table
from mtbkd.data import Dataset
from mtbkd.distillation.distill import Posterior
from mtbkd.explain.causes import FLAGS, Causes, find_causes
from mtbkd.explain.conformal import whole_coverage
from mtbkd.explain.influence import by_class, responsibilities
from mtbkd.files import save_json, save_tensors
from mtbkd.metrics import (
    coverage,
    error_auroc,
    exact_coverage,
    mixture_log_density,
    pit,
    scores,
    wrong_auroc,
)
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.predictive import Answer, LabelPredictive, Predictive
from mtbkd.training import training_set
from mtbkd.types import Family


def evaluate(
    config: RunConfig,
    task: Task,
    teachers: TeacherOutputs,
    costs: dict[str, dict[str, float]],
    posterior: Posterior,
    rivals: dict[str, Rival],
    out: Path,
    milliseconds: float,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Write ``predictions.parquet``, ``evaluation.safetensors`` and ``metrics.json``.

    Returns:
        The content of ``metrics.json``.
    """
    test = task.test
    predictive = posterior.predict(
        test.inputs, level=config.predict.level, point=config.predict.point
    )
    background = stages.background(config, task, teachers, posterior, out)
    causes = find_causes(background, posterior.student.features(test.inputs), predictive)
    outputs = teachers.at(test.ids)
    pool, quarrel = pool_of(outputs, posterior.weighting, posterior.units)
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
        _more_columns(test, quarrel, split, teachers.names),
    )
    write_table(out / "predictions.parquet", table)
    save_tensors(
        out / "evaluation.safetensors",
        {
            **{name: torch.from_numpy(value) for name, value in chains.items()},
            **_shown(posterior, predictive, test, pool, quarrel),
            **beside,
            "weights_by_class": _by_column(weights, probs, test.family),
            "responsibilities_by_class": _by_column(taught, probs, test.family),
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
        "teacher_pool": pool_scores(pool, outputs.mask, test.labels, posterior.units),
        "baselines": {
            name: draw_scores(*rival, test.inputs, test.labels, test.family, posterior.units)
            for name, rival in rivals.items()
        },
        "student": _student_scores(posterior, predictive, causes, test) | told_apart,
        "flags": _flags(causes, predictive, test),
        "diagnostics": diagnostic_numbers(diagnostics, posterior),
        "cost": _costs(posterior, costs, milliseconds, seconds),
    }
    if isinstance(predictive, LabelPredictive):
        add_thresholds(metrics, task, teachers, posterior, rivals, predictive)
    save_json(out / "metrics.json", metrics)
    return metrics


def _shown(
    posterior: Posterior,
    predictive: Answer,
    test: Dataset,
    pool: dict[str, Tensor],
    quarrel: Tensor,
) -> dict[str, Tensor]:
    """What the report draws beside the table of predictions."""
    if isinstance(predictive, Predictive):
        return {"pool_probs": pool["probs"]}
    arrays = {k: v for k, v in asdict(predictive).items() if isinstance(v, np.ndarray)}
    arrays["epistemic"] = predictive.epistemic
    found = {name: torch.from_numpy(value) for name, value in arrays.items()}
    found["disagreement"] = quarrel
    if isinstance(predictive, LabelPredictive):
        return found | {"pool_probs": pool["probs"]}
    student, samples, units = posterior.student, posterior.samples, posterior.units
    draws = draws_of_numbers(student, samples, test.inputs, units)
    labels = test.labels.double().numpy()
    means, sds, weights = (pool[name].numpy() for name in ("means", "sds", "weights"))
    unit = unit_of(units)
    return found | {
        "log_density": torch.from_numpy(mixture_log_density(*draws, labels)),
        "pit": torch.from_numpy(pit(*draws, labels)),
        "pool_pit": torch.from_numpy(pit(means, sds, labels, weights)),
        "unit": torch.ones(len(test.classes)) if unit is None else torch.from_numpy(unit),
    }


def _more_columns(
    test: Dataset, quarrel: Tensor, shares: Tensor, names: tuple[str, ...]
) -> dict[str, NDArray[np.generic]]:
    """Labels, the teachers' disagreement, and each teacher's responsibility."""
    if test.family == "classification":
        extra: dict[str, NDArray[np.generic]] = {
            "label": np.array([test.classes[i] if i >= 0 else "" for i in test.labels.tolist()]),
            "teacher_disagreement": quarrel.numpy(),
        }
        return extra | {f"responsibility.{n}": shares[k].numpy() for k, n in enumerate(names)}
    extra = {f"label.{c}": test.labels[:, i].numpy() for i, c in enumerate(test.classes)}
    if test.family == "multilabel":
        extra["teacher_disagreement"] = quarrel.nan_to_num().sum(1).numpy()
    else:
        extra |= {
            f"teacher_disagreement.{c}": quarrel[:, i].sqrt().numpy()
            for i, c in enumerate(test.classes)
        }
    return extra | {f"responsibility.{n}": shares[k].mean(-1).numpy() for k, n in enumerate(names)}


def _by_column(shares: Tensor, probs: Tensor, family: Family) -> Tensor:
    """Mean shares in each class as the student sees it, or of each label or target."""
    return (by_class(shares, probs) if family == "classification" else shares.mean(1)).double()


def _student_scores(
    posterior: Posterior, predictive: Answer, causes: Causes, test: Dataset
) -> dict[str, float | None]:
    if not isinstance(predictive, Predictive):
        student, samples, units = posterior.student, posterior.samples, posterior.units
        found: dict[str, float | None] = {
            **draw_scores(student, samples, test.inputs, test.labels, test.family, units)
        }
        if isinstance(predictive, LabelPredictive) and causes.sets is not None:
            found["set_coverage"] = whole_coverage(causes.sets, test.labels.double().numpy())
            found["set_size"] = float(causes.sets.sum(1).mean())
            known = ~test.labels.isnan().numpy()
            wrong = (predictive.probs >= 0.5) != (test.labels.numpy() == 1)
            found["error_auroc"] = wrong_auroc(predictive.total[known], wrong[known])
        return found
    labels = test.labels.numpy()
    sets, calibrated = predictive.credible_set(0.9), causes.sets
    found = (
        {}
        if calibrated is None
        else {
            "set_coverage": coverage(calibrated, labels),
            "set_size": float(calibrated.sum(1).mean()),
        }
    )
    return found | {
        **scores(predictive.probs, labels),
        "coverage_90": coverage(sets, labels),
        "coverage_90_exact": exact_coverage(predictive.probs, labels, 0.9),
        "mass_90": float((predictive.probs * sets).sum(1).mean()),
        "set_size_90": float(sets.sum(1).mean()),
        "error_auroc": error_auroc(predictive.probs, predictive.total, labels),
    }


def _flags(causes: Causes, predictive: Answer, test: Dataset) -> dict[str, dict[str, float | None]]:
    """How many answers have each flag, and which share of them is right as a whole."""
    labels = test.labels.numpy()
    if isinstance(predictive, Predictive):
        right = predictive.probs.argmax(1) == labels
    elif causes.labels is not None:
        right = ((causes.labels == (labels == 1)) | np.isnan(labels)).all(1)
    else:
        right = np.full(len(labels), np.nan)
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
    known = training_set(student, data, teachers, posterior.weighting, units=units)
    shares, means = responsibilities(student, posterior.samples, known, posterior.prior)
    return known.log_weights.exp().cpu(), shares.cpu(), means.cpu()


def _costs(
    posterior: Posterior,
    costs: dict[str, dict[str, float]],
    milliseconds: float,
    seconds: dict[str, float],
) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "student_parameters": posterior.student.n_parameters,
        "ms_per_example": {
            **{n: c["ms_per_example"] for n, c in costs.items() if "ms_per_example" in c},
            "student": milliseconds,
        },
        "parameters": {n: int(c["parameters"]) for n, c in costs.items() if "parameters" in c},
    }
