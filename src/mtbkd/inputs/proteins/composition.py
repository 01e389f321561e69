"""Where a protein is, from nothing but the shares of its amino acids: boosted trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtbkd.inputs.proteins.residues import Residues
from mtbkd.inputs.proteins.scales import UNKNOWN
from mtbkd.types import Floats, Floats32

Trees = Sequence[Any]
"""A `HistGradientBoostingClassifier` for each label; the answer itself for one that all training
proteins have, or none."""

_LEAVES, _RATE = 15, 0.1
_AT_ONCE = 500  # proteins, whose residues are held
_FEWEST = (
    20  # proteins with a label, and without, from which on a part of them can stop the boosting
)


def shares(sequences: Sequence[str]) -> Floats:
    """Share of each of the 20 amino acids, (protein, 20); 0 for proteins of others alone."""
    found = np.zeros((len(sequences), UNKNOWN))
    for start in range(0, len(sequences), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        residues = Residues.of(sequences[rows])
        found[rows] = residues.counts(np.ones(len(residues.codes), dtype=bool))
    return found / np.maximum(found.sum(1, keepdims=True), 1)


def boost(shares: Floats, labels: Floats32, rounds: int, seed: int) -> Trees:
    """Train on shares (protein, 20) and labels (protein, label) for so many rounds at most."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # slow to import

    models: list[Any] = []
    for known in labels.T:
        if known.min() == known.max():
            models.append(float(known[0]))
            continue
        stops: Any = bool(min(known.sum(), (1 - known).sum()) >= _FEWEST)
        model = HistGradientBoostingClassifier(
            max_iter=rounds, learning_rate=_RATE, max_leaf_nodes=_LEAVES, l2_regularization=1.0,
            early_stopping=stops, random_state=seed,
        )  # fmt: skip
        models.append(model.fit(shares, known))
    return models


def probabilities(trees: Trees, shares: Floats) -> Floats32:
    """How probable each label is, shape (protein, label)."""
    columns = [
        np.full(len(shares), model)
        if isinstance(model, float)
        else model.predict_proba(shares)[:, 1]
        for model in trees
    ]
    return np.stack(columns, 1).astype(np.float32)


def size(trees: Trees) -> float:
    """How many leaves they have at most."""
    models = [m for m in trees if not isinstance(m, float)]
    return float(sum(_LEAVES * model.n_iter_ for model in models))
