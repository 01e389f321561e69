"""How good predicted probabilities of classes are.

Probabilities have shape (example, class). Labels are indices of classes, shape (example,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtbkd.types import Floats, Ints


def accuracy(probs: Floats, labels: Ints) -> float:
    """Share of examples whose most probable class is the label.

    Example:
        >>> accuracy(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([0, 1]))
        0.5
    """
    return float((probs.argmax(1) == labels).mean())


def nll(probs: Floats, labels: Ints) -> float:
    """Mean negative log probability of the label, in nats; probabilities below 1e-12 count as it.

    Example:
        >>> round(nll(np.array([[0.5, 0.5]]), np.array([1])), 4)
        0.6931
    """
    return float(log_losses(probs, labels).mean())


def log_losses(probs: Floats, labels: Ints) -> Floats:
    """Negative log probability of each label, as in `nll`, in nats, shape (example,)."""
    return -np.log(np.maximum(probs[np.arange(len(labels)), labels], 1e-12))


def brier(probs: Floats, labels: Ints) -> float:
    """Mean squared distance to the one-hot label, summed over classes, in [0, 2].

    Example:
        >>> brier(np.array([[1.0, 0.0]]), np.array([1]))
        2.0
    """
    hit = probs[np.arange(len(labels)), labels]
    return float((np.square(probs).sum(1) - 2 * hit + 1).mean())


def reliability(probs: Floats, labels: Ints, n_bins: int = 15) -> tuple[Floats, Floats, Ints]:
    """Mean confidence and accuracy of the top class in the bins ``(b / n, (b + 1) / n]``.

    Returns:
        Mean confidence and accuracy in each bin (NaN where empty), and counts, each (bin,).
    """
    return binned(probs.max(1), probs.argmax(1) == labels, n_bins)


def ece(probs: Floats, labels: Ints, n_bins: int = 15) -> float:
    """Expected calibration error of the top class (Naeini et al. 2015; Guo et al. 2017).

    Bins are those of `reliability`.

    Example:
        >>> round(ece(np.array([[0.8, 0.2], [0.8, 0.2]]), np.array([0, 1])), 3)
        0.3
    """
    return gap(*reliability(probs, labels, n_bins))


def adaptive_ece(probs: Floats, labels: Ints, n_bins: int = 15) -> float:
    """Expected calibration error of the top class in bins of equally many examples.

    Nguyen and O'Connor 2015 (arXiv:1508.05154); bins differ by one example at most.

    Example:
        >>> adaptive_ece(np.array([[0.6, 0.4], [0.9, 0.1]]), np.array([0, 1]), 2)
        0.65
    """
    order = np.argsort(probs.max(1), kind="stable")
    right = (probs.argmax(1) == labels)[order]
    parts = zip(
        *(np.array_split(each, n_bins) for each in (probs.max(1)[order], right)), strict=True
    )
    gaps = [abs(said.sum() - true.sum()) for said, true in parts]
    return float(sum(gaps) / len(labels))


def binned(said: Floats, true: NDArray[np.generic], n_bins: int) -> tuple[Floats, Floats, Ints]:
    """Means of what is said and of what is true in bins of what is said, and counts.

    Both have shape (answer,). Bins are ``(b / n, (b + 1) / n]``; zero belongs to the first.

    Returns:
        Three of shape (bin,); means are NaN where a bin is empty.
    """
    bins = np.clip(np.ceil(said * n_bins).astype(int) - 1, 0, n_bins - 1)
    counts = np.bincount(bins, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(bins, values, n_bins) / counts for values in (said, true)]
    return means[0], means[1], counts


def gap(said: Floats, true: Floats, counts: Ints) -> float:
    """Mean distance of what `binned` returns, weighted by counts; NaN of nothing."""
    gaps = np.nansum(counts * np.abs(said - true))
    return float(gaps / counts.sum()) if counts.any() else float("nan")


def coverage(sets: NDArray[np.bool_], labels: Ints) -> float:
    """Share of examples whose set contains the label: (example, class), (example,)."""
    return float(sets[np.arange(len(labels)), labels].mean())


def exact_coverage(probs: Floats, labels: Ints, level: float) -> float:
    """Share of labels that sets of exactly this predictive mass contain.

    The smallest set of whole classes overshoots its level. Here the class that crosses the level
    belongs to the set with the probability that makes the mass exact, as in randomised conformal
    sets (Vovk et al. 2005), and the share is the expectation over that choice. It equals the level
    if the predictions are calibrated, whatever the number of classes.

    Example:
        >>> round(exact_coverage(np.array([[0.5, 0.3, 0.2]]), np.array([1]), 0.65), 3)
        0.5
    """
    own = probs[np.arange(len(labels)), labels]
    ahead = np.where(probs > own[:, None], probs, 0.0).sum(1)
    inside = np.clip((level - ahead) / np.maximum(own, 1e-12), 0.0, 1.0)
    return float(inside.mean())


def error_auroc(probs: Floats, uncertainty: Floats, labels: Ints) -> float | None:
    """Area under the ROC curve of an uncertainty as a detector of wrong answers.

    Returns:
        0.5 for chance, 1 for perfect; None if all answers are right or all are wrong.
    """
    return wrong_auroc(uncertainty, probs.argmax(1) != labels)


def wrong_auroc(uncertainty: Floats, wrong: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve of an uncertainty as a detector of wrong answers of any kind.

    The share of pairs of a wrong answer and a right one in which the wrong one is less certain
    (Mann and Whitney 1947), from ranks: it is asked for hundreds of resamples.

    Returns:
        0.5 for chance, 1 for perfect; None if all answers are right or all are wrong.

    Example:
        >>> wrong_auroc(np.array([0.1, 0.9, 0.2]), np.array([False, True, False]))
        1.0
    """
    from scipy.stats import rankdata  # slow to import

    n_wrong = int(wrong.sum())
    n_right = len(wrong) - n_wrong
    if not n_wrong or not n_right:
        return None
    above = rankdata(uncertainty)[wrong].sum() - n_wrong * (n_wrong + 1) / 2
    return float(above / (n_wrong * n_right))


