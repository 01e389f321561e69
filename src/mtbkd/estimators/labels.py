"""Class labels and targets as scikit-learn is given them, some of them missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from mtbkd.types import MISSING_WORDS, InputError, is_missing, tell_missing


def _refuse_none(y: Any) -> None:
    if y is None:
        raise InputError(
            "Expected labels, since fit requires y to be passed, but the target y is None. Give "
            "labels, NaN where they are missing."
        )


def class_labels(
    y: Any, n_rows: int, classes: ArrayLike | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The labels that are known, and which rows have them; texts may spell that they are missing.

    Args:
        y: As given to `fit`.
        n_rows: How many labels there must be.
        classes: Names that are classes whatever they spell.
    """
    _refuse_none(y)
    if isinstance(y, list | tuple):  # NumPy would write NaN among strings as "nan"
        y = np.array(y, dtype=object)
    labels = column_or_1d(y, warn=True)
    check_consistent_length(np.empty(n_rows), labels)
    if labels.dtype.kind not in "fOU":
        check_classification_targets(labels)
        return labels, np.ones(n_rows, dtype=bool)
    named = [] if classes is None else np.asarray(classes).ravel().tolist()
    values = labels.tolist()
    spelt = [v in MISSING_WORDS and v not in named if isinstance(v, str) else False for v in values]
    known = np.array([not (s or is_missing(v)) for s, v in zip(spelt, values, strict=True)])
    tell_missing(list(compress(values, spelt)), "y")
    labels = labels[known]
    if labels.dtype.kind == "O":
        labels = _one_kind(labels.tolist())
    if labels.dtype.kind == "f" and not known.all():
        if all(v.is_integer() and abs(v) < 2**53 for v in labels.tolist()):
            labels = labels.astype(np.int64)  # as they were before there were gaps among them
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise InputError(
            "Expected labels of classes, but got infinity. Correct it, or give NaN where missing."
        )
    if len(labels):
        check_classification_targets(labels)
    return labels, known


def _one_kind(values: Sequence[object]) -> NDArray[Any]:
    """Class labels as an array, unless some are strings and some are not."""
    words = [isinstance(value, str) for value in values]
    if any(words) and not all(words):
        word, other = values[words.index(True)], values[words.index(False)]
        raise InputError(
            f"Expected class labels of one kind, but got {word!r} and {other!r}. Make all of them "
            "strings, or none."
        )
    return np.asarray(values)


def all_classes(labels: NDArray[Any], given: Any, classes: ArrayLike | None) -> NDArray[Any]:
    """All classes, sorted: those that were given, or those of labels and of classifiers."""
    if classes is not None:
        every = np.asarray(classes).ravel().tolist()
    else:
        every = labels.tolist()
        asked = given.values() if isinstance(given, Mapping) else ()
        for teacher in asked:
            own = getattr(teacher, "classes_", ())
            every += [] if isinstance(own, list) else np.asarray(own).tolist()
    found = np.unique(_one_kind(every)) if len(every) else np.empty(0)
    if len(found) < 2:
        raise InputError(
            f"Expected two classes or more, but got {len(found)} class"
            f"{''.join(f', {c!r}' for c in found.tolist())}. Label an example of another class, or "
            "name them all in classes."
        )
    return found


def target_numbers(y: Any, n_rows: int) -> NDArray[np.float64]:
    """Targets, shape (example,) or (example, target), NaN where missing."""
    _refuse_none(y)
    options: Any = {"dtype": np.float64, "ensure_all_finite": "allow-nan", "input_name": "y"}
    numbers = check_array(y, ensure_2d=False, **options)
    check_consistent_length(np.empty(n_rows), numbers)
    return numbers


def target_names(
    y: Any, numbers: NDArray[np.float64], targets: Sequence[object] | None
) -> tuple[str, ...]:
    """Names given, or those of ``y``, or numbered ones."""
    n_targets = 1 if numbers.ndim == 1 else numbers.shape[1]
    if targets is not None:
        names = (targets,) if isinstance(targets, str) else tuple(targets)
        if len(names) != n_targets:
            raise InputError(
                f"Expected {n_targets} names of targets, but got {len(names)}. Name each column "
                "of y."
            )
        return tuple(map(str, names))
    if hasattr(y, "columns"):
        return tuple(map(str, y.columns))
    if getattr(y, "name", None) not in (None, ""):
        return (str(y.name),)
    return ("y",) if n_targets == 1 else tuple(f"y{t}" for t in range(n_targets))
