"""What pages on classes and on labels share: answers that are right or wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mtbkd.app.report import figures, figures_classes
from mtbkd.app.report.answers import Answers
from mtbkd.app.report.data import Classes, Labels, ReportData
from mtbkd.types import Floats, Ints

Bins = Callable[[Floats, Any], tuple[Floats, Floats, Ints]]


def figures_of_answers(
    data: ReportData[Classes] | ReportData[Labels],
    answers: Answers,
    bins: Bins,
    words: tuple[str, str],
) -> dict[str, str]:
    """Calibration of student and pool, and uncertainty of right and wrong answers.

    Args:
        data: The report's.
        answers: Its known ones.
        bins: `mtbkd.metrics.reliability` or `mtbkd.metrics.label_reliability`.
        words: What is stated, and the share that is observed.
    """
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
    parts: dict[str, float], longest: float, write: Callable[[float], str]
) -> list[tuple[str, str, str]]:
    """The bar of an example's uncertainty: word, amount and length in per cent of each part.

    Args:
        parts: "aleatoric" and "epistemic".
        longest: What fills the bar: the largest total of the page's examples.
        write: How an amount is written.
    """
    return [
        (word, write(part), f"{100 * max(0.0, part) / (longest or 1.0):.1f}")
        for word, part in parts.items()
    ]
