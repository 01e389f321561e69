"""Judges a run on its test set: predictions, metrics, and what the report shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtbkd.config import RunConfig
from mtbkd.data import Dataset
from mtbkd.diagnostics import Diagnostics, diagnose
from mtbkd.distill import Posterior
from mtbkd.inference.engines import METHODS
from mtbkd.influence import by_class, disagreement, responsibilities
from mtbkd.learning import training_set
from mtbkd.metrics import coverage, error_auroc, exact_coverage, scores
from mtbkd.outputs import TeacherOutputs
from mtbkd.predictive import Predictive, draw_probs
from mtbkd.prior import mixture_terms
from mtbkd.recipes.base import Task
from mtbkd.samples import save_json, save_tensors
from mtbkd.tables import prediction_table, write_table
from mtbkd.weights import pool_log_probs

_PROBES = 50  # test examples whose log-probabilities are the functions of R-hat and ESS


def evaluate(
    config: RunConfig,
    task: Task,
    teachers: TeacherOutputs,
    costs: dict[str, dict[str, float]],
    posterior: Posterior,
    baseline_probs: dict[str, Tensor],
    out: Path,
    milliseconds: float,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Write ``predictions.parquet``, ``evaluation.safetensors`` and ``metrics.json``.

    Returns:
        The content of ``metrics.json``.
    """
    test, labels = task.test, task.test.labels.numpy()
    predictive = posterior.predict(
        test.inputs, level=config.predict.level, point=config.predict.point
    )
    outputs = teachers.at(test.ids)
    log_probs, log_weights = posterior.weighting.apply(outputs.values, outputs.mask)
    pool = pool_log_probs(log_weights, log_probs).exp().double().numpy()
    weights, taught, probs = _shares(posterior, task.train, teachers)
    _, split, _ = _shares(posterior, test, teachers)
    quarrel = disagreement(log_weights, log_probs).double().numpy()
    chains = _chain_values(posterior, test.inputs, task.calibration.inputs, task)
    diagnostics = _diagnose(posterior, chains["functions"])
    extra: dict[str, NDArray[np.generic]] = {
        "label": np.array([test.classes[i] for i in labels]),
        "teacher_disagreement": quarrel,
    }
    extra |= {f"responsibility.{n}": split[k].numpy() for k, n in enumerate(teachers.names)}
    table = prediction_table(test.ids, test.classes, predictive, extra)
    write_table(out / "predictions.parquet", table)
    save_tensors(
        out / "evaluation.safetensors",
        {
            "pool": torch.from_numpy(pool),
            "trace": torch.from_numpy(chains["trace"]),
            "chain_accuracy": torch.from_numpy(chains["accuracy"]),
            "weights_by_class": by_class(weights, probs).double(),
            "responsibilities_by_class": by_class(taught, probs).double(),
        },
    )
    names = {n: np.exp(outputs.values[k].double().numpy()) for k, n in enumerate(teachers.names)}
    metrics = {
        "task": task.name,
        "seed": config.seed,
        "n_train": len(task.train),
        "n_labelled": task.train.n_labelled,
        "n_test": len(test),
        "teachers": {n: scores(p, labels) for n, p in names.items()},
        "teacher_pool": scores(pool, labels),
        "baselines": {n: scores(p.numpy(), labels) for n, p in baseline_probs.items()},
        "student": _student_scores(predictive, labels),
        "diagnostics": _diagnostic_numbers(diagnostics, posterior),
        "cost": _costs(posterior, costs, milliseconds, seconds),
    }
    save_json(out / "metrics.json", metrics)
    return metrics


def _student_scores(predictive: Predictive, labels: NDArray[np.int64]) -> dict[str, float | None]:
    sets = predictive.credible_set(0.9)
    return {
        **scores(predictive.probs, labels),
        "coverage_90": coverage(sets, labels),
        "coverage_90_exact": exact_coverage(predictive.probs, labels, 0.9),
        "mass_90": float((predictive.probs * sets).sum(1).mean()),
        "set_size_90": float(sets.sum(1).mean()),
        "error_auroc": error_auroc(predictive.probs, predictive.total, labels),
    }


def _shares(
    posterior: Posterior, data: Dataset, teachers: TeacherOutputs
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights and responsibilities (teacher, example), and the student's probabilities there."""
    student, prior = posterior.student, posterior.prior
    known = training_set(student, data, teachers, posterior.weighting)
    terms = mixture_terms(known.log_probs, known.log_weights, prior.concentration, prior.softening)
    shares, probs = responsibilities(
        student,
        posterior.samples,
        known.features,
        terms,
        student_softening=prior.strength.student_softening,
    )
    return known.log_weights.exp().cpu(), shares.cpu(), probs.cpu()


def _chain_values(
    posterior: Posterior, inputs: Tensor, probe_inputs: Tensor, task: Task
) -> dict[str, NDArray[np.float64]]:
    """Accuracy by chain, log score by draw, and the functions that diagnostics look at."""
    labels = task.test.labels
    hits, functions = [], []
    for probs in draw_probs(posterior.student, posterior.samples, inputs):
        hits.append(probs.mean(1).argmax(-1).cpu())
        functions.append(probs[:, :, : max(0, _PROBES - sum(f.shape[2] for f in functions))].cpu())
    probes = torch.cat(functions, 2).clamp_min(1e-12).log().flatten(2)
    picked = [
        probs.cpu() for probs in draw_probs(posterior.student, posterior.samples, probe_inputs)
    ]
    known = task.calibration.labels
    at = known.clamp_min(0)[None, None, :, None]
    score = torch.cat(picked, 2)
    score = score.gather(3, at.expand(*score.shape[:2], -1, 1)).clamp_min(1e-12).log()[..., 0]
    return {
        "accuracy": (torch.cat(hits, 1) == labels).double().mean(1).numpy(),
        "functions": probes.double().numpy(),
        "trace": score[:, :, known >= 0].double().mean(-1).numpy(),
    }


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
