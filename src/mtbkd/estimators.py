"""Distilled students as scikit-learn estimators: a classifier and a regressor."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from mtbkd.data import Dataset, make_dataset
from mtbkd.distill import Posterior, distill, pick_device
from mtbkd.inference.engines import METHODS, SamplerSettings
from mtbkd.inference.run import MapSettings
from mtbkd.learning import (
    PriorSettings,
    choose_prior,
    choose_units,
    choose_weighting,
    observation_of,
    training_set,
)
from mtbkd.outputs import TeacherOutputs, TeacherTable, align, make_table
from mtbkd.predictive import Answer, NumberPredictive, Predictive
from mtbkd.student import make_student
from mtbkd.types import Family, InputError

Floats = NDArray[np.float64]
Teachers = Sequence[Any] | Mapping[str, Any] | TeacherOutputs | None
Weights = Literal["auto", "uniform", "entropy", "stacked"]
EngineName = Literal["auto", "hmc", "sghmc", "sgld", "csghmc", "laplace", "ensemble"]

_WEIGHTS = ("auto", "uniform", "entropy", "stacked")
_MODE_BATCH, _BATCH = 64, 256
_FEWEST = 10  # labels that can choose the power


class DistilledClassifier(ClassifierMixin, BaseEstimator):
    """A small Bayesian network that learns from labels, some of them missing, and from teachers.

    A step is one gradient over a batch, so the time of `fit` hardly depends on the number of
    examples. Inputs are standardised inside, column by column, by mean and deviation of the rows
    of `fit`.

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
        mode_steps: Steps that look for the modes, but one pass over the examples or more.
        burn_in: Steps of the sampler that are dropped.
        draws: Kept of each chain.
        thinning: Steps for each draw.
        point: Point estimate of the probabilities: ``mean`` of the draws, or ``mode`` of each.
        device: ``auto``, ``cpu`` or ``cuda``.
        random_state: Seed, or a RandomState; the same seed gives the same predictions.

    Attributes:
        classes_: Labels, sorted, in the order of the columns of `predict_proba`.
        n_features_in_: Columns of X.
        feature_names_in_: Their names, if X had names that are strings.
        input_mean_: Of each column of X.
        input_scale_: Its standard deviation, 1 if it does not vary.
        posterior_: The `mtbkd.Posterior` over students; it reads standardised inputs.
        teacher_weights_: Name of each teacher to its mean weight over the examples it speaks on.

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
        weights: Weights = "auto",
        concentration: float | Literal["auto"] = 1.0,
        power: float | Literal["auto"] = "auto",
        calibration_fraction: float = 0.2,
        engine: EngineName = "auto",
        chains: int = 4,
        mode_steps: int = 1000,
        burn_in: int = 1000,
        draws: int = 50,
        thinning: int = 50,
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
        self.point = point
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
            y: Labels, None or NaN where missing; -1 is a class like any other.
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
        _check_settings(self)
        inputs = _fitted_inputs(self, X)
        labels, known = _class_labels(y, len(inputs))
        given = _by_name(teachers)
        names = _classes(labels, given, classes)
        position = {name: i for i, name in enumerate(map(_class_name, names))}
        indices = np.full(len(inputs), -1)
        try:
            indices[known] = [position[_class_name(label)] for label in labels.tolist()]
        except KeyError as error:
            raise InputError(
                f"Expected labels among the {len(names)} classes, but got {error.args[0]!r}. "
                "Correct it, or add it to classes."
            ) from None
        rows = _Rows(
            _as_teachers_read(X, inputs), *_ids(ids, len(inputs)), tuple(position), held_out
        )
        self.classes_ = names
        _fit(self, inputs, indices, rows, given)
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
        return {
            "total": answer.total,
            "aleatoric": answer.aleatoric,
            "epistemic": answer.epistemic,
        }

    def predict_interval(self, X: Any, level: float = 0.9) -> tuple[Floats, Floats]:
        """Ends of the credible interval of each probability, two of shape (example, class)."""
        answer = self._answer(X, level)
        return answer.lower, answer.upper

    def _answer(self, X: Any, level: float = 0.9) -> Predictive:
        point: Any = self.point
        answer = _answer(self, X, level, point)
        assert isinstance(answer, Predictive)
        return answer


