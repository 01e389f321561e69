"""Judges a run on its test set: predictions, metrics, and what the report shows."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtbkd.causes import FLAGS, Causes, find_causes
from mtbkd.config import RunConfig
from mtbkd.conformal import whole_coverage
from mtbkd.data import Dataset
from mtbkd.diagnostics import Diagnostics, diagnose
from mtbkd.distill import Posterior
from mtbkd.inference.engines import METHODS
from mtbkd.influence import by_class, responsibilities
from mtbkd.metrics import (
    coverage,
    error_auroc,
    exact_coverage,
    mixture_log_density,
    pit,
    scores,
    wrong_auroc,
)
from mtbkd.observation import OBSERVATIONS
from mtbkd.outputs import TeacherOutputs
from mtbkd.predictive import Answer, LabelPredictive, Predictive, draw_outputs, mixture
from mtbkd.recipes import stages
from mtbkd.recipes.base import Task
from mtbkd.recipes.others import judge_others
from mtbkd.recipes.scoring import (
    draw_scores,
    draws_of_numbers,
    pool_of,
    pool_scores,
    teacher_scores,
    unit_of,
)
from mtbkd.recipes.stages import Rival
from mtbkd.recipes.thresholds import add_thresholds
from mtbkd.samples import save_json, save_tensors
from mtbkd.tables import prediction_table, write_table
from mtbkd.types import Family
from mtbkd.weighing import training_set

_PROBES = 50  # test examples whose log-probabilities are the functions of R-hat and ESS


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
    chains = _chain_values(posterior, task)
    diagnostics = _diagnose(posterior, chains.pop("functions"))
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
        "diagnostics": _diagnostic_numbers(diagnostics, posterior),
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
                "right": _known(float(right[rows].mean())),
                "expected": _known(float(causes.reliable[rows].mean())),
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


def _chain_values(posterior: Posterior, task: Task) -> dict[str, NDArray[np.float64]]:
    """Each chain's score, log score by draw, and the functions that diagnostics look at.

    ``functions`` are log-probabilities of classes, else the student's outputs, on a few test
    examples; ``chain_accuracy`` is the share of classes or labels that are right, or
    ``chain_rmse`` the error of numbers; ``trace`` the log score on calibration examples in nats.
    """
    test, family, units = task.test, task.test.family, posterior.units
    means, functions = [], []
    for outputs in draw_outputs(posterior.student, posterior.samples, test.inputs):
        answers = torch.softmax(outputs, -1) if family == "classification" else outputs
        left = max(0, _PROBES - sum(f.shape[2] for f in functions))
        if left:
            some = answers[:, :, :left].cpu()
            functions.append(some.clamp_min(1e-12).log() if family == "classification" else some)
        if family == "multilabel":
            answers = torch.sigmoid(answers)
        elif family == "regression":
            answers = mixture(answers, units)[0]
        means.append(answers.mean(1).cpu())
    mean = torch.cat(means, 1)  # (chain, example, column)
    if family == "regression":
        off = (mean - test.labels).square().nanmean((1, 2)).sqrt()
        chains = {"chain_rmse": off.double().numpy()}
    else:
        if family == "multilabel":
            right = ((mean >= 0.5) == (test.labels == 1)).double()
            right = torch.where(test.labels.isnan(), torch.nan, right)
        else:
            right = (mean.argmax(-1) == test.labels).double()
        chains = {"chain_accuracy": right.flatten(1).nanmean(1).numpy()}
    return {
        "functions": torch.cat(functions, 2).flatten(2).double().numpy(),
        "trace": _trace(posterior, task.calibration),
        **chains,
    }


def _trace(posterior: Posterior, data: Dataset) -> NDArray[np.float64]:
    """Mean log score of each draw on labelled examples, shape (chain, draw)."""
    observation = OBSERVATIONS[data.family]
    known, units = data.known, posterior.units
    labels = data.labels[known] if units is None else units.labels(data.labels[known])
    total, start = 0.0, 0
    for outputs in draw_outputs(posterior.student, posterior.samples, data.inputs[known]):
        own = labels[start : start + outputs.shape[2]].to(outputs.device)
        start += len(own)
        own = own.expand(*outputs.shape[:2], *own.shape)
        each = observation.log_likelihood(outputs.double(), own)
        total = total + each.clamp_min(math.log(1e-12)).sum(-1).cpu()
    return (torch.as_tensor(total) / len(labels)).numpy()


def _diagnose(posterior: Posterior, functions: NDArray[np.float64]) -> Diagnostics:
    student = posterior.student
    last = posterior.samples.segments[-1][:, -1].to(student.prior_mean.device)
    moved = (student.standardised(last) - posterior.modes).square().mean(1).sqrt()
    statistics = {name: np.array(values) for name, values in posterior.statistics.items()}
    engine = posterior.plan.engine
    approximation = engine if METHODS[engine].independent else None
    return diagnose(
        functions, moved.double().cpu().numpy(), statistics, approximation=approximation
    )


def _known(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else value


def _diagnostic_numbers(diagnostics: Diagnostics, posterior: Posterior) -> dict[str, Any]:
    return {
        **{
            name: _known(getattr(diagnostics, name))
            for name in ("rhat_median", "rhat_95", "ess_median", "ess_5")
        },
        "distance_moved": list(diagnostics.distance_moved),
        **posterior.statistics,
        "engine": posterior.plan.engine,
        "engine_reason": posterior.plan.reason,
        "concentration": posterior.prior.concentration,
        "power": float(posterior.prior.strength.power),
        "weights": posterior.weighting.rule,
        "warnings": list(diagnostics.warnings),
    }


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
