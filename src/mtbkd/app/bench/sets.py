"""Sets of classes beside those of MAPIE: its scores on the same probabilities."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from mtbkd.metrics import coverage
from mtbkd.types import Bools, Floats, Ints

SCORES = ("lac", "aps", "raps")
_FEWEST = 20  # labels: RAPS keeps a fifth of them for its own choice


class _Told(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are its probabilities, as MAPIE wants one."""

    def __init__(self, n_classes: int = 2) -> None:
        self.n_classes = n_classes
        self.classes_ = np.arange(n_classes)

    def fit(self, inputs: Floats, labels: Ints) -> _Told:
        """There is nothing to learn."""
        return self

    def predict_proba(self, inputs: Floats) -> Floats:
        """What was told."""
        return inputs

    def predict(self, inputs: Floats) -> Ints:
        """The most probable class."""
        return inputs.argmax(1)

    def __sklearn_is_fitted__(self) -> bool:
        return True


def mapie_sets(held: Floats, labels: Ints, probs: Floats, level: float, score: str) -> Bools:
    """Sets by a score of MAPIE: LAC (Sadinle 2019), APS (Romano 2020), RAPS (Angelopoulos 2021).

    As its defaults are: the class that crosses the bound belongs to the set, never by chance.

    Args:
        held: Probabilities on held-out examples, shape (held-out example, class).
        labels: Their classes, shape (held-out example,).
        probs: Those of further examples, shape (example, class).
        level: In (0, 1).
        score: One of `SCORES`.

    Returns:
        Shape (example, class).
    """
    from mapie.classification import SplitConformalClassifier  # pyright: ignore[reportMissingImports]

    model = SplitConformalClassifier(
        _Told(held.shape[1]), confidence_level=level, conformity_score=score, random_state=0
    )
    model.conformalize(_summed(held), labels)
    return np.asarray(model.predict_set(_summed(probs))[1])[:, :, 0]


def beside_mapie(
    held: Floats, labels: Ints, probs: Floats, truth: Ints, level: float
) -> dict[str, float | None]:
    """Coverage and mean size of MAPIE's sets; nothing where it is not installed, or labels are few.

    ``set_coverage_lac``, ``set_size_lac`` and so on, for each of `SCORES`.
    """
    if find_spec("mapie") is None or len(labels) < _FEWEST:
        return {}
    found: dict[str, float | None] = {}
    for score in SCORES:
        sets = mapie_sets(held, labels, probs, level, score)
        found[f"set_coverage_{score}"] = coverage(sets, truth)
        found[f"set_size_{score}"] = float(sets.sum(1).mean())
    return found


def _summed(probs: Floats) -> Floats:
    """Rows that sum to 1 in double precision, which is checked."""
    return probs / probs.sum(1, keepdims=True)
