"""What each family answers, in operations that ONNX has; `Outcome.summarise` says the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtbkd.observation import Outcome
from mtbkd.observation.answers import marginal_mode
from mtbkd.observation.units import Units
from mtbkd.types import Family

_HALVINGS = 30
_LEAST, _RARE = 1e-300, 1e-12

Answers = dict[str, Tensor]
"""Fields of an answer by name, float64, each of shape (example, ...)."""


def classes(draws: Tensor, level: float, point: str, units: Units | None) -> Answers:
    """The fields of `Predictive`, from outputs of shape (draw, example, class)."""
    del units
    log_probs = torch.log_softmax(draws, -1)
    probs = log_probs.exp()
    mean = probs.double().mean(0)
    total = _entropy(mean).sum(-1)
    aleatoric = -(probs * log_probs).sum(-1).double().mean(0)
    lower, upper = quantiles(probs, level)
    return {
        "probs": mean if point == "mean" else marginal_mode(probs).double(),
        "total": total,
        "aleatoric": aleatoric,
        "epistemic": (total - aleatoric).clamp_min(0),
        "lower": lower.double(),
        "upper": upper.double(),
        "second": probs.topk(2, -1).values[..., 1].double().mean(0),
    }


def labels(draws: Tensor, level: float, point: str, units: Units | None) -> Answers:
    """The fields of `LabelPredictive`, from outputs of shape (draw, example, label)."""
    del point, units
    probs = torch.sigmoid(draws)
    mean = probs.double().mean(0)
    total = _entropy(mean) + _entropy(1 - mean)
    log_yes, log_no = (nn.functional.logsigmoid(sign * draws) for sign in (1, -1))
    aleatoric = -(probs * log_yes + torch.sigmoid(-draws) * log_no).double().mean(0)
    lower, upper = quantiles(probs, level)
    return {
        "probs": mean,
        "total": total,
        "aleatoric": aleatoric,
        "epistemic": (total - aleatoric).clamp_min(0),
        "lower": lower.double(),
        "upper": upper.double(),
    }


def numbers(draws: Tensor, level: float, point: str, units: Units | None) -> Answers:
    """The fields of `NumberPredictive`, from outputs of shape (draw, example, output).

    Ends of the interval of a new observation are found by bisection between those of the draws.
    """
    del point
    mean, log_variance = draws.double().chunk(2, -1)
    spread = (0.5 * log_variance).exp()
    lower, upper = (_mixture_quantile(mean, spread, (1 + s * level) / 2) for s in (-1, 1))
    mean_lower, mean_upper = quantiles(mean, level)
    shift = 0.0 if units is None else units.shift.double()
    scale = 1.0 if units is None else units.scale.double()
    aleatoric, centre = scale**2 * spread.square().mean(0), mean.mean(0)
    epistemic = scale**2 * (mean - centre).square().mean(0)
    places = {
        "mean": centre,
        "lower": lower,
        "upper": upper,
        "mean_lower": mean_lower,
        "mean_upper": mean_upper,
    }
    return {
        **{name: shift + scale * place for name, place in places.items()},
        "total": aleatoric + epistemic,
        "aleatoric": aleatoric,
        "epistemic": epistemic,
    }


ANSWERS: dict[Family, Callable[[Tensor, float, str, Units | None], Answers]] = {
    "classification": classes,
    "multilabel": labels,
    "regression": numbers,
}
"""By family: outputs under each draw, level, point and units to the fields of an answer."""


def quantiles(values: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Ends of the central interval of the draws, (draw, ...) to two of (...).

    As `mtbkd.observation.answers.quantiles`; only the outermost draws are ranked.
    """
    last = len(values) - 1
    at = (1 - level) / 2 * last
    below = math.floor(at)
    share, n = at - below, min(below + 2, last + 1)
    values = values.movedim(0, -1)  # where onnxruntime ranks faster
    outer = (values.topk(n, -1, largest=large).values for large in (False, True))
    ends = [end[..., below].lerp(end[..., n - 1], share) for end in outer]
    return ends[0], ends[1]


def nll(outcome: Outcome, found: Mapping[str, Any], labels: Any) -> float:
    """Mean negative log likelihood of known labels in nats, for each cell.

    A number's predictive is taken for a Gaussian of its mean and total variance.

    Args:
        outcome: What is predicted.
        found: Answers by name, each of shape (example, ...).
        labels: As in a data set, shape (example, ...).
    """
    if outcome.numeric:
        total = found["total"]
        each = 0.5 * (np.log(2 * np.pi * total) + np.square(labels - found["mean"]) / total)
        return float(np.nanmean(each))
    probs = np.clip(found["probs"], _RARE, None)
    if outcome.exclusive:
        known = labels >= 0
        return float(-np.log(probs[known, labels[known]]).mean())
    no = np.log(np.clip(1 - found["probs"], _RARE, None))
    return float(-np.nanmean(labels * np.log(probs) + (1 - labels) * no))


def _entropy(probs: Tensor) -> Tensor:
    """Each term of an entropy in nats."""
    return -probs * probs.clamp_min(_LEAST).log()


def _mixture_quantile(means: Tensor, spreads: Tensor, level: float) -> Tensor:
    """Where a mixture of Gaussians has this mass below it, (draw, ...) to (...)."""
    each = means + NormalDist().inv_cdf(level) * spreads
    low, high = each.amin(0), each.amax(0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        # onnxruntime has the error function of float32 alone
        below = torch.erf(((middle - means) / spreads * math.sqrt(0.5)).float()).double()
        above = 0.5 + 0.5 * below.mean(0) >= level
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low + high) / 2
