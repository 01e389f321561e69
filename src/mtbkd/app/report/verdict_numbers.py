"""What is found about a student that predicts numbers."""

from __future__ import annotations

import math

import numpy as np

from mtbkd.app.report.data import NumberReportData
from mtbkd.app.report.findings import Finding, Level, losses, mean_when_handing_over, rivals
from mtbkd.app.report.words import join, percent, significant
from mtbkd.metrics import calibration_error, r2
from mtbkd.metrics.regression import LEVELS
from mtbkd.types import Floats

_TAIL = 0.05  # beyond either end of a 90 % interval


def findings(data: NumberReportData) -> tuple[Finding, ...]:
    """In the order in which a reader asks; the rules stand in `mtbkd.app.report.verdict`."""
    return (_rmse(data), _nll(data), _calibration(data), _intervals(data), _thirds(data))


def standardised(data: NumberReportData) -> tuple[Floats, Floats, Floats]:
    """Known answers of all targets together.

    Returns:
        Absolute error and predictive standard deviation in `NumberReportData.unit`, and
        `NumberReportData.pit`; each (answer,).
    """
    known = ~np.isnan(data.labels)
    error, sd = np.abs(data.mean - data.labels) / data.unit, data.sd / data.unit
    return error[known], sd[known], data.pit[known]


def calibration_by_chance(n: int) -> float:
    """The calibration error to be expected of perfect predictions of so many numbers.

    The share below a quantile is normal with variance ``q (1 - q) / n``, whose mean size is
    ``sqrt(2 / pi)`` standard deviations.
    """
    return float(np.sqrt(2 / math.pi * LEVELS * (1 - LEVELS) / n).mean())


def _rmse(data: NumberReportData) -> Finding:
    squares = np.square(standardised(data)[0])
    own = math.sqrt(squares.mean())
    error = float(squares.std() / math.sqrt(len(squares)) / (2 * own)) if own else 0.0
    others_at, baseline = rivals(data.metrics, "rmse")
    others = [f"{name} by {significant(value)}" for name, value in others_at.items()]
    others += [f"the best baseline by {significant(baseline)}"] if baseline is not None else []
    said = f"The student is off by {significant(own)} (RMSE{_unit(data)}) on "
    said += f"{len(data.labels):,} test examples"
    said += f"; {join(others)}." if others else "."
    explained = r2(data.mean, data.labels)
    useless = [n for n, share in zip(data.classes, explained, strict=True) if share <= 0]
    if useless:
        what = "its" if len(useless) == 1 else "their"
        said += f" For {join(useless)} it is no better than always naming {what} mean."
    gap = own - min(others_at.values(), default=own)
    if useless and len(useless) == np.sum(~np.isnan(explained)):
        return Finding("doubt", "its errors", said)
    good = not useless and gap <= max(0.02 * own, 2 * error)
    return Finding("trust" if good else "care", "its errors", said)


def _nll(data: NumberReportData) -> Finding:
    known = ~np.isnan(data.labels)
    each = -data.log_density
    own = float(each[known].mean())
    # answers on one example belong together, so the error is that of a ratio of sums over examples
    strays = np.where(known, each - own, 0.0).sum(1)
    error = float(np.sqrt(np.square(strays).sum()) / known.sum())
    _, baseline = rivals(data.metrics, "nll")
    one = np.broadcast_to(0.5 * np.log(2 * math.pi * math.e * data.spread**2), known.shape)
    what = "a Gaussian of the labels' mean and variance"
    return losses(own, error, float(one[known].mean()), what, "number", baseline)


def _calibration(data: NumberReportData) -> Finding:
    values = data.pit[~np.isnan(data.pit)]
    error, chance = calibration_error(values), calibration_by_chance(len(values))
    said = (
        f"Its quantiles are off by {100 * error:.1f} points on average (observed against stated "
        f"share below them; chance alone would give about {100 * chance:.1f})"
    )
    middle = float(((values > 0.25) & (values < 0.75)).mean())
    lean = float((values < 0.5).mean())
    good = error <= max(0.05, 2 * chance)
    if not good and abs(lean - 0.5) > abs(middle - 0.5):
        said += f"; it predicts {'too much' if lean > 0.5 else 'too little'} more often than not"
    elif not good:
        said += f"; its intervals are too {'narrow' if middle < 0.5 else 'wide'}"
    level = "trust" if good else "care" if error <= 0.1 else "doubt"
    return Finding(level, "calibration", f"{said}.")


def _intervals(data: NumberReportData) -> Finding:
    values = data.pit[~np.isnan(data.pit)]
    covered, error = _coverage(values)
    said = (
        f"Its {percent(0.9, 0)} intervals contain the truth for {percent(covered)} of the numbers "
        f"(± {100 * error:.1f} standard error)."
    )
    return Finding(_graded(0.9 - 2 * error - covered, 0.05), "its 90 % intervals", said)


def _thirds(data: NumberReportData) -> Finding:
    error, sd, values = standardised(data)
    ranked = np.argsort(sd, kind="stable")
    third = max(1, len(ranked) // 3)
    (sure, sure_error), (unsure, unsure_error) = (
        _coverage(values[rows]) for rows in (ranked[:third], ranked[-third:])
    )
    handed, squares = mean_when_handing_over(np.square(error), sd)
    at = min(int(np.searchsorted(handed, 0.2)), len(handed) - 1)
    before, after = (significant(math.sqrt(value)) for value in squares[[0, at]])
    said = (
        f"Where it is most certain they contain it for {percent(sure)}, where least for "
        f"{percent(unsure)} (a third of the numbers each); handing the least certain "
        f"{percent(0.2, 0)} to a person moves the RMSE of the rest from {before} to {after}."
    )
    short = max(0.9 - 2 * sure_error - sure, 0.9 - 2 * unsure_error - unsure)
    return Finding(_graded(short, 0.1), "how it tells sure from unsure", said)


def _unit(data: NumberReportData) -> str:
    return ", in standard deviations of the targets" if len(data.classes) > 1 else ""


def _coverage(pit: Floats) -> tuple[float, float]:
    """Share of numbers inside their central 90 % interval, and its standard error."""
    covered = float(((pit >= _TAIL) & (pit <= 1 - _TAIL)).mean())
    return covered, math.sqrt(max(covered * (1 - covered), 0.0) / len(pit))


def _graded(short: float, slack: float) -> Level:
    return "trust" if short <= 0 else "care" if short <= slack else "doubt"
