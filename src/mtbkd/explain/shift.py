"""Whether a file's rows come from where the calibration rows came from, and sets where they do not.

The test is that of the energy distance (Székely & Rizzo 2013) with permutations. Where it says no,
calibration rows are weighted by how much more often their like is in the file, by the odds of a
logistic regression that tells both apart (Bickel et al. 2009), and the sets by weighted conformal
prediction (`mtbkd.explain.conformal`). Weights mend that inputs are others, as long as there are
calibration rows like them; they do not mend that the right answers are others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtbkd.explain.conformal import class_bounds, class_sets, label_bounds_each, label_sets
from mtbkd.explain.outside import Seen
from mtbkd.predictive import Answer, LabelPredictive, NumberPredictive
from mtbkd.types import Bools, Floats, Ints

LEAST = 20
"""Rows of a file that is tested."""
UNLIKE = 0.01
"""The p-value from which on the rows are said to be others."""
_TESTED, _PERMUTED = 500, 1999
_TOLD_APART, _FOLDS, _RATIO = 2000, 5, 10.0
_STRENGTHS = (1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class HeldOut:
    """Calibration rows that files are compared with.

    Attributes:
        inputs: As in `Seen`, shape (row, feature).
        hidden: As in `Seen`, shape (row, feature).
        scores: How far outside they are, shape (row, score).
        probs: The student's probabilities, shape (row, class); no columns for numbers.
        total: The entropy of its answers, in nats, shape (row,); 0 for numbers.
        labels: As in a data set.
    """

    inputs: Tensor
    hidden: Tensor
    scores: Tensor
    probs: Tensor
    total: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Ratio:
    """How much more often the like of a row is in the file than among calibration rows.

    Attributes:
        held_out: That of calibration rows, shape (row,).
        file: That of the file's rows, shape (row,).
    """

    held_out: Floats
    file: Floats

    @property
    def effective(self) -> float:
        """As many calibration rows of equal weight tell as much (Kish's effective size)."""
        return float(self.held_out.sum() ** 2 / np.square(self.held_out).sum())


def hold_out(seen: Seen, scores: Floats, predictive: Answer, labels: Tensor) -> HeldOut:
    """Keep calibration rows to compare files with."""
    kept, (probs, total) = seen.stored(), _answers(predictive)
    return HeldOut(
        inputs=kept.inputs,
        hidden=kept.hidden,
        scores=torch.from_numpy(scores),
        probs=torch.from_numpy(probs),
        total=torch.from_numpy(total),
        labels=labels.cpu(),
    )


def compared(n: int, seed: int = 0) -> Ints:
    """Which of a file's ``n`` rows are compared with calibration rows: 500 at most, ascending."""
    return np.sort(np.random.default_rng([seed, 1]).permutation(n)[:_TESTED])


def same_kind(held_out: HeldOut, seen: Seen, scores: Floats, seed: int = 0) -> float:
    """p-value of the test that the rows of a file are of the same kind as the calibration rows.

    At most 500 of each are compared, drawn by the seed, in what the sampled part of the network
    reads, what its last layer reads, and the ranks of how far outside they are. A sum of distances
    is one, so there is one statistic for the three.

    Args:
        held_out: The calibration rows.
        seen: Those of the file's rows that are `compared`.
        scores: How far outside all of the file's rows are, shape (row, score).
        seed: Draws rows and permutations.

    Returns:
        At least ``1 / 2000``.
    """
    chance = np.random.default_rng(seed)
    left = np.sort(chance.permutation(len(held_out.scores))[:_TESTED])
    mine, theirs = Seen(held_out.inputs, held_out.hidden).at(left), seen.stored()
    ranks = np.concatenate([held_out.scores.numpy()[left], scores[compared(len(scores), seed)]])
    ranks = np.stack([np.searchsorted(np.sort(column), column) for column in ranks.T], 1)
    views = (
        torch.cat([mine.inputs.float(), theirs.inputs.float()]),
        torch.cat([mine.hidden.float(), theirs.hidden.float()]),
        torch.from_numpy(ranks).float(),
    )
    distances = torch.zeros(len(ranks), len(ranks))
    for view in views:
        each = torch.cdist(view, view)
        distances += each / each.mean().clamp_min(1e-12)
    return energy_test(distances, len(left), chance)


def energy_test(distances: Tensor, n: int, chance: np.random.Generator) -> float:
    """p-value of the energy statistic among permutations.

    ``2 mean d(x, y) - mean d(x, x') - mean d(y, y')``, which is 0 if and only if both samples have
    one distribution, in the limit (Székely & Rizzo 2013).

    Args:
        distances: Between all rows, those of the first sample first, shape (row, row).
        n: Rows of the first sample.
        chance: Draws permutations.
    """
    others = len(distances) - n
    first = torch.zeros(_PERMUTED + 1, len(distances))
    first[0, :n] = 1
    for row in first[1:]:
        row[torch.from_numpy(chance.permutation(len(distances))[:n])] = 1
    near = first @ distances
    total, within = distances.sum().double(), (near * first).double().sum(1)
    across = (first @ distances.sum(1)).double() - within
    beyond = total - within - 2 * across
    found = 2 * across / (n * others) - within / n**2 - beyond / others**2
    # what rounding makes of equal partitions counts as equal
    equal = 1e-6 * float(found.abs().max())
    return float((found >= found[0] - equal).double().mean())


def density_ratio(held_out: HeldOut, scores: Floats, predictive: Answer, seed: int = 0) -> Ratio:
    """Ratio of densities from the odds of a logistic regression, clipped to 10 and 1/10.

    It sees what decides how easy a row is, by rank among the calibration rows: how far outside it
    is, and the entropy of the student's answer. Its penalty is chosen by cross-validation, so that
    it says nothing where there is nothing to tell.

    Args:
        held_out: The calibration rows.
        scores: How far outside the file's rows are, shape (row, score).
        predictive: The student's answers on them.
        seed: Chooses at most 2,000 rows of the file.
    """
    # slow to import, and needed where rows differ alone
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    known = np.column_stack([held_out.scores.numpy(), held_out.total.numpy()])
    new = np.column_stack([scores, _answers(predictive)[1]])
    n = len(known)
    views = np.column_stack([
        np.searchsorted(np.sort(own), both) / n
        for own, both in zip(known.T, np.concatenate([known, new]).T, strict=True)
    ])  # fmt: skip
    views = (views - 0.5) * np.sqrt(12)  # the deviation of calibration rows is one
    chosen = n + np.sort(np.random.default_rng(seed).permutation(len(scores))[:_TOLD_APART])
    rows, theirs = np.concatenate([np.arange(n), chosen]), np.repeat([0, 1], [n, len(chosen)])
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    models = [LogisticRegression(C=strength) for strength in _STRENGTHS]
    found = [
        cross_val_score(m, views[rows], theirs, cv=folds, scoring="neg_log_loss").mean()
        for m in models
    ]
    model = models[int(np.argmax(found))].fit(views[rows], theirs)
    odds = np.exp(model.decision_function(views)) * n / len(chosen)
    odds = odds.clip(1 / _RATIO, _RATIO)
    return Ratio(odds[:n], odds[n:])


def reweighted(held_out: HeldOut, ratio: Ratio, predictive: Answer, level: float) -> Bools | None:
    """Sets that hold the truth with this level, if inputs alone are others; none for numbers."""
    probs, labels = held_out.probs.numpy(), held_out.labels.numpy()
    if isinstance(predictive, NumberPredictive):
        return None
    if isinstance(predictive, LabelPredictive):
        known = ~np.isnan(labels).all(1)
        weights = ratio.held_out[known]
        bounds = label_bounds_each(probs[known], labels[known], level, weights, ratio.file)
        return label_sets(predictive.probs, bounds)
    known = labels >= 0
    weights = ratio.held_out[known]
    bounds = class_bounds(probs[known], labels[known], level, weights, ratio.file)
    return class_sets(predictive.probs, bounds)


def _answers(predictive: Answer) -> tuple[Floats, Floats]:
    """Probabilities and entropies, (example, class) and (example,)."""
    if isinstance(predictive, NumberPredictive):
        return np.empty((len(predictive.mean), 0)), np.zeros(len(predictive.mean))
    total = predictive.total
    return predictive.probs, total.sum(1) if total.ndim == 2 else total