def selective_risk(uncertainty: Floats, wrong: NDArray[np.generic]) -> float:
    """Area under the risk-coverage curve: the error rate averaged over coverages.

    At each coverage the most certain answers are kept and the others refused (AURC, Geifman et al.
    2019, arXiv:1805.08206). Answers that are equally certain share their errors, as if they came in
    random order.

    Args:
        uncertainty: Shape (answer,).
        wrong: Shape (answer,).

    Returns:
        In [0, 1], lower is better.

    Example:
        >>> round(selective_risk(np.array([0.1, 0.3, 0.2]), np.array([False, False, True])), 4)
        0.2778
    """
    _, group, sizes = np.unique(uncertainty, return_inverse=True, return_counts=True)
    shares = np.bincount(group, wrong) / sizes
    return float((np.cumsum(shares[np.sort(group)]) / np.arange(1, len(wrong) + 1)).mean())


def agreement(probs: Floats, reference: Floats) -> float:
    """Share of examples on which both have the same most probable class.

    Of Izmailov et al. 2021, arXiv:2104.14421, as is `total_variation`.

    Example:
        >>> agreement(np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([[0.7, 0.3], [0.4, 0.6]]))
        0.5
    """
    return float((probs.argmax(1) == reference.argmax(1)).mean())


def total_variation(probs: Floats, reference: Floats) -> Floats:
    """Total variation distance of two predictions, ``sum_c |p_c - q_c| / 2``, shape (example,).

    Example:
        >>> total_variation(np.array([[0.9, 0.1]]), np.array([[0.7, 0.3]])).round(3)
        array([0.2])
    """
    return np.abs(probs - reference).sum(1) / 2


def scores(probs: Floats, labels: Ints) -> dict[str, float]:
    """Accuracy, NLL (nats), Brier score and ECE of predictions on labelled examples."""
    return {
        "accuracy": accuracy(probs, labels),
        "nll": nll(probs, labels),
        "brier": brier(probs, labels),
        "ece": ece(probs, labels),
    }
