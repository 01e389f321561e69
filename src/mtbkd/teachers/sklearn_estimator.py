"""Teachers that are fitted scikit-learn estimators."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtbkd.observation import CLASSES, OUTCOMES
from mtbkd.teachers.base import Teacher, from_callable
from mtbkd.types import InputError


def from_sklearn(
    name: str,
    estimator: Any,
    *,
    classes: Sequence[object] | None = None,
    variance: Callable[[Any], Any] | None = None,
    **declared: Any,
) -> Teacher:
    """A teacher from a fitted classifier, multi-label classifier or regressor.

    Classifiers give ``predict_proba``, and without it their ``decision_function`` as logits.
    Classifiers of several outputs, and all with ``family="multilabel"``, give the probability of
    each label; a label that was never, or always, set in training has probability 0, or 1.
    Regressors give ``predict``, with a variance where they know their standard deviation (Gaussian
    processes, Bayesian ridge) or where one is given.

    Args:
        name: What the teacher is called.
        estimator: Fitted.
        classes: Names of its labels or targets, in order. A classifier's classes are its own.
        variance: Inputs to the variances of a regressor's targets, shape (example, target).
        **declared: The other attributes of `Teacher`.

    Raises:
        InputError: If the estimator is not fitted or gives nothing to learn from.
    """
    names = None if classes is None else tuple(map(str, classes))
    own = getattr(estimator, "classes_", None)
    family = declared.pop("family", None)
    if family is None:
        several = isinstance(own, list) or getattr(estimator, "multilabel_", False)
        answers = ("classes_", "predict_proba", "decision_function")
        classifies = any(hasattr(estimator, each) for each in answers)
        family = ("multilabel" if several else "classification") if classifies else "regression"
    outcome = OUTCOMES.get(family, CLASSES)  # one that is none is refused with what it says
    if outcome.numeric:
        return _regressor(name, estimator, names, variance, declared)
    if own is None:
        raise InputError(
            f"Expected a fitted classifier for teacher {name!r}, but got "
            f"{type(estimator).__name__} without classes_. Fit it first."
        )
    if not outcome.exclusive:
        return _labeller(name, estimator, own, names, declared)
    declared["family"] = family
    found = tuple(str(c) for c in own)
    if names is not None and names != found:
        raise InputError(
            f"Expected the classes of teacher {name!r} to be its own, {', '.join(found)}, but got "
            f"{', '.join(names)}. Leave them out, and rename them with class_map."
        )
    if hasattr(estimator, "predict_proba"):
        probs = estimator.predict_proba
        return from_callable(name, probs, kind="probs", classes=found, **declared)
    if not hasattr(estimator, "decision_function"):
        raise InputError(
            f"Expected predict_proba or decision_function of teacher {name!r}, but got "
            f"{type(estimator).__name__} with neither. Calibrate it (CalibratedClassifierCV)."
        )

    def logits(inputs: Any) -> NDArray[np.generic]:
        scores = np.asarray(estimator.decision_function(inputs))
        if scores.ndim == 1:
            return np.stack([np.zeros_like(scores), scores], 1)
        if scores.shape[1] != len(found) and getattr(estimator, "decision_function_shape", ""):
            raise InputError(
                f"Expected one score for each class from teacher {name!r}, but got "
                f"{scores.shape[1]} for {len(found)} classes. Set decision_function_shape='ovr'."
            )
        return scores

    return from_callable(name, logits, kind="logits", classes=found, **declared)


def _labeller(
    name: str, estimator: Any, own: Any, names: tuple[str, ...] | None, declared: dict[str, Any]
) -> Teacher:
    if not hasattr(estimator, "predict_proba"):
        raise InputError(
            f"Expected predict_proba of teacher {name!r}, but got {type(estimator).__name__} "
            "without it. Train one that gives probabilities of labels."
        )
    known = own if isinstance(own, list) else [(0, 1)] * len(own)
    odd = [i for i, values in enumerate(known) if not {float(v) for v in values} <= {0.0, 1.0}]
    if odd:
        raise InputError(
            f"Expected labels of teacher {name!r} to be 0 or 1, but got "
            f"{', '.join(map(str, known[odd[0]]))} in output {odd[0]}. Make one teacher of each "
            "output that has classes."
        )
    if names is not None and len(names) != len(known):
        raise InputError(
            f"Expected {len(known)} names of labels for teacher {name!r}, but got {len(names)}. "
            "Name each output."
        )

    def probs(inputs: Any) -> NDArray[np.generic]:
        given = estimator.predict_proba(inputs)
        if not isinstance(given, list):
            return np.asarray(given)
        return np.stack([_of_yes(p, v) for p, v in zip(given, known, strict=True)], 1)

    labels = names or range(len(known))
    return from_callable(name, probs, kind="probs", classes=labels, family="multilabel", **declared)


def _of_yes(probs: NDArray[np.float64], values: Sequence[float]) -> NDArray[np.float64]:
    """Probability of a set label, shape (example,), from those of the values seen in training."""
    where = [i for i, value in enumerate(values) if value == 1]
    return probs[:, where[0]] if where else np.zeros(len(probs))


def _regressor(
    name: str,
    estimator: Any,
    names: tuple[str, ...] | None,
    variance: Callable[[Any], Any] | None,
    declared: dict[str, Any],
) -> Teacher:
    if names is None:
        raise InputError(
            f"Expected names of the targets of teacher {name!r}, but got none. Pass classes=, one "
            "for each."
        )
    last = getattr(estimator, "steps", [(name, estimator)])[-1][1]
    knows = "return_std" in inspect.signature(last.predict).parameters

    def predict(inputs: Any) -> Any:
        if variance is not None:
            return _columns(estimator.predict(inputs)), _columns(variance(inputs))
        if knows:
            mean, deviation = estimator.predict(inputs, return_std=True)
            return _columns(mean), np.square(_columns(deviation))
        return _columns(estimator.predict(inputs))

    return from_callable(
        name,
        predict,
        kind="mean",
        classes=names,
        family="regression",
        variance=knows or variance is not None,
        **declared,
    )


def _columns(numbers: Any) -> NDArray[np.float64]:
    array = np.asarray(numbers)
    return array[:, None] if array.ndim == 1 else array
