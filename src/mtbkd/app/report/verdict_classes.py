"""What is found about a student that names one class of several."""

from __future__ import annotations

import math

import numpy as np

from mtbkd.app.report.answers import of_classes
from mtbkd.app.report.by_class import confusion, largest, lost
from mtbkd.app.report.data import Classes, ReportData
from mtbkd.app.report.findings import (
    Finding,
    calibrated,
    compared,
    covered,
    flagged_errors,
    gap_by_chance,
    losses,
)
from mtbkd.app.report.sentences import FEWEST
from mtbkd.app.report.words import is_number, join, percent, plural
from mtbkd.metrics import ece, log_losses, mean_with_error, reliability
from mtbkd.types import Floats


def findings(data: ReportData[Classes]) -> tuple[Finding | None, ...]:
    """In the order in which a reader asks; the rules stand in `mtbkd.app.report.verdict`."""
    return (
        _accuracy(data),
        _nll(data),
        _calibration(data),
        _sets(data),
        flagged_errors(data.student.get("error_auroc"), of_classes(data), ""),
        _confusion(data),
    )


def calibration_by_chance(probs: Floats) -> float:
    """The ECE to be expected of a perfectly calibrated model on as many examples.

    Args:
        probs: Shape (example, class).
    """
    confidence, _, counts = reliability(probs, probs.argmax(1))
    return float(np.nansum(gap_by_chance(confidence, counts) * counts) / counts.sum())


def _accuracy(data: ReportData[Classes]) -> Finding:
    n, own = len(data.labels), float((data.part.probs.argmax(1) == data.labels).mean())
    said, others = compared(
        f"The student is right on {percent(own)} of {n:,} test examples",
        data.metrics,
        "accuracy",
        lambda share: f"on {percent(share)}",
        highest=True,
    )
    common = float(np.bincount(data.labels).max() / n)
    if own < common:
        said += f" Always naming the most common class would be right on {percent(common)}."
        return Finding("doubt", "its accuracy", said)
    slack = max(0.02, 2 * math.sqrt(own * (1 - own) / n))
    gap = max(others, default=own) - own
    return Finding("trust" if gap <= slack else "care", "its accuracy", said)


def _nll(data: ReportData[Classes]) -> Finding:
    each = log_losses(data.part.probs, data.labels)[:, None]
    own, error = mean_with_error(each, np.ones_like(each, dtype=bool))
    shares = np.bincount(data.labels) / len(data.labels)
    guess = float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum()) or math.inf
    return losses(own, error, guess, "the class frequencies", "example", data.metrics)


def _calibration(data: ReportData[Classes]) -> Finding:
    probs = data.part.probs
    error, chance = ece(probs, data.labels), calibration_by_chance(probs)
    lean = float(probs.max(1).mean() - (probs.argmax(1) == data.labels).mean())
    manner = "more sure than it should be" if lean > 0 else "more modest than it need be"
    said = (
        f"Its stated confidence is off by {100 * error:.1f} points on average (ECE; chance alone "
        f"would give about {100 * chance:.1f})"
    )
    said += "." if abs(lean) < 0.02 else f"; overall it is {manner}."
    return Finding(calibrated(error, chance), "calibration", said)


def _sets(data: ReportData[Classes]) -> Finding | None:
    share, size = data.student.get("coverage_90"), data.student.get("set_size_90")
    if not is_number(share):
        return None
    error = math.sqrt(max(share * (1 - share), 0.0) / len(data.labels))
    said = f"Its {percent(0.9, 0)} sets contain the truth for {percent(share)} of the examples"
    said += f" (± {100 * error:.1f} standard error)"
    said += f", with {size:.1f} classes on average" if is_number(size) else ""
    exact = data.student.get("coverage_90_exact")
    if is_number(exact):
        said += (
            "; whole classes hold more than asked, and cut to exactly "
            f"{percent(0.9, 0)} of the probability they would for {percent(exact)}"
        )
    said += "."
    return Finding(covered(0.9 - 2 * error - share, 0.05), "its 90 % sets", said)


def _confusion(data: ReportData[Classes]) -> Finding | None:
    """What is confused most, and whether classes are lost in others."""
    counts = confusion(data.labels, data.part.probs.argmax(1), len(data.classes))
    worst = largest(counts, 1)
    if not worst or counts.any(1).sum() < 3:
        return None
    true, said_as, n = worst[0]
    said = (
        f"It confuses most {data.classes[true]}, taken for {data.classes[said_as]} in {n:,} of "
        f"{counts[true].sum():,} examples"
    )
    gone = [data.classes[c.true] for c in lost(counts, FEWEST)]
    if not gone:
        return Finding("trust", "what it confuses", f"{said}.")
    several = len(gone) > 1
    many = f"{len(gone)} {plural(data.noun)}" if len(gone) > 3 else join(gone)
    said += (
        f"; {many} {'are' if several else 'is'} taken for another more often than for "
        f"{'themselves' if several else 'itself'}."
    )
    return Finding("care", "what it confuses", said)
