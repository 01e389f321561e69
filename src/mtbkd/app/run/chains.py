"""What a run's chains say: their scores, their traces, and whether they agree."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from mtbkd.app.recipes.base import Task
from mtbkd.app.run.scoring import SCORINGS
from mtbkd.data import Dataset
from mtbkd.distillation.posterior import Posterior
from mtbkd.inference.diagnostics import Diagnostics, diagnose
from mtbkd.inference.engines import METHODS
from mtbkd.predictive import draw_outputs
from mtbkd.types import Floats

_PROBES = 50  # test examples whose log-probabilities are the functions of R-hat and ESS


def chain_values(posterior: Posterior, task: Task) -> dict[str, Floats]:
    """Each chain's score, log score by draw, and the functions that diagnostics look at.

    ``functions`` are log-probabilities of classes, else the student's outputs, on a few test
    examples; ``chain_accuracy`` is the share of classes or labels that are right, or
    ``chain_rmse`` the error of numbers; ``trace`` the log score on calibration examples in nats.
    """
    test, outcome = task.test, task.test.outcome
    means, functions, left = [], [], _PROBES
    for outputs in draw_outputs(posterior.student, posterior.samples, test.inputs):
        if left > 0:
            functions.append(outcome.traced(outputs[:, :, :left]).cpu())
            left -= functions[-1].shape[2]
        means.append(outcome.point(outputs, posterior.units).mean(1).cpu())
    return {
        "functions": torch.cat(functions, 2).flatten(2).double().numpy(),
        "trace": _trace(posterior, task.calibration),
        **SCORINGS[test.family].chains(torch.cat(means, 1), test.labels),
    }


def _trace(posterior: Posterior, data: Dataset) -> Floats:
    """Mean log score of each draw on labelled examples, shape (chain, draw)."""
    observation = data.outcome.observe(len(data.classes))
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


def diagnose_chains(posterior: Posterior, functions: Floats) -> Diagnostics:
    """Whether chains agree on these functions of them, (chain, draw, function), and have moved."""
    student = posterior.student
    last = posterior.samples.segments[-1][:, -1].to(student.prior_mean.device)
    moved = (student.standardised(last) - posterior.modes).square().mean(1).sqrt()
    statistics = {name: np.array(values) for name, values in posterior.statistics.items()}
    engine = posterior.plan.engine
    approximation = engine if METHODS[engine].independent else None
    found = diagnose(
        functions, moved.double().cpu().numpy(), statistics, approximation=approximation
    )
    if posterior.choice is None:
        return found
    return replace(found, warnings=(*found.warnings, posterior.choice.reason))


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
        "power": float(posterior.prior.power),
        "weights": posterior.weighting.rule,
        "temperature": posterior.student.temperature,
        **({} if posterior.choice is None else {"engine_choice": asdict(posterior.choice)}),
        "warnings": list(diagnostics.warnings),
    }