class DistilledRegressor(RegressorMixin, BaseEstimator):
    """A small Bayesian network of numbers, their noise and its own doubt, with or without teachers.

    It gives each example a Gaussian whose variance may depend on the example. Everything else is
    as in `DistilledClassifier`, which describes the arguments; there may be several targets.

    Attributes:
        n_features_in_: Columns of X.
        feature_names_in_: Their names, if X had names that are strings.
        input_mean_: Of each column of X.
        input_scale_: Its standard deviation, 1 if it does not vary.
        posterior_: The `mtbkd.Posterior` over students; it reads standardised inputs.
        teacher_weights_: Name of each teacher to its mean weight over the examples it speaks on.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (64,),
        *,
        weight_scale: float = 1.0,
        weights: Weights = "auto",
        concentration: float | Literal["auto"] = 1.0,
        power: float | Literal["auto"] = "auto",
        calibration_fraction: float = 0.2,
        engine: EngineName = "auto",
        chains: int = 4,
        mode_steps: int = 1000,
        burn_in: int = 1000,
        draws: int = 50,
        thinning: int = 50,
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
        _check_settings(self)
        inputs = _fitted_inputs(self, X)
        numbers = _target_numbers(y, len(inputs))
        names = _target_names(y, numbers, targets)
        rows = _Rows(
            _as_teachers_read(X, inputs), *_ids(ids, len(inputs)), names, held_out, "regression"
        )
        _fit(self, inputs, numbers, rows, _by_name(teachers))
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
        found = {
            "total": np.sqrt(answer.total),
            "aleatoric": np.sqrt(answer.aleatoric),
            "epistemic": np.sqrt(answer.epistemic),
            "lower": answer.lower,
            "upper": answer.upper,
        }
        return {name: self._shaped(values) for name, values in found.items()}

    def predict_interval(self, X: Any, level: float = 0.9) -> tuple[Floats, Floats]:
        """Ends of the interval that holds a new observation with this probability."""
        answer = self._answer(X, level)
        return self._shaped(answer.lower), self._shaped(answer.upper)

    def _answer(self, X: Any, level: float = 0.9) -> NumberPredictive:
        answer = _answer(self, X, level, "mean")
        assert isinstance(answer, NumberPredictive)
        return answer

    def _shaped(self, values: Floats) -> Floats:
        return values[:, 0] if self._flat else values


@dataclass(frozen=True)
class _Rows:
    """What teachers are asked about.

    Attributes:
        inputs: As they were given to `fit`.
        ids: One for each row.
        named: Whether the user gave the ids.
        columns: Names of classes or targets.
        held_out: Whether teachers that do not say are.
        family: Of the student.
    """

    inputs: Any
    ids: tuple[str, ...]
    named: bool
    columns: tuple[str, ...]
    held_out: bool
    family: Family = "classification"


def _fit(
    estimator: Any,
    inputs: Floats,
    labels: NDArray[Any],
    rows: _Rows,
    given: Mapping[str, Any] | TeacherOutputs | None,
) -> None:
    """Standardise, ask the teachers, distil, and leave the fitted attributes behind."""
    teachers = None if given is None else _outputs(given, rows)
    estimator.input_mean_ = inputs.mean(0)
    spread = inputs.std(0)
    tiny = spread <= 1e-12 * np.abs(inputs).max(0)
    estimator.input_scale_ = np.where(tiny, 1.0, spread)
    scaled = torch.from_numpy(_standardised(estimator, inputs)).float()
    data = make_dataset(
        scaled, labels=labels, classes=rows.columns, ids=rows.ids, family=rows.family, name="X"
    )
    if teachers is None:
        if not data.n_labelled:
            raise InputError(
                "Expected a label in y, or teachers, but got neither. Label examples or give "
                "teachers."
            )
        data = data.subset(data.known.nonzero()[:, 0])
    chance = check_random_state(estimator.random_state)
    seed = int(chance.randint(2**31 - 1))
    widths = [inputs.shape[1], *map(int, estimator.hidden)]
    n_outputs = len(rows.columns) * (2 if rows.family == "regression" else 1)
    modes = MapSettings(
        epochs=math.ceil(estimator.mode_steps / math.ceil(len(data) / _MODE_BATCH)),
        batch_size=_MODE_BATCH,
    )
    prior = _prior(estimator, [*widths, n_outputs], data, teachers, modes, seed)
    estimator.posterior_ = distill(
        _mlp([*widths, n_outputs]),
        data,
        teachers,
        prior=prior,
        modes=modes,
        sampler=SamplerSettings(
            estimator.engine, estimator.burn_in, estimator.draws, estimator.thinning, _BATCH
        ),
        chains=int(estimator.chains),
        weight_scale=float(estimator.weight_scale),
        seed=seed,
        device=estimator.device,
    )
    estimator.teacher_weights_ = (
        {} if teachers is None else _mean_weights(estimator.posterior_, teachers)
    )


def _prior(
    estimator: Any,
    widths: list[int],
    data: Dataset,
    teachers: TeacherOutputs | None,
    modes: MapSettings,
    seed: int,
) -> PriorSettings:
    """The settings with what is ``auto`` chosen on some of the labels, if these can tell."""
    asked = PriorSettings(estimator.weights, estimator.concentration, 1.0, estimator.power)
    known = data.known.nonzero()[:, 0].numpy()
    share = estimator.calibration_fraction
    n_chosen = max(round(share * len(known)), _FEWEST)
    settled = "auto" not in (asked.power, asked.concentration) or share == 0
    few = n_chosen > max(share, 0.5) * len(known)
    if settled or few or teachers is None or not teachers.held_out:
        return asked
    aside = np.sort(np.random.default_rng(seed).permutation(known)[:n_chosen])
    rest = data.subset(np.setdiff1d(np.arange(len(data)), aside))
    calibration = data.subset(aside)
    student = make_student(_mlp(widths), weight_scale=float(estimator.weight_scale))
    student = student.to(pick_device(estimator.device))
    units = choose_units(rest, teachers, calibration, None)
    weighting = choose_weighting(asked.weights, rest, teachers, calibration, None, units)
    training = training_set(student, rest, teachers, weighting, None, units)
    found = choose_prior(
        asked, student, training, modes, calibration, seed=seed, out=None, report=None, units=units
    )
    return replace(asked, concentration=found.concentration, power=float(found.strength.power))


def _mean_weights(posterior: Posterior, teachers: TeacherOutputs) -> dict[str, float]:
    observation, _ = observation_of(teachers)
    values = teachers.values if posterior.units is None else _values(posterior, teachers)
    said = posterior.weighting.apply(values, teachers.mask, teachers.kept, observation)
    weights = torch.where(teachers.mask, said.log_weights.exp(), 0.0).flatten(1).double().sum(1)
    counts = teachers.mask.flatten(1).sum(1).clamp_min(1)
    return dict(zip(teachers.names, (weights / counts).tolist(), strict=True))


def _values(posterior: Posterior, teachers: TeacherOutputs) -> torch.Tensor:
    assert posterior.units is not None
    return posterior.units.to(torch.device("cpu")).values(teachers.values)


def _mlp(widths: list[int]) -> nn.Module:
    """Linear layers, all zero, with ReLU in between; the global random state is not touched."""
    layers: list[nn.Module] = []
    for n_in, n_out in zip(widths[:-1], widths[1:], strict=True):
        linear = nn.utils.skip_init(nn.Linear, n_in, n_out)
        for parameter in linear.parameters():
            nn.init.zeros_(parameter)
        layers += [linear, nn.ReLU()]
    return layers[0] if len(widths) == 2 else nn.Sequential(*layers[:-1])


def _answer(estimator: Any, X: Any, level: float, point: Literal["mean", "mode"]) -> Answer:
    """Predict in double precision, so that a row does not depend on those beside it."""
    check_is_fitted(estimator)
    if not 0 < level < 1:
        raise InputError(f"Expected level between 0 and 1, but got {level}. Give 0.9, say.")
    inputs = validate_data(estimator, X, reset=False, dtype=np.float64)
    scaled = torch.from_numpy(_standardised(estimator, np.asarray(inputs)))
    posterior: Posterior = estimator.posterior_
    exact = tuple(segment.double() for segment in posterior.samples.segments)
    samples = replace(posterior.samples, segments=exact)
    return replace(posterior, samples=samples).predict(scaled, level=level, point=point)


def _standardised(estimator: Any, inputs: Floats) -> Floats:
    return (inputs - estimator.input_mean_) / estimator.input_scale_


def _fitted_inputs(estimator: Any, X: Any) -> Floats:
    return np.asarray(validate_data(estimator, X, dtype=np.float64, ensure_min_samples=2))


def _as_teachers_read(X: Any, inputs: Floats) -> Any:
    """Data frames as they are, since estimators look at their names; else numbers."""
    return X if hasattr(X, "columns") else inputs


def _ids(ids: Sequence[object] | None, n_rows: int) -> tuple[tuple[str, ...], bool]:
    found = tuple(map(str, range(n_rows) if ids is None else ids))
    if len(found) != n_rows:
        raise InputError(
            f"Expected {n_rows} ids, one for each row of X, but got {len(found)}. Give one each."
        )
    return found, ids is not None


def _check_settings(estimator: Any) -> None:
    """Refuse settings that are none.

    Raises:
        InputError: With one message for each.
    """
    faults = []

    def check(name: str, good: bool, what: str, remedy: str) -> None:
        if not good:
            value = getattr(estimator, name)
            faults.append(f"Expected {name} to be {what}, but got {value!r}. {remedy}")

    def is_number(value: Any, kind: type, above: float = 0) -> bool:
        return isinstance(value, kind) and not isinstance(value, bool) and value > above

    hidden = estimator.hidden
    sizes = isinstance(hidden, Sequence) and all(is_number(n, Integral) for n in hidden)
    check("hidden", sizes, "a tuple of layer sizes above 0", "Give (64,), or () for none.")
    for name in ("chains", "mode_steps", "burn_in", "draws", "thinning"):
        good = is_number(getattr(estimator, name), Integral)
        check(name, good, "a whole number above 0", "Raise it.")
    good = is_number(estimator.weight_scale, Real)
    check("weight_scale", good, "a number above 0", "Raise it.")
    for name in ("concentration", "power"):
        value = getattr(estimator, name)
        good = is_number(value, Real) or (isinstance(value, str) and value == "auto")
        check(name, good, "'auto' or a number above 0", "Give one of these.")
    share = estimator.calibration_fraction
    good = is_number(share, Real, -1) and 0 <= share < 1
    check("calibration_fraction", good, "from 0 up to, but not including, 1", "Give 0.2, say.")
    for name, choices in {
        "weights": _WEIGHTS,
        "engine": ("auto", *METHODS),
        "point": ("mean", "mode"),
    }.items():
        good = getattr(estimator, name, choices[0]) in choices
        check(name, good, f"one of {', '.join(choices)}", "Choose one of them.")
    if faults:
        raise InputError(*faults)


def _refuse_none(y: Any) -> None:
    if y is None:
        raise InputError(
            "Expected labels, since fit requires y to be passed, but the target y is None. Give "
            "labels, NaN where they are missing."
        )


def _is_missing(value: object) -> bool:
    absent = value is None or type(value).__name__ in ("NAType", "NaTType")
    return absent or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def _class_labels(y: Any, n_rows: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The labels that are known, and which rows have them."""
    _refuse_none(y)
    if isinstance(y, list | tuple):  # NumPy would write NaN among strings as "nan"
        y = np.array(y, dtype=object)
    labels = column_or_1d(y, warn=True)
    check_consistent_length(np.empty(n_rows), labels)
    if labels.dtype.kind not in "fO":
        check_classification_targets(labels)
        return labels, np.ones(n_rows, dtype=bool)
    known = np.array([not _is_missing(value) for value in labels.tolist()])
    labels = labels[known]
    if labels.dtype.kind == "O":
        labels = _one_kind(labels.tolist())
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


