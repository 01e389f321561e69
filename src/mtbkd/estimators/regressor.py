"""The regressor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from mtbkd.estimators.asking import Teachers, by_name, fit_rows
from mtbkd.estimators.fitting import (
    EngineName,
    fit_student,
    fitted_inputs,
    predict_rows,
)
from mtbkd.estimators.labels import target_names, target_numbers
from mtbkd.predictive import NumberPredictive
from mtbkd.prior.settings import Rule
from mtbkd.types import Floats


class DistilledRegressor(RegressorMixin, BaseEstimator):
    """A small Bayesian network of numbers, their noise and its own doubt, with or without teachers.

    It gives each example a Gaussian whose variance may depend on the example. Everything else is
    as in `DistilledClassifier`, which describes the arguments; there may be several targets.

    Attributes:
        n_features_in_: Columns of X.
        feature_names_in_: Their names, if X had names that are strings.
        input_mean_: Mean of each column of X.
        input_scale_: Its standard deviation, 1 if it does not vary.
        posterior_: The `mtbkd.Posterior` over students; it reads standardised inputs.
        teacher_weights_: Name of each teacher to its mean weight over the examples it speaks on.
        rhat_: The R-hat that 95 % of what the student says of rows of X are below; 1 is perfect,
            above 1.1 `fit` gives a `sklearn.exceptions.ConvergenceWarning`. NaN where the engine's
            draws are independent of each other (``laplace``, ``ensemble``), or fewer than four.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (64,),
        *,
        weight_scale: float = 1.0,
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
        self.device = device
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(
        self,
        X: Any,
        y: Any,
        teachers: Teachers = None,
        *,
        held_out: bool = True,
        targets: Sequence[object] | None = None,
        ids: Sequence[object] | None = None,
    ) -> DistilledRegressor:
        """Learn from numbers and teachers.

        Args:
            X: Inputs, shape (example, feature).
            y: Numbers, shape (example,) or (example, target), NaN or None where missing.
            teachers: None; or a list, or a dict by name, of fitted regressors, of functions of X
                or arrays that give means or a tuple (mean, variance), of `TeacherTable` or of
                `mtbkd.teachers.Teacher`; or `TeacherOutputs`. Regressors whose ``predict`` takes
                ``return_std`` give variances; those of others are estimated from ten labels or
                more.
            held_out: Whether regressors, functions and arrays come from **other** examples than
                the rows of X. Say False if not: then labels cannot tell how good they are.
            targets: Their names, by which columns of tables are matched; those of ``y`` if it has
                some, else "y", or "y0", "y1", ….
            ids: As in `DistilledClassifier.fit`.

        Raises:
            InputError: With one message for each fault; it is a ValueError.
        """
        inputs = fitted_inputs(self, X)
        numbers = target_numbers(y, len(inputs))
        names = target_names(y, numbers, targets)
        rows = fit_rows(X, inputs, ids, names, held_out=held_out, family="regression")
        fit_student(self, inputs, numbers, rows, by_name(teachers))
        self._flat = numbers.ndim == 1
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Mean of each target.

        Args:
            X: Inputs.
            return_std: Whether to give the standard deviation of a new observation too.

        Returns:
            Means, or means and standard deviations, each of the shape of ``y``.
        """
        answer = self._answer(X)
        mean = self._shaped(answer.mean)
        return (mean, self._shaped(np.sqrt(answer.total))) if return_std else mean

    def predict_uncertainty(self, X: Any, level: float = 0.9) -> dict[str, Floats]:
        """Standard deviations in units of ``y``, and the interval, by name.

        ``total`` is that of a new observation; ``aleatoric``, the noise, would stay with more data;
        ``epistemic``, what the draws' means disagree on, would not. Their squares add up.
        ``lower`` and ``upper`` are those of `predict_interval`.
        """
        answer = self._answer(X, level)
        parts = ("total", "aleatoric", "epistemic")
        found = {part: self._shaped(np.sqrt(getattr(answer, part))) for part in parts}
        return found | {end: self._shaped(getattr(answer, end)) for end in ("lower", "upper")}

    def predict_interval(self, X: Any, level: float = 0.9) -> tuple[Floats, Floats]:
        """Ends of the interval that holds a new observation with this probability."""
        answer = self._answer(X, level)
        return self._shaped(answer.lower), self._shaped(answer.upper)

    def _answer(self, X: Any, level: float = 0.9) -> NumberPredictive:
        return predict_rows(self, X, level, "mean")

    def _shaped(self, values: Floats) -> Floats:
        return values[:, 0] if self._flat else values
