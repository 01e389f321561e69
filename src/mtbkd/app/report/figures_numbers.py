"""The figures of a report on numbers alone."""

from __future__ import annotations

import numpy as np
from matplotlib.ticker import MaxNLocator

from mtbkd.app.report.answers import Answers
from mtbkd.app.report.canvas import DASHED, ROLE, diagonal, draw, legend, quiet
from mtbkd.app.report.data import Numbers, ReportData
from mtbkd.app.report.figures import SMALL, in_percent
from mtbkd.app.report.words import shorten
from mtbkd.metrics import quantile_shares
from mtbkd.types import Floats, Ints

_SHOWN = 250
_BANDS = 10
_QUANTILES = np.linspace(0.01, 0.99, 99)


def against_truth(data: ReportData[Numbers], target: int, size: tuple[float, float]) -> str:
    """Predicted mean with its interval against the true number; at most 250 evenly over it."""
    part, labels = data.part, data.labels[:, target]
    known = np.flatnonzero(~np.isnan(labels))
    ranked = known[np.argsort(labels[known], kind="stable")]
    rows = ranked[np.linspace(0, len(ranked) - 1, min(_SHOWN, len(ranked))).astype(int)]
    true, mean = labels[rows], part.mean[rows, target]
    lower, upper = part.lower[rows, target], part.upper[rows, target]
    inside = (lower <= true) & (true <= upper)
    name = data.classes[target]
    with draw(f"truth{target}", f"Predicted against true {name}", size) as drawing:
        axes = drawing.figure.subplots()
        axes.axline((true[0], true[0]), slope=1, color=ROLE["muted"], linewidth=1, linestyle=DASHED)
        for mask, colour, word in ((inside, "student", "inside"), (~inside, "wrong", "outside")):
            if mask.any():
                axes.vlines(
                    true[mask], lower[mask], upper[mask],
                    color=ROLE[colour], linewidth=1.1, alpha=0.35,
                )  # fmt: skip
                axes.plot(
                    true[mask], mean[mask], "o",
                    color=ROLE[colour], markersize=3.2, alpha=0.9, label=f"truth {word}",
                )  # fmt: skip
        axes.set(xlabel=f"true {shorten(name, 24)}", ylabel="predicted")
        axes.yaxis.set_major_locator(MaxNLocator(6))
        quiet(axes, "both", ticks=5)
        legend(drawing.figure, 2)
    return drawing.svg


def quantiles(data: ReportData[Numbers], size: tuple[float, float]) -> str:
    """Observed against stated share of numbers below each quantile."""
    pit, pool_pit = data.part.pit, data.part.pool_pit
    n = int((~np.isnan(pit)).sum())
    half = 1.645 * np.sqrt(_QUANTILES * (1 - _QUANTILES) / n)
    lines = [("student", pit, "student", 2.0)]
    if pool_pit is not None:
        lines.insert(0, ("pool of teachers", pool_pit, "pool", 1.6))
    with draw("student", "Calibration of quantiles", size) as drawing:
        axes = drawing.figure.subplots()
        axes.fill_between(
            _QUANTILES, _QUANTILES - half, _QUANTILES + half,
            color=ROLE["muted"], alpha=0.2, linewidth=0,
        )  # fmt: skip
        diagonal(axes)
        for label, values, colour, width in lines:
            shares = quantile_shares(values, _QUANTILES)
            axes.plot(_QUANTILES, shares, color=ROLE[colour], linewidth=width, label=label)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set(xlabel="stated share below", ylabel="observed share below")
        in_percent(axes.xaxis, axes.yaxis)
        quiet(axes)
        legend(drawing.figure, 2)
    return drawing.svg


def split_by_error(answers: Answers) -> str:
    """Parts of the predictive variance, as standard deviations, in tenths by absolute error."""
    bands = _tenths(answers.error)
    parts = (
        ("total", answers.total, "ink", DASHED),
        ("aleatoric", answers.aleatoric, "pool", "-"),
        ("epistemic", answers.epistemic, "student", "-"),
    )
    with draw("split", "Aleatoric and epistemic part against absolute error", SMALL) as drawing:
        axes = drawing.figure.subplots()
        at = [answers.error[rows].mean() for rows in bands]
        for label, variance, colour, style in parts:
            sds = np.sqrt([variance[rows].mean() for rows in bands])
            axes.plot(
                at, sds, "o",
                color=ROLE[colour], linestyle=style, linewidth=1.5, markersize=4, label=label,
            )  # fmt: skip
        unit = answers.unit
        axes.set(xlabel=f"absolute error{unit}", ylabel=f"standard deviation{unit}")
        axes.set(xlim=(0, None), ylim=(0, 1.08 * axes.get_ylim()[1]))
        quiet(axes, ticks=5)
        legend(drawing.figure, 3)
    return drawing.svg


def errors_by_certainty(answers: Answers) -> str:
    """RMSE against the standard deviation stated, in tenths of the numbers by the latter."""
    bands = _tenths(answers.total)
    stated = np.sqrt([answers.total[rows].mean() for rows in bands])
    observed = np.sqrt([np.square(answers.error[rows]).mean() for rows in bands])
    half = 1.645 * observed / np.sqrt([2 * len(rows) for rows in bands])
    most = 1.1 * max(stated.max(), (observed + half).max(), 1e-12)
    with draw("spread", "Error against stated standard deviation", SMALL) as drawing:
        axes = drawing.figure.subplots()
        diagonal(axes, most)
        axes.vlines(
            stated, observed - half, observed + half,
            color=ROLE["student"], linewidth=1.4, alpha=0.5,
        )  # fmt: skip
        axes.plot(stated, observed, "o", color=ROLE["student"], markersize=5.5)
        axes.set_xlabel(f"stated standard deviation{answers.unit}")
        axes.set(ylabel=f"RMSE{answers.unit}", xlim=(0, most), ylim=(0, most))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        quiet(axes, ticks=5)
    return drawing.svg


def _tenths(values: Floats) -> list[Ints]:
    """Rows in bands of equal size by rising value."""
    ranked = np.argsort(values, kind="stable")
    return [rows for rows in np.array_split(ranked, _BANDS) if len(rows)]
