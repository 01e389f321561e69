"""What a run's chains say: their scores, their traces, and whether they agree."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mtbkd.app.recipes.base import Task
from mtbkd.data import Dataset
from mtbkd.distillation.distill import Posterior
from mtbkd.inference.diagnostics import Diagnostics, diagnose
from mtbkd.inference.engines import METHODS
from mtbkd.observation import OBSERVATIONS
from mtbkd.predictive import draw_outputs, mixture

_PROBES = 50  # test examples whose log-probabilities are the functions of R-hat and ESS


def chain_values(posterior: Posterior, task: Task) -> dict[str, NDArray[np.float64]]:
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


def diagnose_chains(posterior: Posterior, functions: NDArray[np.float64]) -> Diagnostics:
    """Whether chains agree on these functions of them, (chain, draw, function), and have moved."""
    student = posterior.student
    last = posterior.samples.segments[-1][:, -1].to(student.prior_mean.device)
    moved = (student.standardised(last) - posterior.modes).square().mean(1).sqrt()
    statistics = {name: np.array(values) for name, values in posterior.statistics.items()}
    engine = posterior.plan.engine
    approximation = engine if METHODS[engine].independent else None
    return diagnose(
        functions, moved.double().cpu().numpy(), statistics, approximation=approximation
    )


def known_number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else value


def diagnostic_numbers(diagnostics: Diagnostics, posterior: Posterior) -> dict[str, Any]:
    """Diagnostics and what was adapted and chosen, as ``metrics.json`` holds them."""
    return {
        **{
            name: known_number(getattr(diagnostics, name))
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
