"""Sets that hold the truth as often as they say: split-conformal bounds on held-out labels.

Sets of a fixed predictive mass hold the truth that often only if the probabilities are calibrated,
and overshoot because a class is in or out as a whole. Here the bound is chosen on labelled examples
that the student was not trained on. On further examples of the same kind the sets hold the truth
with at least the level, and at most `1 / (n + 1)` more where scores are distinct, whatever the
student (Vovk et al. 2005; Papadopoulos et al. 2002; Angelopoulos & Bates 2023). Where inputs are of
another kind and the ratio of both densities is known, weights make good for it (Tibshirani, Barber,
Candès & Ramdas 2019): each further example has a bound of its own then.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mtbkd.types import Floats


def class_bound(probs: Floats, labels: NDArray[np.int64], level: float) -> float:
    """The mass ahead of a class up to which it belongs to the set.

    The score of an example is the mass of the classes that are more probable than its label, so the
    sets are nested, hold the most probable class, and are credible sets of an adapted mass
    (Romano et al. 2020, without randomisation).

    Args:
        probs: Those of held-out examples, shape (example, class).
        labels: Class indices, shape (example,).
        level: In (0, 1).

    Returns:
        In [0, 1]; 1 if there are too few labels for the level, so that sets hold every class.

    Example:
        >>> class_bound(np.array([[0.6, 0.4], [0.7, 0.3], [0.9, 0.1]]), np.array([0, 1, 0]), 0.5)
        0.0
    """
    return float(class_bounds(probs, labels, level, *_alike(len(labels)))[0])


def class_bounds(
    probs: Floats, labels: NDArray[np.int64], level: float, weights: Floats, own: Floats
) -> Floats:
    """As `class_bound`, for further examples of another kind.

    Args:
        probs: Those of held-out examples, shape (held-out example, class).
        labels: Class indices, shape (held-out example,).
        level: In (0, 1).
        weights: Density of the further examples at each held-out one, relative to that of held-out
            ones, up to a factor, shape (held-out example,).
        own: The same at each further example, shape (example,).

    Returns:
        One bound for each further example, shape (example,).
    """
    return _quantiles(_ahead(probs)[np.arange(len(labels)), labels], level, weights, own)


def class_sets(probs: Floats, bound: float | Floats) -> NDArray[np.bool_]:
    """Classes with at most this mass ahead of them, shape (example, class).

    Args:
        probs: Shape (example, class).
        bound: One, or one for each example.
    """
    return _ahead(probs) <= np.reshape(bound, (-1, 1)) + 1e-9


def label_bounds(probs: Floats, labels: Floats, level: float) -> Floats:
    """How improbable each label may be and still belong to the set of possible ones.

    A set holds *all* labels of an example with the level, and no label is left out more readily
    than another: what counts is not how improbable a label is, but which share of the held-out
    examples that have it were given more than this. The score of an example is the largest such
    share among its labels. One bound for all would hold the frequent labels nearly always and rare
    ones, which are never given much, hardly more often than not.

    Args:
        probs: Probabilities of yes on held-out examples, shape (example, label).
        labels: 1 for yes, 0 for no, NaN where not known, shape (example, label).
        level: In (0, 1).

    Returns:
        In [0, 1], shape (label,); 1 for a label that too few held-out examples have, or where there
        are too few examples for the level, so that it is always held.
    """
    return label_bounds_each(probs, labels, level, *_alike(len(probs)))[0]


def label_bounds_each(
    probs: Floats, labels: Floats, level: float, weights: Floats, own: Floats
) -> Floats:
    """As `label_bounds`, for further examples of another kind.

    Args:
        probs: Those of held-out examples, shape (held-out example, label).
        labels: Shape (held-out example, label).
        level: In (0, 1).
        weights: As for `class_bounds`, shape (held-out example,).
        own: As for `class_bounds`, shape (example,).

    Returns:
        Bounds for each further example, shape (example, label).
    """
    doubt = 1 - probs
    had = [np.sort(doubt[labels[:, i] == 1, i]) for i in range(probs.shape[1])]
    # the example itself and one more, which may be before it, so that the level is kept
    shares = [(np.searchsorted(h, doubt[:, i]) + 1) / (len(h) + 1) for i, h in enumerate(had)]
    scores = np.where(labels == 1, np.stack(shares, 1), 0.0).max(1)
    largest = _quantiles(scores, level, weights, own)
    places = [np.floor(largest * (len(each) + 1) + 1e-9).astype(np.int64) for each in had]
    return np.stack(
        [
            np.append(each, 1.0)[np.minimum(k, len(each))]
            for k, each in zip(places, had, strict=True)
        ],
        1,
    )


def label_sets(probs: Floats, bounds: Floats) -> NDArray[np.bool_]:
    """Labels that are not more improbable than their bounds, shape (example, label)."""
    return 1 - probs <= bounds + 1e-9


def whole_coverage(sets: NDArray[np.bool_], labels: Floats) -> float:
    """Share of examples all of whose labels are in their set, each (example, label)."""
    return float((sets | (labels != 1)).all(1).mean())


def _ahead(probs: Floats) -> Floats:
    """Mass of the classes that are ranked before each, shape (example, class)."""
    order = np.argsort(-probs, axis=1, kind="stable")
    ranked = np.take_along_axis(probs, order, 1)
    ahead = np.empty_like(probs)
    np.put_along_axis(ahead, order, np.cumsum(ranked, 1) - ranked, 1)
    return ahead


def _alike(n: int) -> tuple[Floats, Floats]:
    """Weights for further examples of the same kind as so many held-out ones."""
    return np.ones(n), np.ones(1)


def _quantiles(scores: Floats, level: float, weights: Floats, own: Floats) -> Floats:
    """The score that the level requires of each further example, shape (example,).

    A quantile of the held-out scores and one at infinity, each with its weight (lemma 1 of
    Tibshirani et al. 2019); 1 if that at infinity is needed.
    """
    order = np.argsort(scores, kind="stable")
    mass = np.cumsum(weights[order])
    last = mass[-1] if len(mass) else 0.0
    # rounding takes no more than this part of a weight
    place = np.searchsorted(mass, level * (last + own) - 1e-9 * own)
    return np.append(scores[order], 1.0)[place]
