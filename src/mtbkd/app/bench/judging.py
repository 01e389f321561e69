"""How good the answers of a method are: the same numbers for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mtbkd.app.bench.answers import Answers, Fitted
from mtbkd.app.bench.sets import beside_mapie
from mtbkd.app.bench.world import World
from mtbkd.app.run.others import told_apart
from mtbkd.app.run.scoring import SCORINGS
from mtbkd.app.run.scoring_shared import unit_of
from mtbkd.data import Dataset
from mtbkd.explain.conformal import class_bound, class_sets
from mtbkd.metrics import (
    adaptive_ece,
    coverage,
    label_ece,
    label_scores,
    number_scores,
    scores,
    selective_risk,
    wrong_auroc,
)
from mtbkd.types import Family, Floats

Numbers = dict[str, float | None]

_LEVEL = 0.9
_WANTED = 0.95  # accuracy of the answers that are given alone


def judge(fitted: Fitted, world: World, data: Dataset) -> Numbers:
    """Scores on labelled examples, as the head reads them."""
    said, labels = fitted.answer(data.inputs), data.labels.numpy()
    family = data.family
    found = _SCORES[family](said, labels, world) | _uncertain(said, data, world)
    if data.outcome.exclusive and len(fitted.held.total):
        bound = class_bound(fitted.held.predicted, world.held.labels.numpy(), _LEVEL)
        sets = class_sets(said.predicted, bound)
        found["set_coverage"] = coverage(sets, labels)
        found["set_size"] = float(sets.sum(1).mean())
    return found


def judge_sets(fitted: Fitted, world: World) -> Numbers:
    """Sets of classes on test examples, beside those of MAPIE on the same probabilities."""
    test = world.read.test
    if not test.outcome.exclusive:
        return {}
    probs = fitted.answer(test.inputs).predicted
    labels = world.held.labels.numpy()
    return beside_mapie(fitted.held.predicted, labels, probs, test.labels.numpy(), _LEVEL)


def judge_elsewhere(fitted: Fitted, world: World) -> dict[str, Numbers]:
    """How well uncertainty tells inputs from elsewhere from test examples, by what they are."""
    usual = fitted.answer(world.read.test.inputs)
    found = {}
    for name, other in world.read.others.items():
        unusual = fitted.answer(other.inputs)
        found[name] = {"auroc_total": told_apart(usual.total, unusual.total)}
        if usual.epistemic is not None and unusual.epistemic is not None:
            found[name]["auroc_epistemic"] = told_apart(usual.epistemic, unusual.epistemic)
    return found


def answered_alone(doubts: Floats, wrong: Floats, wanted: float = _WANTED) -> float:
    """The largest share of answers, the most certain ones, of which so many are right.

    The coverage at a risk of ``1 - wanted`` (Geifman & El-Yaniv 2017, arXiv:1705.08500), of the
    test examples themselves: it tells how well doubts rank answers, and promises nothing. Answers
    that are equally certain are given together or not at all.

    Example:
        >>> answered_alone(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, 0, 1, 0]), 0.75)
        1.0
        >>> answered_alone(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, 0, 1, 0]), 0.8)
        0.5
    """
    order = np.argsort(doubts, kind="stable")
    right = 1 - np.cumsum(wrong[order]) / np.arange(1, len(order) + 1)
    last = np.append(np.diff(doubts[order]) > 0, True)
    good = np.flatnonzero((right >= wanted - 1e-12) & last)
    return float(good[-1] + 1) / len(order) if len(good) else 0.0


def _uncertain(said: Answers, data: Dataset, world: World) -> Numbers:
    """What doubts tell of errors, where an answer is right or wrong."""
    wrong = SCORINGS[data.family].wrong(said.predicted, data.labels.numpy())
    if wrong is None:
        return {}
    each = np.nanmean(wrong, 1) > 0 if wrong.shape[1] > 1 else wrong[:, 0] == 1
    found: Numbers = {
        "aurc": selective_risk(said.total, each),
        "error_auroc": wrong_auroc(said.total, each),
        "answered_alone": answered_alone(said.total, each.astype(float)),
    }
    if said.epistemic is not None:
        found["error_auroc_epistemic"] = wrong_auroc(said.epistemic, each)
    return found


def _classes(said: Answers, labels: Any, world: World) -> Numbers:
    one_hot = np.eye(said.predicted.shape[1])[labels]
    return {
        **scores(said.predicted, labels),
        "ece_by_class": float(np.nanmean(label_ece(said.predicted, one_hot))),
        "ece_adaptive": adaptive_ece(said.predicted, labels),
    }


def _labels(said: Answers, labels: Any, world: World) -> Numbers:
    return {**label_scores(said.predicted, labels)}


def _numbers(said: Answers, labels: Any, world: World) -> Numbers:
    means, sds = said.predicted
    return {**number_scores(means, sds, labels, unit=unit_of(world.units))}


_SCORES: dict[Family, Callable[[Answers, Any, World], Numbers]] = {
    "classification": _classes,
    "multilabel": _labels,
    "regression": _numbers,
}