def _class_name(label: object) -> str:
    """The same name for 1 and 1.0, since labels with NaN among them are floats."""
    whole = isinstance(label, float | np.floating) and float(label).is_integer()
    return str(int(label)) if whole else str(label)  # type: ignore[call-overload]


def _classes(labels: NDArray[Any], given: Any, classes: ArrayLike | None) -> NDArray[Any]:
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


def _target_numbers(y: Any, n_rows: int) -> Floats:
    """Targets, shape (example,) or (example, target), NaN where missing."""
    _refuse_none(y)
    options: Any = {"dtype": np.float64, "ensure_all_finite": "allow-nan", "input_name": "y"}
    numbers = check_array(y, ensure_2d=False, **options)
    check_consistent_length(np.empty(n_rows), numbers)
    return numbers


def _target_names(y: Any, numbers: Floats, targets: Sequence[object] | None) -> tuple[str, ...]:
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
    if getattr(y, "name", None) is not None:
        return (str(y.name),)
    return ("y",) if n_targets == 1 else tuple(f"y{t}" for t in range(n_targets))


def _by_name(teachers: Any) -> Mapping[str, Any] | TeacherOutputs | None:
    if teachers is None or isinstance(teachers, TeacherOutputs):
        return teachers
    if not isinstance(teachers, list | Mapping) or not teachers:
        got = "none in it" if isinstance(teachers, list | Mapping) else type(teachers).__name__
        raise InputError(
            f"Expected teachers as a list, a dict by name or TeacherOutputs, but got {got}. Put "
            "them into a list, or pass None for a student of labels alone."
        )
    if isinstance(teachers, Mapping):
        return {str(name): teacher for name, teacher in teachers.items()}
    named: dict[str, Any] = {}
    for i, teacher in enumerate(teachers):
        own = getattr(teacher, "name", None)
        name = own if isinstance(own, str) else f"{i}: {_kind_of(teacher)}"
        named[name if name not in named else f"{i}: {name}"] = teacher
    return named


