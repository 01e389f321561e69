"""What pages on classes and on labels share: answers that are right or wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mtbkd.app.report import figures, figures_classes
from mtbkd.app.report.answers import Answers
from mtbkd.app.report.data import Classes, Example, Labels, ReportData
from mtbkd.types import Floats, Ints

Bins = Callable[[Floats, Any], tuple[Floats, Floats, Ints]]


def figures_of_answers(
    data: ReportData[Classes] | ReportData[Labels],
    answers: Answers,
    bins: Bins,
    words: tuple[str, str],
) -> dict[str, str]:
    """Calibration of student and pool, and uncertainty of right and wrong answers."""
    drawn = {
        "spread": figures.right_and_wrong(answers),
        "split": figures_classes.split(answers),
        "handing": figures.handing_over(answers),
    }
    for name, whose, probs in (
        ("student", "student", data.part.probs),
        ("pool", "teachers' pool", data.part.pool_probs),
    ):
        if probs is not None:
            title = f"Reliability diagram of the {whose}"
            drawn[name] = figures.calibration(name, title, bins(probs, data.labels), name, words)
    return drawn


def bar(
    data: ReportData[Any],
    example: Example,
    write: Callable[[float], str],
    unit: Floats | float = 1.0,
) -> dict[str, Any]:
    """An example's uncertainty, and its parts as a bar, of which the page's largest total is full.

    Args:
        data: The report's.
        example: One of its examples.
        write: How an amount is written.
        unit: What uncertainties are counted in, shape (target,).
    """
    total = data.of_examples("total", unit)
    longest = float(max(total[e.row] for e in data.examples)) or 1.0
    parts = []
    for word in ("aleatoric", "epistemic"):
        amount = float(data.of_examples(word, unit)[example.row])
        parts.append((word, write(amount), f"{100 * max(0.0, amount) / longest:.1f}"))
    return {"parts": parts, "total": write(float(total[example.row]))}
