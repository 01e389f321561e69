"""How good predicted probabilities of several labels are.

Probabilities of yes and labels have shape (example, label). Labels are 0, 1 or NaN; one that is NaN
is left out everywhere, and so is an example without any label. Thresholds above which an answer is
yes are one number, or one for each label, shape (label,).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtbkd.metrics.classification import binned, gap
from mtbkd.types import Floats, Ints

Threshold = float | Floats

_THRESHOLD = 0.5


def subset_accuracy(probs: Floats, labels: Floats, threshold: Threshold = _THRESHOLD) -> float:
    """Share of examples all of whose known labels are answered rightly.

    Example:
        >>> subset_accuracy(np.array([[0.9, 0.1], [0.9, 0.8]]), np.array([[1, 0], [1, 0]]))
        0.5
    """
    known = ~np.isnan(labels)
    right = ((probs >= threshold) == (labels == 1)) | ~known
    return _mean(right.all(1)[known.any(1)])


def hamming(probs: Floats, labels: Floats, threshold: Threshold = _THRESHOLD) -> float:
    """Share of known labels that are answered wrongly.

    Example:
        >>> hamming(np.array([[0.9, 0.1], [0.9, 0.8]]), np.array([[1, 0], [1, 0]]))
        0.25
    """
    wrong = (probs >= threshold) != (labels == 1)
    return _mean(wrong[~np.isnan(labels)])


def f1_micro(probs: Floats, labels: Floats, threshold: Threshold = _THRESHOLD) -> float:
    """F1 of all labels together, ``2 tp / (2 tp + fp + fn)``; 1 if none is yes and none is said.

    Example:
        >>> round(f1_micro(np.array([[0.9, 0.1], [0.9, 0.8]]), np.array([[1, 0], [1, 0]])), 3)
        0.8
    """
    twice, either = (counts.sum() for counts in _counts(probs, labels, threshold))
    return float(twice / either) if either else 1.0


def f1_by_label(probs: Floats, labels: Floats, threshold: Threshold = _THRESHOLD) -> Floats:
    """F1 of each label, shape (label,); NaN where none is yes and none is said.

    Example:
        >>> f1_by_label(np.array([[0.9, 0.1, 0.1]]), np.array([[1, 1, 0]]))
        array([ 1.,  0., nan])
    """
    twice, either = _counts(probs, labels, threshold)
    return np.divide(twice, either, out=np.full(len(twice), np.nan), where=either > 0)


def f1_macro(probs: Floats, labels: Floats, threshold: Threshold = _THRESHOLD) -> float:
    """Mean over labels of F1.

    A label of which none is yes and none is said is left out of the mean; if that leaves none, 1.

    Example:
        >>> f1_macro(np.array([[0.9, 0.1, 0.1]]), np.array([[1, 1, 0]]))
        0.5
    """
    found = f1_by_label(probs, labels, threshold)
    return 1.0 if np.isnan(found).all() else float(np.nanmean(found))


def jaccard(probs: Floats, labels: Floats, threshold: Threshold = _THRESHOLD) -> float:
    """Mean over examples of labels both said and true over labels said or true; 1 if both empty.

    Example:
        >>> jaccard(np.array([[0.9, 0.8], [0.1, 0.2]]), np.array([[1, 0], [0, 0]]))
        0.75
    """
    known = ~np.isnan(labels)
    said, true = (probs >= threshold) & known, labels == 1
    both, either = (said & true).sum(1), (said | true).sum(1)
    shares = np.divide(both, either, out=np.ones(len(both)), where=either > 0)
    return _mean(shares[known.any(1)])


def mcc_by_label(probs: Floats, labels: Floats, threshold: Threshold = _THRESHOLD) -> Floats:
    """Matthews' correlation of what is said and true, for each label, shape (label,).

    0 where all that is said, or true, is the same, as in scikit-learn.

    Example:
        >>> said, true = np.array([[0.9], [0.9], [0.1], [0.1]]), np.array([[1], [0], [0], [0]])
        >>> mcc_by_label(said, true).round(3)
        array([0.577])
    """
    known = ~np.isnan(labels)
    said, true = (probs >= threshold) & known, labels == 1
    return _mcc((said & true).sum(0), said.sum(0), true.sum(0), known.sum(0))


def best_thresholds(probs: Floats, labels: Floats) -> Floats:
    """Threshold of each label at which Matthews' correlation is largest, or nearly so, (label,).

    The correlation hardly changes over a wide range, in which the best place is chance. So of all
    thresholds whose correlation r is within its standard error, ``(1 - r^2) / sqrt(n)``, of the
    largest, the one next to 0.5 is taken; it lies halfway between two probabilities. 0.5 for a
    label of which all known answers are the same. Not of labels that will be judged.

    Example:
        >>> best_thresholds(np.array([[0.1], [0.2], [0.4]]), np.array([[0.0], [0.0], [1.0]]))
        array([0.3])
    """
    found = np.full(probs.shape[1], _THRESHOLD)
    for column in range(probs.shape[1]):
        known = ~np.isnan(labels[:, column])
        order = np.argsort(-probs[known, column], kind="stable")
        said, true = probs[known, column][order], labels[known, column][order] == 1
        cuts = np.flatnonzero(said[:-1] > said[1:])  # yes is said of all examples up to here
        scores = _mcc(true.cumsum()[cuts], cuts + 1, true.sum(), len(true))
        if len(cuts) and scores.max() > 0:
            halfway = (said[cuts] + said[cuts + 1]) / 2
            slack = (1 - scores.max() ** 2) / np.sqrt(len(true))
            best = halfway[scores >= scores.max() - slack - 1e-12]
            found[column] = best[np.abs(best - _THRESHOLD).argmin()]
    return found


def log_loss(probs: Floats, labels: Floats) -> float:
    """Mean per known label of the negative log probability of the answer, in nats.

    Probabilities below 1e-12 count as it.

    Example:
        >>> round(log_loss(np.array([[0.5, 0.5]]), np.array([[1, np.nan]])), 4)
        0.6931
    """
    losses = label_losses(probs, labels)
    return _mean(losses[~np.isnan(labels)])


def label_losses(probs: Floats, labels: Floats) -> Floats:
    """Negative log probability of each answer, in nats, (example, label); NaN where unknown."""
    answer = np.where(labels == 1, probs, 1 - probs)
    return np.where(np.isnan(labels), np.nan, -np.log(np.maximum(answer, 1e-12)))


def label_brier(probs: Floats, labels: Floats) -> float:
    """Mean per known label of ``(P(yes) - label)^2``, in [0, 1].

    Example:
        >>> label_brier(np.array([[0.5, 1.0]]), np.array([[1, 0]]))
        0.625
    """
    return _mean(np.square(probs - labels)[~np.isnan(labels)])


def label_reliability(
    probs: Floats, labels: Floats, n_bins: int = 15
) -> tuple[Floats, Floats, Ints]:
    """Mean P(yes) and share of yes in bins of equal width of P(yes).

    All answers, of any shape, share the bins ``(b / n, (b + 1) / n]``; zero belongs to the first.

    Returns:
        Mean probability and share of yes in each bin (NaN where empty), and counts, each (bin,).
    """
    known = ~np.isnan(labels)
    return binned(probs[known], labels[known], n_bins)


def label_ece(probs: Floats, labels: Floats, n_bins: int = 15) -> Floats:
    """Expected calibration error of P(yes) of each label, shape (label,).

    The mean gap between P(yes) and the share of yes in bins of equal width, weighted by the bins'
    counts (Naeini et al. 2015, for one label at a time); NaN for a label that is never known.

    Example:
        >>> label_ece(np.array([[0.8, 0.1], [0.8, 0.1]]), np.array([[1, 0], [0, 0]])).round(3)
        array([0.3, 0.1])
    """
    pairs = zip(probs.T, labels.T, strict=True)
    return np.array([gap(*label_reliability(said, true, n_bins)) for said, true in pairs])


def average_precision(probs: Floats, labels: Floats) -> Floats:
    """Area under the precision-recall steps of each label, shape (label,), as in scikit-learn.

    NaN for a label that is never known to be yes.

    Example:
        >>> average_precision(np.array([[0.9], [0.2], [0.4]]), np.array([[1.0], [1.0], [0.0]]))
        array([0.83333333])
    """
    from sklearn.metrics import average_precision_score  # slow to import, and needed here alone

    found = np.full(probs.shape[1], np.nan)
    for column in range(probs.shape[1]):
        known = ~np.isnan(labels[:, column])
        if (labels[known, column] == 1).any():
            found[column] = average_precision_score(labels[known, column], probs[known, column])
    return found


def label_scores(
    probs: Floats, labels: Floats, threshold: Threshold = _THRESHOLD
) -> dict[str, float]:
    """Scores of predictions on labelled examples.

    Returns:
        ``accuracy`` (of the whole set of an example's labels), ``f1_micro``, ``f1_macro``,
        ``jaccard``, ``nll`` (nats, mean per label, not summed over an example's labels, so that
        tasks of few and of many labels compare), ``brier`` (mean per label) and ``ece`` (mean
        over labels).
    """
    by_label = label_ece(probs, labels)
    return {
        "accuracy": subset_accuracy(probs, labels, threshold),
        "f1_micro": f1_micro(probs, labels, threshold),
        "f1_macro": f1_macro(probs, labels, threshold),
        "jaccard": jaccard(probs, labels, threshold),
        "nll": log_loss(probs, labels),
        "brier": label_brier(probs, labels),
        "ece": _mean(by_label[~np.isnan(by_label)]),
    }


def _mcc(both: Any, said: Any, true: Any, known: Any) -> Floats:
    """Matthews' correlation from counts that broadcast; 0 where it has no meaning."""
    both, said, true, known = (np.asarray(n, np.float64) for n in (both, said, true, known))
    top = known * both - said * true
    bottom = np.sqrt(said * (known - said) * true * (known - true))
    return np.divide(top, bottom, out=np.zeros(np.broadcast(top, bottom).shape), where=bottom > 0)


def _counts(probs: Floats, labels: Floats, threshold: Threshold) -> tuple[Ints, Ints]:
    """Twice the true positives, and that plus false ones of both kinds, each (label,)."""
    known = ~np.isnan(labels)
    said, true = (probs >= threshold) & known, labels == 1
    return 2 * (said & true).sum(0), said.sum(0) + true.sum(0)


def _mean(values: NDArray[np.generic]) -> float:
    """NaN of nothing, without a warning."""
    return float(values.mean()) if values.size else float("nan")
