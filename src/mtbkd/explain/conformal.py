"""Sets that hold the truth as often as they say: split-conformal bounds on held-out labels.

Sets of a fixed predictive mass hold the truth that often only if the probabilities are calibrated,
and overshoot because a class is in or out as a whole. Here the bound is chosen on labelled examples
that the student was not trained on. On further examples of the same kind the sets hold the truth
with at least the level, and at most `1 / (n + 1)` more where scores are distinct, whatever the
student (Vovk et al. 2005; Papadopoulos et al. 2002; Angelopoulos & Bates 2023).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mtbkd.types import Floats


def class_bound(probs: Floats, labels: NDArray[np.int64], level: float) -> float:
    """The mass ahead of a class up to which it belongs to the set.

    The score of an example is the mass of the classes that are more probable than its label, so the
    sets are nested, hold the most probable class, and are credible sets of an adapted mass
    (Romano et al. 2020, without randomisation).

    Args:
        probs: Probabilities of held-out examples, shape (example, class).
        labels: Class indices, shape (example,).
        level: In (0, 1).

    Returns:
        In [0, 1]; 1 if there are too few labels for the level, so that sets hold every class.

    Example:
        >>> class_bound(np.array([[0.6, 0.4], [0.7, 0.3], [0.9, 0.1]]), np.array([0, 1, 0]), 0.5)
        0.0
    """
    return _rank(_ahead(probs)[np.arange(len(labels)), labels], level)


def class_sets(probs: Floats, bound: float) -> NDArray[np.bool_]:
    """Classes with at most this mass ahead of them, shape (example, class)."""
    return _ahead(probs) <= bound + 1e-9


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
    doubt = 1 - probs
    had = [np.sort(doubt[labels[:, i] == 1, i]) for i in range(probs.shape[1])]
    # the example itself and one more, which may be before it, so that the level is kept
    shares = [(np.searchsorted(own, doubt[:, i]) + 1) / (len(own) + 1) for i, own in enumerate(had)]
    largest = _rank(np.where(labels == 1, np.stack(shares, 1), 0.0).max(1), level)
    places = [math.floor(largest * (len(own) + 1) + 1e-9) for own in had]
    return np.array([
        own[k] if k < len(own) else 1.0 for k, own in zip(places, had, strict=True)
    ])  # fmt: skip


def label_sets(probs: Floats, bounds: Floats) -> NDArray[np.bool_]:
    """Labels that are not more improbable than their bounds, shape (example, label)."""
    return 1 - probs <= bounds + 1e-9


def whole_coverage(sets: NDArray[np.bool_], labels: Floats) -> float:
    """Share of examples all of whose labels are in their set, each (example, label)."""
    return float((sets | (labels != 1)).all(1).mean())


def tail(scores: Floats, held_out: Floats) -> Floats:
    """Conformal p-value of each score: the share of held-out ones at least as large.

    Args:
        scores: Shape (example,).
        held_out: In rising order, shape (held-out example,).

    Returns:
        ``(1 + count) / (1 + n)``, shape (example,).

    Example:
        >>> tail(np.array([0.5, 9.0]), np.array([0.0, 1.0, 2.0]))
        array([0.75, 0.25])
    """
    larger = len(held_out) - np.searchsorted(held_out, scores, side="left")
    return (1 + larger) / (1 + len(held_out))


def _ahead(probs: Floats) -> Floats:
    """Mass of the classes that are ranked before each, shape (example, class)."""
    order = np.argsort(-probs, axis=1, kind="stable")
    ranked = np.take_along_axis(probs, order, 1)
    ahead = np.empty_like(probs)
    np.put_along_axis(ahead, order, np.cumsum(ranked, 1) - ranked, 1)
    return ahead


def _rank(scores: Floats, level: float) -> float:
    """The score that the level requires of this many."""
    place = math.ceil(level * (len(scores) + 1) - 1e-9)
    return 1.0 if place > len(scores) else float(np.sort(scores)[place - 1])
