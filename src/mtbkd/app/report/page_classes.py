"""What the page says about a student that names one class of several."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from mtbkd.app.report import figures, page_by_class
from mtbkd.app.report.data import Example, ReportData
from mtbkd.app.report.words import count, number, percent, plural, shown, significant
from mtbkd.metrics import reliability

_COLUMNS = (
    ("accuracy", "Accuracy", percent, max),
    ("nll", "NLL, nats", number, min),
    ("brier", "Brier", number, min),
    ("ece", "ECE", number, min),
    ("parameters", "Parameters", count, min),
    ("ms_per_example", "ms / example", significant, min),
)
_SET_SHOWN = 6


def parts(data: ReportData) -> dict[str, Any]:
    """What the template needs beside what pages of every family share."""
    return {
        "what": "class",
        "in_each": f"in each {data.noun}",
        "nouns": plural(data.noun),
        "each": page_by_class.section(data),
        "tiles": _tiles(data),
        "columns": _COLUMNS,
        "figures": _figures(data),
        "examples": [_card(data, example) for example in data.examples],
    }


def _tiles(data: ReportData) -> list[tuple[str, str, str]]:
    """Name, value and meaning of the numbers at the top."""
    student = data.metrics.get("student", {})
    return [
        ("Accuracy", shown(student, "accuracy", percent), "share of test answers that are right"),
        (
            "ECE",
            shown(student, "ece", number),
            "gap between stated confidence and share right; 0 is best",
        ),
        (
            f"Coverage at {percent(0.9, 0)}",
            shown(student, "coverage_90", percent),
            f"of {percent(0.9, 0)} sets contain the truth; should not be below {percent(0.9, 0)}",
        ),
        (
            "Error AUROC",
            shown(student, "error_auroc", lambda v: number(v, 2)),
            "how well uncertainty tells wrong answers from right ones; 0.5 is chance, 1 perfect",
        ),
    ]


def _figures(data: ReportData) -> dict[str, str]:
    hits = data.probs.argmax(1) == data.labels
    quarrel = data.disagreement if len(data.teachers) > 1 else None
    title = "Reliability diagram of the"
    bins = reliability(data.probs, data.labels)
    drawn = {
        "student": figures.calibration("student", f"{title} student", bins, "student"),
        "spread": figures.right_and_wrong(hits, data.total),
        "split": figures.split(hits, data.total, data.aleatoric, data.epistemic),
        "handing": figures.handing_over(hits, data.total, quarrel),
    }
    if data.pool_probs is not None:
        bins = reliability(data.pool_probs, data.labels)
        drawn["pool"] = figures.calibration("pool", f"{title} teachers' pool", bins, "pool")
    return drawn


def _card(data: ReportData, example: Example) -> dict[str, Any]:
    """An example, with the length of its uncertainty bar in per cent of the page's longest."""
    longest = max((e.total for e in data.examples), default=0) or 1.0
    hidden = len(example.credible_set) - _SET_SHOWN
    return {
        "example": example,
        "drawn": Markup(example.html),
        "right": example.label == example.prediction,
        "probability": number(example.probability, 2),
        "parts": [
            (word, number(nats, 2), f"{100 * max(0.0, nats) / longest:.1f}")
            for word, nats in (("aleatoric", example.aleatoric), ("epistemic", example.epistemic))
        ],
        "total": number(example.total, 2),
        "set": example.credible_set[: _SET_SHOWN if hidden > 0 else None],
        "hidden": max(hidden, 0),
    }