def _kind_of(teacher: Any) -> str:
    return getattr(teacher, "__name__", type(teacher).__name__)


def _outputs(given: Mapping[str, Any] | TeacherOutputs, rows: _Rows) -> TeacherOutputs:
    """What the teachers say on the rows."""
    if isinstance(given, TeacherOutputs):
        if rows.named:
            return given.at(rows.ids)
        _check_rows("the teachers", len(given.ids), rows)
        return replace(given, ids=rows.ids)
    tables, faults = [], []
    for name, teacher in given.items():
        try:
            tables.append(_table(name, teacher, rows))
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(*faults)
    return align(tables, rows.ids, rows.columns)


def _table(name: str, teacher: Any, rows: _Rows) -> TeacherTable:
    """What one teacher, of whatever sort, says on the rows."""
    if isinstance(teacher, TeacherTable):
        return _matched(name, teacher, rows)
    if all(hasattr(teacher, part) for part in ("kind", "classes", "predict")):
        own = getattr(teacher, "family", rows.family)
        if own != rows.family:
            raise InputError(
                f"Expected a {rows.family} teacher, but {name!r} is one of {own}. Leave it out."
            )
        said = _ask(name, teacher.predict, rows)
        optional = {
            part: getattr(teacher, part)
            for part in ("partial", "class_map", "merge", "held_out")
            if hasattr(teacher, part)
        }
        declared = {"held_out": rows.held_out} | optional
        mean, variance = said if getattr(teacher, "variance", False) else (said, None)
        columns = tuple(map(_class_name, teacher.classes))
        return _made(name, mean, variance, rows, teacher.kind, columns, **declared)
    if rows.family == "regression":
        return _regression_table(name, teacher, rows)
    if hasattr(teacher, "predict_proba"):
        own = getattr(teacher, "classes_", None)
        if own is None or isinstance(own, list):
            raise InputError(
                f"Expected a fitted classifier of one label for teacher {name!r}, but got "
                f"{type(teacher).__name__} {'without' if own is None else 'with a list of'} "
                "classes_. Fit it first, on one column of labels."
            )
        said = _ask(name, teacher.predict_proba, rows)
        columns = tuple(map(_class_name, own))
        partial = set(columns) < set(rows.columns)
        return _made(
            name, said, None, rows, "probs", columns, held_out=rows.held_out, partial=partial
        )
    if hasattr(teacher, "predict"):
        raise InputError(
            f"Expected predict_proba of teacher {name!r}, but got {type(teacher).__name__} without "
            "it. Calibrate it (CalibratedClassifierCV)."
        )
    said = _ask(name, teacher, rows) if callable(teacher) else teacher
    return _made(name, said, None, rows, "probs", rows.columns, held_out=rows.held_out)


