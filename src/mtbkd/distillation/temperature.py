"""A temperature for what the student says, that held-out labels find."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtbkd.distillation.posterior import Posterior
from mtbkd.observation import OUTCOMES
from mtbkd.observation.answers import Answer, joined, rows_of
from mtbkd.predictive import draw_outputs
from mtbkd.types import Family, Floats

_SURE = 0.25  # prior standard deviation of the log temperature
_RIGHT, _MOST_WRONG = 20.0, 0.5  # prior rate of the share of wrong labels, and its largest value
_COLDEST, _HOTTEST = 0.2, 5.0
_DRAWS, _LEAST = 100, 1e-30


def outputs_of(posterior: Posterior, inputs: Tensor) -> Tensor:
    """What a student says under some of its draws, shape (draw, example, output)."""
    samples = posterior.samples
    n_draws = samples.n_chains * samples.n_draws
    few = samples.chosen(range(0, n_draws, -(-n_draws // _DRAWS)))
    parts = draw_outputs(posterior.student, few, inputs)
    return torch.cat([part.flatten(0, 1).cpu() for part in parts], 1)


def find_temperature(outputs: Tensor, labels: Tensor, family: Family) -> float:
    """What divides every draw's logits such that the mean over draws has the best log score.

    Temperature scaling (Guo et al. 2017, arXiv:1706.04599) of the draws instead of their mean, so
    that the split of uncertainty, intervals and sets stay those of one posterior. A posterior says
    what it says because of its prior, its likelihood and how well chains explored it; if any of
    them is wrong, as with wide priors of networks that see few images, it is surer or less sure
    than it is right (Wenzel et al. 2020, arXiv:2002.02405). The log temperature has a normal prior
    of standard deviation 0.25, so that few labels change little. A share of the labels, found along
    with it, may be of any class: else wrong labels, of which the student rightly thinks little,
    would make it doubt everything. A temperature that does not raise the labels' mean log score by
    more than its standard error, of the differences example by example, is left at 1.

    Args:
        outputs: What a student says that did not learn from the labels, shape
            (draw, example, output).
        labels: As a data set holds them.
        family: What is predicted. Numbers keep a temperature of 1.

    Returns:
        Between 0.2 and 5.
    """
    from scipy.optimize import minimize  # slow to import, and needed here alone

    outcome, labels = OUTCOMES[family], labels.cpu()
    known = labels >= 0 if outcome.exclusive else labels.isfinite()
    if outcome.numeric or not known.any():
        return 1.0
    some = outputs[:: -(-len(outputs) // _DRAWS)].double()
    n_choices = some.shape[-1] if outcome.exclusive else 2
    if outcome.exclusive:
        truth = torch.nn.functional.one_hot(labels.clamp_min(0), some.shape[-1]).bool()
        truth = truth & known[:, None]
    else:
        truth = known

    def heard(log_temperature: Tensor) -> Tensor:
        probs = outcome.point(some * torch.exp(-log_temperature), None).mean(0)
        return probs if outcome.exclusive else torch.where(labels > 0, probs, 1 - probs)

    def loss(position: Floats) -> tuple[float, Floats]:
        at = torch.tensor(position, dtype=torch.float64, requires_grad=True)
        log_temperature, wrong = at
        said = (1 - wrong) * heard(log_temperature)[truth] + wrong / n_choices
        value = 0.5 * (log_temperature / _SURE) ** 2 + _RIGHT * wrong
        value = value - said.clamp_min(_LEAST).log().sum()
        (slope,) = torch.autograd.grad(value, at)
        return float(value.detach()), slope.numpy()

    bounds = ((math.log(_COLDEST), math.log(_HOTTEST)), (0.0, _MOST_WRONG))
    start = np.array([0.0, 0.01])
    found: Any = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    ends = (heard(torch.tensor(x)).clamp_min(_LEAST).log() for x in (found.x[0], 0.0))
    after, before = (torch.where(truth, scores, 0.0).sum(-1)[truth.any(-1)] for scores in ends)
    gains = after - before
    error = float(gains.std(correction=0)) / math.sqrt(len(gains))
    return math.exp(found.x[0]) if float(gains.mean()) > error else 1.0


def tempered_by_others(
    outputs: Tensor,
    labels: Tensor,
    fold: Tensor,
    family: Family,
    answer: Callable[[Tensor, float], Answer],
) -> tuple[Answer, float]:
    """Answers under temperatures that the other folds' labels find, and that of all labels.

    The students of the other folds did learn from a fold's labels, so these still move their own
    temperature a little, as one number of many labels.

    Args:
        outputs: As `find_temperature` takes them, shape (draw, example, output).
        labels: As a data set holds them.
        fold: Number of the fold of each example, shape (example,).
        family: What is predicted.
        answer: The answer on the examples of a mask at a temperature.
    """
    found, order = [], []
    for held in fold.unique():
        mine = fold == held
        temperature = find_temperature(outputs[:, ~mine], labels[~mine], family)
        found.append(answer(mine, temperature))
        order.append(mine.nonzero()[:, 0])
    place = torch.cat(order).argsort().numpy()
    return rows_of(joined(found), place), find_temperature(outputs, labels, family)
