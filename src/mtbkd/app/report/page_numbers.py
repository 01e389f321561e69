"""What the page shows of a student that predicts numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtbkd.app.report import figures as shared
from mtbkd.app.report import figures_numbers
from mtbkd.app.report.answers import of_numbers
from mtbkd.app.report.data import Example, Numbers, ReportData
from mtbkd.app.report.page_answers import bar
from mtbkd.app.report.verdict_numbers import spreads
from mtbkd.app.report.words import count, number, percent, significant
from mtbkd.metrics import calibration_error, interval_coverage, interval_width, r2, rmse

_TARGETS_DRAWN, _ANSWERS_SHOWN = 5, 6
_IN_PAIRS = (0, 1, 3)  # numbers of targets that fill rows of two figures, with that of quantiles


def more(data: ReportData[Numbers]) -> dict[str, Any]:
    """The table by target, and which targets are drawn."""
    drawn = _drawn(data)
    return {
        "each": None,
        "drawn_targets": [(f"truth{i}", data.classes[i]) for i in drawn],
        "grid": "two" if len(drawn) in _IN_PAIRS else "three",
        "level": percent(data.part.level, 0),
        "by_target": _by_target(data),
    }


def _drawn(data: ReportData[Numbers]) -> list[int]:
    """The first targets that are known at all."""
    return np.flatnonzero(~np.isnan(data.labels).all(0))[:_TARGETS_DRAWN].tolist()


def figures(data: ReportData[Numbers]) -> dict[str, str]:
    """Predictions against the truth, quantiles, and whether uncertainty tells of errors."""
    drawn, answers = _drawn(data), of_numbers(data)
    size = shared.MIDDLE if len(drawn) in _IN_PAIRS else shared.SMALL
    targets = {f"truth{i}": figures_numbers.against_truth(data, i, size) for i in drawn}
    return targets | {
        "student": figures_numbers.quantiles(data, size),
        "spread": figures_numbers.errors_by_certainty(answers),
        "split": figures_numbers.split_by_error(answers),
        "handing": shared.handing_over(answers, numbers=True),
    }


def _by_target(data: ReportData[Numbers]) -> list[tuple[str, list[str]]]:
    """Name of each target, and its cells."""
    part, explained, spread = data.part, r2(data.part.mean, data.labels), spreads(data.labels)
    rows = []
    for i, name in enumerate(data.classes):
        labels, mean = data.labels[:, i], part.mean[:, i]
        lower, upper, known = part.lower[:, i], part.upper[:, i], ~np.isnan(labels)
        cells = [
            count(int(known.sum())),
            significant(float(spread[i])) if known.any() else number(None),
            significant(rmse(mean, labels)),
            number(float(explained[i]), 2),
            percent(interval_coverage(lower, upper, labels)),
            significant(interval_width(lower, upper)),
            number(calibration_error(part.pit[:, i])),
        ]
        rows.append((name, cells))
    return rows


def card(data: ReportData[Numbers], example: Example) -> dict[str, Any]:
    """An example's numbers beside the truth, the least certain targets first."""
    row, square = example.row, data.part.unit**2
    total = data.total / square
    order = np.argsort(-total[row], kind="stable")[:_ANSWERS_SHOWN]
    longest = max(float(total[e.row].mean()) for e in data.examples)
    means = {
        part: float((getattr(data, part)[row] / square).mean())
        for part in ("aleatoric", "epistemic")
    }
    return {
        "answers": [_answer(data, row, target) for target in order.tolist()],
        "hidden": len(data.classes) - len(order),
        "parts": bar(means, longest, lambda variance: significant(math.sqrt(variance))),
        "total": significant(math.sqrt(float(total[row].mean()))),
    }


def _answer(data: ReportData[Numbers], row: int, target: int) -> dict[str, Any]:
    """One number: what is said, the truth, and where both lie on a strip, in per cent of it."""
    part, labels = data.part, data.labels[:, target]
    true, mean = float(labels[row]), float(part.mean[row, target])
    lower, upper = float(part.lower[row, target]), float(part.upper[row, target])
    known = labels[~np.isnan(labels)]
    low, high = min([*known, lower]), max([*known, upper])
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


def teacher_says(
    names: tuple[str, ...], values: NDArray[Any], known: NDArray[Any], kept: list[int]
) -> str:
    """A teacher's numbers, as "7.1 ± 0.4, 3.2"."""
    del names, kept
    said = []
    for (mean, log_variance), is_known in zip(values.tolist(), known.tolist(), strict=True):
        spread = "" if math.isnan(log_variance) else f" ± {math.exp(log_variance / 2):.3g}"
        said.append(f"{mean:.3g}{spread}" if is_known else "nothing")
    return ", ".join(said)
