"""The classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

from mtbkd.estimators.asking import Teachers, by_name, fit_rows
from mtbkd.estimators.fitting import (
    EngineName,
    fit_student,
    fitted_inputs,
    predict_rows,
)
from mtbkd.estimators.labels import all_classes, class_labels
from mtbkd.predictive import Predictive
from mtbkd.prior.settings import Rule
from mtbkd.types import Floats, InputError, class_name


class DistilledClassifier(ClassifierMixin, BaseEstimator):
    """A small Bayesian network that learns from labels, some of them missing, and from teachers.

    Chains go on until they agree, or for a minute of sampling; give `thinning` to fix the number of
    steps, so that `fit` does the same on every machine. Inputs are standardised inside, column by
    column, by mean and deviation of the rows of `fit`.

    Args:
        hidden: Units of each hidden layer; () for a linear student.
        weight_scale: Standard deviation of the weight prior in units of ``1 / sqrt(fan_in)``.
        weights: How teachers are weighed on each example: ``uniform``, ``entropy``, ``stacked``,
            or ``auto``: stacked where 20 labels or more are held out from them, else entropy.
        concentration: Pseudo-observations that the teachers are worth on an example, or ``auto``.
        power: How often each of these counts. A number that is ``auto`` is chosen on a share of
            the labels, and the student is then trained on all of them; with fewer than 20 labels,
            and with teachers that are not held out, power is 5 and concentration 1.
        calibration_fraction: That share, but ten labels or more; 0 chooses nothing.
        engine: Which sampler explores the posterior; ``auto`` is ``hmc`` or ``sghmc``.
        chains: How many, side by side, each from a mode of its own.
        mode_steps: Steps that look for the modes, but one pass over the examples or more. If not
            given, 1000, or 400 where chains go on from there until they agree.
        burn_in: Steps of the sampler that are dropped. If not given, as many as there are need of.
        draws: Kept of each chain.
        thinning: Steps for each draw. If not given, the chains make rounds of steps, each twice as
            long as the one before, until they agree on what the student says.
        budget: Seconds after which they end though they do not, where thinning is not given.
        point: Point estimate of the probabilities: ``mean`` of the draws, or ``mode`` of each.
        device: ``auto``, ``cpu`` or ``cuda``.
        random_state: Seed, or a RandomState; the same seed gives the same predictions.

    Attributes:
        classes_: Labels, sorted, in the order of the columns of `predict_proba`.
        n_features_in_: Columns of X.
        feature_names_in_: Their names, if X had names that are strings.
        input_mean_: Mean of each column of X.
        input_scale_: Its standard deviation, 1 if it does not vary.
        posterior_: The `mtbkd.Posterior` over students; it reads standardised inputs.
        teacher_weights_: Name of each teacher to its mean weight over the examples it speaks on.
        rhat_: The R-hat that 95 % of what the student says of rows of X are below; 1 is perfect,
            above 1.1 `fit` gives a `sklearn.exceptions.ConvergenceWarning`. NaN where the engine's
            draws are independent of each other (``laplace``, ``ensemble``), or fewer than four.

    Example:
        >>> X, y = [[-2.0], [-1.0], [1.0], [2.0]], ["low", "low", "high", "high"]
        >>> student = DistilledClassifier((), mode_steps=50, burn_in=50, draws=5, thinning=5)
        >>> print(*student.set_params(random_state=0).fit(X, y).predict([[-3.0], [3.0]]))
        low high
    """

    def __init__(
        self,
        hidden: Sequence[int] = (64,),
        *,
        weight_scale: float = 4.0,
        weights: Rule = "auto",
        concentration: float | Literal["auto"] = 1.0,
        power: float | Literal["auto"] = "auto",
        calibration_fraction: float = 0.2,
        engine: EngineName = "auto",
        chains: int = 4,
        mode_steps: int | None = None,
        burn_in: int | None = None,
        draws: int = 50,
        thinning: int | None = None,
        budget: float = 60.0,
        point: Literal["mean", "mode"] = "mean",
        device: str = "auto",
        random_state: Any = None,
    ) -> None:
        self.hidden = hidden
        self.weight_scale = weight_scale
        self.weights = weights
        self.concentration = concentration
        self.power = power
        self.calibration_fraction = calibration_fraction
        self.engine = engine
        self.chains = chains
        self.mode_steps = mode_steps
        self.burn_in = burn_in
        self.draws = draws
        self.thinning = thinning
        self.budget = budget
        self.point: Literal["mean", "mode"] = point
        self.device = device
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any,
        teachers: Teachers = None,
        *,
        held_out: bool = True,
        classes: ArrayLike | None = None,
        ids: Sequence[object] | None = None,
    ) -> DistilledClassifier:
        """Learn from labels and teachers.

        Args:
            X: Inputs, shape (example, feature).
            y: Labels, None or NaN where missing, in words too; -1 is a class like any other.
            teachers: None for a student of labels alone; or a list, or a dict by name, of fitted
                classifiers with ``predict_proba``, of functions of X or arrays that give
                probabilities of ``classes_``, of `TeacherTable` or of `mtbkd.teachers.Teacher`; or
                `TeacherOutputs`. Classifiers may know only some of the classes.
            held_out: Whether classifiers, functions and arrays come from **other** examples than
                the rows of X. Say False if not: then labels cannot tell how good they are.
            classes: All that there are, if they are more than those of ``y`` and of the
                classifiers among the teachers.
            ids: One for each row, by which tables are read; without them tables, like arrays, have
                one row for each row of X, in its order.

        Raises:
            InputError: With one message for each fault; it is a ValueError.
        """
        inputs = fitted_inputs(self, X)
        labels, known = class_labels(y, len(inputs), classes)
        given = by_name(teachers)
        names = all_classes(labels, given, classes)
        position = {name: i for i, name in enumerate(map(class_name, names))}
        indices = np.full(len(inputs), -1)
        try:
            indices[known] = [position[class_name(label)] for label in labels.tolist()]
        except KeyError as error:
            raise InputError(
                f"Expected labels among the {len(names)} classes, but got {error.args[0]!r}. "
                "Correct it, or add it to classes."
            ) from None
        rows = fit_rows(X, inputs, ids, tuple(position), held_out=held_out)
        self.classes_ = names
        fit_student(self, inputs, indices, rows, given)
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each row."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> Floats:
        """Probabilities, shape (example, class), in the order of ``classes_``."""
        return self._answer(X).probs

    def predict_log_proba(self, X: Any) -> Floats:
        """Their logarithms, in nats."""
        return np.log(np.maximum(self.predict_proba(X), np.finfo(np.float64).tiny))

    def predict_uncertainty(self, X: Any) -> dict[str, Floats]:
        """How unsure the student is of each row, in nats, by name.

        ``total`` is the entropy of the mean probabilities; ``aleatoric``, the mean entropy of a
        draw, would stay with more data; ``epistemic``, their difference, would not.
        """
        answer = self._answer(X)
        return {name: getattr(answer, name) for name in ("total", "aleatoric", "epistemic")}

    def predict_interval(self, X: Any, level: float = 0.9) -> tuple[Floats, Floats]:
        """Ends of the credible interval of each probability, two of shape (example, class)."""
        answer = self._answer(X, level)
        return answer.lower, answer.upper

    def _answer(self, X: Any, level: float = 0.9) -> Predictive:
        return predict_rows(self, X, level, self.point)
