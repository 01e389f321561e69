"""scikit-learn's own classifiers, which see the labelled examples and no teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mtbkd.app.bench.answers import Answers, Fitted
from mtbkd.app.bench.methods.base import Fit
from mtbkd.app.bench.world import World
from mtbkd.app.run.scoring_shared import entropy
from mtbkd.data import Dataset
from mtbkd.types import Report


def logistic(seed: int) -> Any:
    """Logistic regression, its penalty chosen by cross-validation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    del seed
    grid = {"C": [0.01, 0.1, 1.0, 10.0]}
    return GridSearchCV(LogisticRegression(max_iter=2000), grid, scoring="accuracy", cv=3)


def boosting(seed: int) -> Any:
    """Gradient boosted trees on histograms."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(random_state=seed, min_samples_leaf=5)


def estimator(make: Callable[[int], Any]) -> Fit:
    """Fitted on training labels to answer for calibration, then on both.

    Its numbers and multiply-adds are not known, and count as none.
    """

    def fit(world: World, folder: Path, report: Report) -> Fitted:
        del folder, report
        n_classes = len(world.read.train.classes)

        def fitted(data: Dataset) -> Callable[[Tensor], Answers]:
            known = data.known.numpy()
            model = make(world.config.seed)
            model.fit(data.inputs.flatten(1).numpy()[known], data.labels.numpy()[known])

            def answer(inputs: Tensor) -> Answers:
                probs = np.full((len(inputs), n_classes), 1e-6)
                probs[:, model.classes_] += model.predict_proba(inputs.flatten(1).numpy())
                probs /= probs.sum(1, keepdims=True)
                return Answers(probs, entropy(probs))

            return answer

        held = fitted(world.read.train)(world.held.inputs)
        return Fitted(fitted(world.everything), held, parameters=0, multiply_adds=0)

    return fit
