"""Teachers of this folder: a function returns a model, a function of inputs, or a Teacher."""

from __future__ import annotations

from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier


def forest() -> RandomForestClassifier:
    """A small forest, trained on flowers that are not among the examples."""
    data = load_iris()
    flowers, species = data.data[::5], data.target_names[data.target[::5]]
    return RandomForestClassifier(50, min_samples_leaf=2, random_state=0).fit(flowers, species)
