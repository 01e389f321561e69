"""Stacked weights: fitted to labels that no teacher was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mtbkd.observation import CATEGORICAL, Observation
from mtbkd.types import Floats
from mtbkd.weights.cells import Cells
from mtbkd.weights.directions import Directions
from mtbkd.weights.pool_fit import Scales, fit_pool, make_problems
from mtbkd.weights.rules import Stacked

_OWN = (Scales(0, 0), Scales(0, 1), Scales(0.25, 1), Scales(1, 1), Scales(4, 1))
"""The scales of a, b and the temperatures that are tried, the most shrunk first."""

_FURTHER = {"by_input": (0.1, 0.3, 1.0), "by_class": (0.3, 1.0)}
"""Scales of the further terms that are tried, one term after the other."""

_FOLDS = 5
_MOST = 4096  # examples on which the prior's scales are chosen
_SIGNIFICANT = 1.645  # standard errors: one-sided, 5 %
_BETTER = 1.8  # the same for further terms, of which there are two with several scales
_DRAWS = 8
_MOST_CLASSES = 300  # classes of all teachers, beyond which trust by class is not tried


def fit_stacked(
    values: Tensor,
    mask: Tensor,
    labels: Tensor,
    *,
    kept: Tensor | None = None,
    observation: Observation = CATEGORICAL,
    features: Tensor | None = None,
    directions: Directions | None = None,
    groups: Tensor | None = None,
) -> Stacked:
    """Fit stacked weights and temperatures jointly on labels that no teacher was trained on.

    Maximises the log score of the pool ``sum_k w_k p_k`` of the teachers at their temperatures with
    Gaussian priors on a, b, d, e and log T, whose scales are chosen by five-fold cross-validation,
    on some thousands of examples at most. First those of a, b and T: weights are uniform and
    temperatures 1 unless the labels tell otherwise at the level of 5 %, for a temperature fitted to
    few labels harms intervals for p(y | x) more than it helps; of the rest the most shrunk within
    one standard error of the best. Then trust by input and trust by class, each of which must be
    better by 1.8 standard errors than what was chosen, and than that with the a, b and temperatures
    that come with it. Cells without any teacher are left out.

    How sure the weights are is drawn by the weighted likelihood bootstrap (Newton and Raftery
    1994): each draw is the fit to examples that count as often as exponential chance numbers say,
    at the temperatures of the fit to all.

    Where weights are not uniform, an example also has a share of trusting nobody, for which all
    classes are alike: where the only teacher that speaks is one that should not be trusted there,
    its weight must not become 1.

    Of several labels, each has its own a: a teacher's, and with the same prior what it is better or
    worse by on this label.

    For a teacher that knows some of the classes, the log odds that one of these is true are fitted
    as well, as a function of its confidence: ``pi_k p_k`` on its classes and ``1 - pi_k`` in equal
    parts on the others is what it adds to the pool.

    Args:
        values: As in `TeacherOutputs`.
        mask: Shape (teacher, example) or (teacher, example, column).
        labels: As in a `Dataset`, shape (example,) or (example, column).
        kept: As in `TeacherOutputs`.
        observation: How a student's outputs meet these teachers.
        features: What the student reads behind its frozen part, shape (example, ...).
        directions: What trust by input is along; without them it is not tried.
        groups: As in `TeacherOutputs`: teachers of one group share the weight of one before any
            label speaks, and what is fitted may be as far from 0 for all of them as for one.
    """
    place = None
    if directions is not None and features is not None:
        place = directions.place(features).to(mask.device)
    cells = Cells(
        values=values.double(),
        mask=mask,
        labels=labels,
        kept=kept,
        observation=observation,
        place=place,
        groups=groups,
    )
    some = cells.at(torch.arange(0, len(labels), -(-len(labels) // _MOST), device=labels.device))
    scores = dict(zip(_OWN, _cross_validated(some, _OWN), strict=True))
    chosen = _choose(scores)
    for term in _further(cells):
        base = chosen if chosen.own else chosen._replace(own=_OWN[2].own, temperature=1.0)
        options = [base._replace(**{term: scale}) for scale in _FURTHER[term]]
        scores |= zip(options, _cross_validated(some, options), strict=True)
        best = max(options, key=lambda scales: scores[scales].sum())
        if all(_errors_above(scores[best], scores[one]) > _BETTER for one in (chosen, base)):
            chosen = best
    fit = fit_pool(cells, chosen, _DRAWS if chosen.own else 1)
    return replace(fit, directions=directions if chosen.by_input else None)


def _further(cells: Cells) -> list[str]:
    """Terms beside the teachers' own confidence that can be tried here."""
    few = cells.values[:, 0].numel() <= _MOST_CLASSES
    named = cells.outcome.exclusive and cells.kept is None and few
    possible = {"by_input": cells.place is not None, "by_class": named}
    return [term for term in _FURTHER if len(cells.values) > 1 and possible[term]]


def _cross_validated(cells: Cells, scales: Sequence[Scales]) -> Floats:
    """Log score of the pool in each known cell, fitted on the other folds: (scales, cell)."""
    fold = np.arange(len(cells.labels)) % _FOLDS
    folds = np.arange(min(_FOLDS, len(fold)))
    train = np.tile((fold != folds[:, None]).astype(float), (len(scales), 1))
    problems = make_problems(cells, [one for one in scales for _ in folds], train)
    scores = problems.solve(np.zeros_like(problems.mean))[1].reshape(len(scales), len(folds), -1)
    cell = np.arange(scores.shape[2])
    return scores[:, np.repeat(fold, cells.labels[0].numel()), cell][:, cells.known]


def _errors_above(scores: Floats, others: Floats) -> float:
    """How many standard errors the first are better by, pair by pair."""
    gap = scores - others
    if len(gap) < 2:
        return 0.0
    return float(gap.mean()) / max(float(gap.std(ddof=1)) / math.sqrt(len(gap)), 1e-12)


def _choose(scores: dict[Scales, Floats]) -> Scales:
    """The plain pool unless another is better at 5 %, else the most shrunk of the others.

    The most shrunk is the first within one standard error of the best.
    """
    plain, *others = scores
    best = max(scores, key=lambda scales: scores[scales].sum())
    if _errors_above(scores[best], scores[plain]) <= _SIGNIFICANT:
        return plain
    return next(
        one for one in others if one == best or _errors_above(scores[best], scores[one]) <= 1
    )
