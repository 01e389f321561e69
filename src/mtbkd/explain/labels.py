"""Several labels as one answer: where each is said, and how often all of them are right."""

from __future__ import annotations

import numpy as np

from mtbkd.metrics import best_thresholds
from mtbkd.types import Bools, Floats

_ENOUGH = 50  # examples with and without a label, for a threshold of its own
_EVEN = 0.5
_SURE = 1e-9


def label_thresholds(probs: Floats, labels: Floats) -> Floats:
    """Where Matthews' correlation is largest, as DeepLoc 2.0 has it; 0.5 with few labels."""
    enough = np.minimum((labels == 1).sum(0), (labels == 0).sum(0)) >= _ENOUGH
    return np.where(enough, best_thresholds(probs, labels), _EVEN)


def together(probs: Floats, answer: Bools) -> Floats:
    """Log odds that all labels are right if they are independent given the input, (example,)."""
    right = np.where(answer, probs, 1 - probs).prod(1).clip(_SURE, 1 - _SURE)
    return np.log(right) - np.log1p(-right)


def odds_of_all(probs: Floats, labels: Floats, thresholds: Floats) -> Floats:
    """Intercept and slope that make the odds of a whole answer those of the held-out examples.

    Labels go together, as nucleus and cytoplasm do, so the product of their probabilities is too
    small. 0 and 1 where hardly any answer is right, or wrong, or all labels of too few are known.
    """
    known = ~np.isnan(labels).any(1)
    answer = probs >= thresholds
    right = (answer == (labels == 1)).all(1)[known]
    if min(right.sum(), (~right).sum()) < _ENOUGH:
        return np.array([0.0, 1.0])
    apart = together(probs, answer)[known, None]
    from sklearn.linear_model import LogisticRegression  # slow to import, and needed here alone

    model = LogisticRegression(C=np.inf).fit(apart, right)
    slope = float(model.coef_[0, 0])
    return np.array([float(model.intercept_[0]), slope] if slope > 0 else [0.0, 1.0])
