"""What is found about a student that predicts numbers."""

from __future__ import annotations

import math

import numpy as np

from mtbkd.app.report.answers import of_numbers
from mtbkd.app.report.data import Numbers, ReportData
from mtbkd.app.report.findings import (
    Finding,
    calibrated,
    compared,
    covered,
    gap_by_chance,
    losses,
    when_handing_over_a_fifth,
)
from mtbkd.app.report.words import join, percent, significant
from mtbkd.metrics import calibration_error, mean_with_error, r2
from mtbkd.metrics.regression import LEVELS
from mtbkd.types import Floats

_TAIL = 0.05  # beyond either end of a 90 % interval


def findings(data: ReportData[Numbers]) -> tuple[Finding, ...]:
    """In the order in which a reader asks; the rules stand in `mtbkd.app.report.verdict`."""
    return (_rmse(data), _nll(data), _calibration(data), _intervals(data), _thirds(data))


def spreads(labels: Floats) -> Floats:
    """Standard deviation of the known true numbers of each target, 1 if none, shape (target,)."""
    columns = [column[~np.isnan(column)] for column in labels.T]
    found = [column.std() if len(column) else 0.0 for column in columns]
    return np.array([spread if spread > 0 else 1.0 for spread in found])


def calibration_by_chance(n: int) -> float:
    """The calibration error to be expected of perfect predictions of so many numbers."""
    return float(gap_by_chance(LEVELS, n).mean())


def _rmse(data: ReportData[Numbers]) -> Finding:
    squares = np.square(of_numbers(data).error)
    own = math.sqrt(squares.mean())
    error = float(squares.std() / math.sqrt(len(squares)) / (2 * own)) if own else 0.0
    unit = ", in standard deviations of the targets" if len(data.classes) > 1 else ""
    said, others = compared(
        f"The student is off by {significant(own)} (RMSE{unit}) on {len(data.labels):,} test "
        "examples",
        data.metrics,
        "rmse",
        lambda value: f"by {significant(value)}",
    )
    explained = r2(data.part.mean, data.labels)
    useless = [n for n, share in zip(data.classes, explained, strict=True) if share <= 0]
    if useless:
        what = "its" if len(useless) == 1 else "their"
        said += f" For {join(useless)} it is no better than always naming {what} mean."
    if useless and len(useless) == np.sum(~np.isnan(explained)):
        return Finding("doubt", "its errors", said)
    good = not useless and own - min(others, default=own) <= max(0.02 * own, 2 * error)
    return Finding("trust" if good else "care", "its errors", said)


def _nll(data: ReportData[Numbers]) -> Finding:
    known = ~np.isnan(data.labels)
    own, error = mean_with_error(-data.part.log_density, known)
    entropy = 0.5 * np.log(2 * math.pi * math.e * spreads(data.labels) ** 2)
    guess = float(np.broadcast_to(entropy, known.shape)[known].mean())
    what = "a Gaussian of the labels' mean and variance"
    return losses(own, error, guess, what, "number", data.metrics)


def _calibration(data: ReportData[Numbers]) -> Finding:
    values = data.part.pit[~np.isnan(data.part.pit)]
    error, chance = calibration_error(values), calibration_by_chance(len(values))
    said = (
        f"Its quantiles are off by {100 * error:.1f} points on average (observed against stated "
        f"share below them; chance alone would give about {100 * chance:.1f})"
    )
    middle = float(((values > 0.25) & (values < 0.75)).mean())
    lean = float((values < 0.5).mean())
    level = calibrated(error, chance)
    if level != "trust" and abs(lean - 0.5) > abs(middle - 0.5):
        said += f"; it predicts {'too much' if lean > 0.5 else 'too little'} more often than not"
    elif level != "trust":
        said += f"; its intervals are too {'narrow' if middle < 0.5 else 'wide'}"
    return Finding(level, "calibration", f"{said}.")


def _intervals(data: ReportData[Numbers]) -> Finding:
    values = data.part.pit[~np.isnan(data.part.pit)]
    share, error = _coverage(values)
    said = (
        f"Its {percent(0.9, 0)} intervals contain the truth for {percent(share)} of the numbers "
        f"(± {100 * error:.1f} standard error)."
    )
    return Finding(covered(0.9 - 2 * error - share, 0.05), "its 90 % intervals", said)


def _thirds(data: ReportData[Numbers]) -> Finding:
    answers, values = of_numbers(data), data.part.pit[~np.isnan(data.labels)]
    ranked = np.argsort(answers.total, kind="stable")
    third = max(1, len(ranked) // 3)
    (sure, sure_error), (unsure, unsure_error) = (
        _coverage(values[rows]) for rows in (ranked[:third], ranked[-third:])
    )
    squares = when_handing_over_a_fifth(np.square(answers.error), answers.total)
    before, after = (significant(math.sqrt(value)) for value in squares)
    said = (
        f"Where it is most certain they contain it for {percent(sure)}, where least for "
        f"{percent(unsure)} (a third of the numbers each); handing the least certain "
        f"{percent(0.2, 0)} to a person moves the RMSE of the rest from {before} to {after}."
    )
    short = max(0.9 - 2 * sure_error - sure, 0.9 - 2 * unsure_error - unsure)
    return Finding(covered(short, 0.1), "how it tells sure from unsure", said)


def _coverage(pit: Floats) -> tuple[float, float]:
    """Share of numbers inside their central 90 % interval, and its standard error."""
    share = float(((pit >= _TAIL) & (pit <= 1 - _TAIL)).mean())
    return share, math.sqrt(max(share * (1 - share), 0.0) / len(pit))
