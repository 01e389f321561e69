"""What the page says about a student that predicts numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from markupsafe import Markup

from mtbkd.app.report import figures_numbers
from mtbkd.app.report.data import NumberReportData, Shown
from mtbkd.app.report.figures import MIDDLE, SMALL
from mtbkd.app.report.verdict_numbers import standardised
from mtbkd.app.report.words import count, number, percent, shown, significant
from mtbkd.metrics import calibration_error, interval_coverage, interval_width, r2, rmse

_COLUMNS = (
    ("rmse", "RMSE", significant, min),
    ("crps", "CRPS", significant, min),
    ("nll", "NLL, nats", number, min),
    ("coverage_90", "90\xa0% coverage", percent, lambda values: min(values, key=_from_90)),
    ("width_90", "90\xa0% width", significant, None),
    ("calibration", "Calibration", number, min),
    ("parameters", "Parameters", count, min),
    ("ms_per_example", "ms / example", significant, min),
)
_TARGETS_DRAWN, _ANSWERS_SHOWN = 5, 6
_IN_PAIRS = (0, 1, 3)  # numbers of targets that fill rows of two figures, with that of quantiles


def parts(data: NumberReportData) -> dict[str, Any]:
    """What the template needs beside what pages of every family share."""
    return {
        "what": "target",
        "in_each": "for each target",
        "each": None,
        "tiles": _tiles(data),
        "columns": _COLUMNS,
        "figures": _figures(data),
        "drawn_targets": _drawn(data),
        "grid": "two" if len(_drawn(data)) in _IN_PAIRS else "three",
        "level": percent(data.level, 0),
        "by_target": _by_target(data),
        "examples": [_card(data, example) for example in data.examples],
    }


def _from_90(coverage: float) -> float:
    return abs(coverage - 0.9)


def _tiles(data: NumberReportData) -> list[tuple[str, str, str]]:
    """Name, value and meaning of the numbers at the top."""
    student = data.metrics.get("student", {})
    return [
        ("RMSE", shown(student, "rmse", significant), "typical size of an error"),
        (
            "CRPS",
            shown(student, "crps", significant),
            "distance of the stated distribution from the truth; 0 is best",
        ),
        (
            f"Coverage at {percent(0.9, 0)}",
            shown(student, "coverage_90", percent),
            f"of {percent(0.9, 0)} intervals contain the truth; should be {percent(0.9, 0)}",
        ),
        ("NLL", shown(student, "nll", number), "surprise at the truth, in nats; lower is better"),
    ]


def _drawn(data: NumberReportData) -> list[tuple[str, str]]:
    """Figure and name of the first targets that are known at all."""
    known = np.flatnonzero(~np.isnan(data.labels).all(0))[:_TARGETS_DRAWN]
    return [(f"truth{i}", data.classes[i]) for i in known.tolist()]


def _figures(data: NumberReportData) -> dict[str, str]:
    known = ~np.isnan(data.labels)
    several = len(data.classes) > 1
    error, sd, _ = standardised(data)
    aleatoric, epistemic = (
        (part / data.unit**2)[known] for part in (data.aleatoric, data.epistemic)
    )
    quarrel = None
    if data.disagreement is not None and len(data.teachers) > 1:
        quarrel = (data.disagreement / data.unit**2)[known]
    words = " (in sd of the target)" if several else ""
    size = MIDDLE if len(_drawn(data)) in _IN_PAIRS else SMALL
    drawn = {
        name: figures_numbers.against_truth(data, int(name.removeprefix("truth")), size)
        for name, _ in _drawn(data)
    }
    return drawn | {
        "student": figures_numbers.quantiles(data.pit, data.pool_pit, size),
        "spread": figures_numbers.errors_by_certainty(error, sd, words),
        "split": figures_numbers.split_by_error(error, aleatoric, epistemic, words),
        "handing": figures_numbers.handing_over(error, sd, quarrel, words),
    }


def _by_target(data: NumberReportData) -> list[tuple[str, list[str]]]:
    """Name of each target, and its cells."""
    explained = r2(data.mean, data.labels)
    rows = []
    for i, name in enumerate(data.classes):
        labels, mean = data.labels[:, i], data.mean[:, i]
        lower, upper, known = data.lower[:, i], data.upper[:, i], ~np.isnan(labels)
        cells = [
            count(int(known.sum())),
            significant(float(data.spread[i])) if known.any() else number(None),
            significant(rmse(mean, labels)),
            number(float(explained[i]), 2),
            shown({"share": interval_coverage(lower, upper, labels)}, "share", percent),
            significant(interval_width(lower, upper)),
            number(calibration_error(data.pit[:, i])),
        ]
        rows.append((name, cells))
    return rows


def _card(data: NumberReportData, example: Shown) -> dict[str, Any]:
    """An example: its numbers beside the truth, the least certain targets first."""
    row, unit = example.row, data.unit
    total = (data.aleatoric + data.epistemic) / unit**2
    order = np.argsort(-total[row], kind="stable")[:_ANSWERS_SHOWN]
    longest = max(float(total[e.row].mean()) for e in data.examples) or 1.0
    sums = [("aleatoric", data.aleatoric[row]), ("epistemic", data.epistemic[row])]
    means = [(word, float((part / unit**2).mean())) for word, part in sums]
    return {
        "example": example,
        "drawn": Markup(example.html),
        "answers": [_answer(data, row, target) for target in order.tolist()],
        "hidden": len(data.classes) - len(order),
        "parts": [
            (word, significant(math.sqrt(part)), f"{100 * part / longest:.1f}")
            for word, part in means
        ],
        "total": significant(math.sqrt(float(total[row].mean()))),
    }


def _answer(data: NumberReportData, row: int, target: int) -> dict[str, Any]:
    """One number: what is said, the truth, and where both lie on a strip, in per cent of it."""
    true, mean = float(data.labels[row, target]), float(data.mean[row, target])
    lower, upper = float(data.lower[row, target]), float(data.upper[row, target])
    labels = data.labels[:, target]
    known = labels[~np.isnan(labels)]
    here = [lower, upper] + ([] if math.isnan(true) else [true])
    low, high = min([*known, *here]), max([*known, *here])
    room = high - low or 1.0

    def place(value: float) -> str:
        return f"{100 * (value - low) / room:.1f}"

    return {
        "name": data.classes[target],
        "mean": significant(mean),
        "interval": f"{significant(lower)} to {significant(upper)}",
        "truth": significant(true),
        "wrong": not math.isnan(true) and not lower <= true <= upper,
        "strip": (place(lower), f"{100 * (upper - lower) / room:.1f}", place(mean)),
        "at": None if math.isnan(true) else place(true),
    }
