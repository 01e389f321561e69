"""What both estimators do: settings, inputs, distillation, answers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from mtbkd.data import Dataset, make_dataset
from mtbkd.distillation.choose import choose_prior, choose_units, choose_weighting
from mtbkd.distillation.distill import distill
from mtbkd.distillation.posterior import Posterior
from mtbkd.distillation.rounds import disagreement
from mtbkd.distillation.trials import Trials, shorter
from mtbkd.estimators.asking import FitRows, ask_all
from mtbkd.inference.diagnostics import RHAT_LIMIT
from mtbkd.inference.engines import METHODS, SamplerSettings
from mtbkd.inference.modes import MapSettings
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.prior.settings import PriorSettings, Rule
from mtbkd.student.devices import find_device, one_thread
from mtbkd.student.student import make_student
from mtbkd.training import training_set
from mtbkd.types import Floats, InputError

EngineName = Literal["auto", "hmc", "sghmc", "sgld", "csghmc", "laplace", "ensemble"]

_MODE_BATCH, _BATCH = 64, 256
_BURN_IN = 1000
_MODE_STEPS, _FEW_MODE_STEPS = 1000, 400
_ON = ("auto", "hmc", "sghmc", "sgld", "csghmc")  # engines whose chains leave the modes
_FIRST, _FIRST_THINNING = 200, 4  # steps of the first round
_FEWEST = 10  # labels that can choose the power


def fit_student(
    estimator: Any,
    inputs: Floats,
    labels: NDArray[Any],
    rows: FitRows,
    given: Mapping[str, Any] | TeacherOutputs | None,
) -> None:
    """Standardise, ask the teachers, distil, and leave the fitted attributes behind.

    PyTorch runs on one thread meanwhile, but for the teachers, which may be large.
    """
    teachers = None if given is None else ask_all(given, rows)
    with one_thread():
        _fit(estimator, inputs, labels, rows, teachers)
    if estimator.rhat_ > RHAT_LIMIT:
        warnings.warn(
            f"Chains disagree on what the student says (95 % of R-hat are below "
            f"{estimator.rhat_:.2f}, expected below {RHAT_LIMIT}). Raise budget, or thinning and "
            "burn_in.",
            ConvergenceWarning,
            stacklevel=3,
        )


def _fit(
    estimator: Any,
    inputs: Floats,
    labels: NDArray[Any],
    rows: FitRows,
    teachers: TeacherOutputs | None,
) -> None:
    largest = np.abs(inputs).max(0)
    unit = np.ldexp(
        1.0, np.frexp(largest)[1] - 1
    )  # a power of two, so that squares do not overflow
    estimator.input_mean_ = unit * (inputs / unit).mean(0)
    spread = unit * (inputs / unit).std(0)
    estimator.input_scale_ = np.where(spread <= 1e-12 * largest, 1.0, spread)
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
    n_outputs = data.outcome.n_outputs * len(rows.columns)
    until_agreed = estimator.thinning is None
    usual = _FEW_MODE_STEPS if until_agreed and estimator.engine in _ON else _MODE_STEPS
    modes = MapSettings(
        epochs=math.ceil((estimator.mode_steps or usual) / math.ceil(len(data) / _MODE_BATCH)),
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
            engine=estimator.engine,
            burn_in=estimator.burn_in or (_FIRST if until_agreed else _BURN_IN),
            draws=estimator.draws,
            thinning=estimator.thinning or _FIRST_THINNING,
            batch_size=None if until_agreed else _BATCH,
        ),
        chains=int(estimator.chains),
        budget=float(estimator.budget) if until_agreed else None,
        weight_scale=float(estimator.weight_scale),
        seed=seed,
        device=estimator.device,
    )
    estimator.teacher_weights_ = (
        {} if teachers is None else _mean_weights(estimator.posterior_, teachers, data)
    )
    estimator.rhat_ = _rhat(estimator.posterior_, data.inputs)


def _rhat(posterior: Posterior, inputs: Tensor) -> float:
    """The R-hat that 95 % of functions of the student are below, on some of the inputs."""
    if METHODS[posterior.plan.engine].independent:
        return math.nan
    return disagreement(posterior.student, posterior.samples, inputs, posterior.family)


def _prior(
    estimator: Any,
    widths: list[int],
    data: Dataset,
    teachers: TeacherOutputs | None,
    modes: MapSettings,
    seed: int,
) -> PriorSettings:
    """The settings with what is ``auto`` chosen on some of the labels, if these can tell."""
    asked = PriorSettings(
        weights=estimator.weights, concentration=estimator.concentration, power=estimator.power
    )
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
    student = student.to(find_device(estimator.device, double=True))
    units = choose_units(rest, teachers, calibration, None)
    weighting = choose_weighting(asked.weights, rest, teachers, calibration, None, units)
    training = training_set(student, rest, teachers, weighting, None, units)
    trials = Trials(
        student=student,
        training=training,
        modes=shorter(modes),
        calibration=calibration,
        units=units,
        seed=seed,
    )
    found = choose_prior(asked, trials)
    return replace(
        asked,
        concentration=found.concentration,
        power=float(found.power),
        discount=found.discount,
    )


def _mean_weights(
    posterior: Posterior, teachers: TeacherOutputs, data: Dataset
) -> dict[str, float]:
    values = teachers.values
    if posterior.units is not None:
        values = posterior.units.to(torch.device("cpu")).values(values)
    said = posterior.weighting.apply(
        values, teachers.mask, teachers.kept, teachers.observation, data.inputs
    )
    weights = torch.where(teachers.mask, said.log_weights.exp(), 0.0).flatten(1).double().sum(1)
    counts = teachers.mask.flatten(1).sum(1).clamp_min(1)
    return dict(zip(teachers.names, (weights / counts).tolist(), strict=True))


def _mlp(widths: list[int]) -> nn.Module:
    """Linear layers, all zero, with ReLU in between; the global random state is not touched."""
    layers: list[nn.Module] = []
    for n_in, n_out in zip(widths[:-1], widths[1:], strict=True):
        linear = nn.Linear(n_in, n_out, device="meta")
        linear.weight = nn.Parameter(torch.zeros(n_out, n_in))
        linear.bias = nn.Parameter(torch.zeros(n_out))
        layers += [linear, nn.ReLU()]
    return layers[0] if len(widths) == 2 else nn.Sequential(*layers[:-1])


def predict_rows(estimator: Any, X: Any, level: float, point: Literal["mean", "mode"]) -> Any:
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
    with np.errstate(over="ignore"):  # infinity is refused by its place
        return (inputs - estimator.input_mean_) / estimator.input_scale_


def fitted_inputs(estimator: Any, X: Any) -> Floats:
    """Inputs of `fit`, checked as the settings are; their number and names are remembered."""
    _check_settings(estimator)
    return np.asarray(validate_data(estimator, X, dtype=np.float64, ensure_min_samples=2))


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
        value = getattr(estimator, name)
        left_out = value is None and name in ("mode_steps", "burn_in", "thinning")
        good = left_out or is_number(value, Integral)
        check(name, good, "a whole number above 0", "Raise it.")
    for name in ("weight_scale", "budget"):
        good = is_number(getattr(estimator, name), Real)
        check(name, good, "a number above 0", "Raise it.")
    for name in ("concentration", "power"):
        value = getattr(estimator, name)
        good = is_number(value, Real) or (isinstance(value, str) and value == "auto")
        check(name, good, "'auto' or a number above 0", "Give one of these.")
    share = estimator.calibration_fraction
    good = is_number(share, Real, -1) and 0 <= share < 1
    check("calibration_fraction", good, "from 0 up to, but not including, 1", "Give 0.2, say.")
    for name, choices in {
        "weights": get_args(Rule),
        "engine": ("auto", *METHODS),
        "point": ("mean", "mode"),
    }.items():
        good = getattr(estimator, name, choices[0]) in choices
        check(name, good, f"one of {', '.join(choices)}", "Choose one of them.")
    if faults:
        raise InputError(*faults)