def _regression_table(name: str, teacher: Any, rows: _Rows) -> TeacherTable:
    if hasattr(teacher, "predict"):
        options = {"return_std": True} if _knows_its_deviation(teacher) else {}
        said = _ask(name, teacher.predict, rows, **options)
        if options:
            said = (said[0], np.square(said[1]))
    else:
        said = _ask(name, teacher, rows) if callable(teacher) else teacher
    parts = said if isinstance(said, tuple) else (said, None)
    if len(parts) != 2:
        raise InputError(
            f"Expected means, or a tuple (mean, variance), from teacher {name!r}, but got "
            f"{len(parts)} parts. Return one of these."
        )
    mean, variance = parts
    return _made(name, mean, variance, rows, "mean", rows.columns, held_out=rows.held_out)


def _knows_its_deviation(teacher: Any) -> bool:
    """Whether ``predict`` takes ``return_std``, of a pipeline that of its last step."""
    last = teacher.steps[-1][1] if hasattr(teacher, "steps") else teacher
    return "return_std" in inspect.signature(last.predict).parameters


def _ask(name: str, function: Any, rows: _Rows, **options: Any) -> Any:
    try:
        return function(rows.inputs, **options)
    except NotFittedError:
        raise InputError(
            f"Expected a fitted teacher {name!r}, but got one that is not. Fit it first."
        ) from None
    except Exception as error:
        raise InputError(
            f"Expected an answer on X from teacher {name!r}, but got "
            f"{type(error).__name__}: {error} Give it inputs as it was fitted on."
        ) from error


def _made(
    name: str,
    values: Any,
    variance: Any,
    rows: _Rows,
    kind: Any,
    columns: tuple[str, ...],
    **declared: Any,
) -> TeacherTable:
    shape = np.shape(values)
    _check_rows(f"teacher {name!r}", shape[0] if shape else 0, rows)
    return make_table(
        name,
        values,
        kind=kind,
        ids=rows.ids,
        classes=columns,
        family=rows.family,
        variance=variance,
        **declared,
    )


def _matched(name: str, table: TeacherTable, rows: _Rows) -> TeacherTable:
    """A table's rows in the order of X: by id if the user gave ids, else as they are."""
    if not rows.named:
        _check_rows(f"teacher {name!r}", len(table.ids), rows)
        return replace(table, name=name, ids=rows.ids)
    row_of = dict(zip(table.ids, range(len(table.ids)), strict=True))
    ids = tuple(i for i in rows.ids if i in row_of)
    where = torch.tensor([row_of[i] for i in ids], dtype=torch.long)
    kept = None if table.kept is None else table.kept[where]
    return replace(table, name=name, ids=ids, values=table.values[where], kept=kept)


def _check_rows(whose: str, n_given: int, rows: _Rows) -> None:
    if n_given != len(rows.ids):
        raise InputError(
            f"Expected {len(rows.ids)} rows from {whose}, one for each row of X, but got "
            f"{n_given}. Give as many; where rows are split, as in cross-validation, give an "
            "estimator or a function of X, or tables and ids."
        )
