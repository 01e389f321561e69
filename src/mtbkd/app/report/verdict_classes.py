"""What is found about a student that names one class of several."""

from __future__ import annotations

import math

import numpy as np

from mtbkd.app.report.by_class import confusion, largest, lost
from mtbkd.app.report.data import ReportData
from mtbkd.app.report.findings import Finding, flagged_errors, losses, rivals
from mtbkd.app.report.sentences import FEWEST
from mtbkd.app.report.words import is_number, join, percent, plural
from mtbkd.metrics import reliability
from mtbkd.types import Floats


def findings(data: ReportData) -> tuple[Finding | None, ...]:
    """In the order in which a reader asks; the rules stand in `mtbkd.app.report.verdict`."""
    hits = data.probs.argmax(1) == data.labels
    auroc = data.metrics.get("student", {}).get("error_auroc")
    return (
        _accuracy(data),
        _nll(data),
        _calibration(data),
        _sets(data),
        flagged_errors(auroc, hits, data.total, ""),
        _confusion(data),
    )


def calibration_by_chance(probs: Floats) -> float:
    """The ECE to be expected of a perfectly calibrated model on as many examples.

    Each bin's gap is normal with variance ``c (1 - c) / n``, whose mean size is
    ``sqrt(2 / pi)`` standard deviations.

    Args:
        probs: Shape (example, class).
    """
    confidence, _, counts = reliability(probs, probs.argmax(1))
    spread = np.sqrt(2 / math.pi * np.clip(confidence * (1 - confidence), 0, None) * counts)
    return float(np.nansum(spread) / counts.sum())


def _accuracy(data: ReportData) -> Finding:
    n, own = len(data.labels), float((data.probs.argmax(1) == data.labels).mean())
    others_at, baseline = rivals(data.metrics, "accuracy", highest=True)
    others = [f"{name} on {percent(value)}" for name, value in others_at.items()]
    others += [f"the best baseline on {percent(baseline)}"] if baseline is not None else []
    said = f"The student is right on {percent(own)} of {n:,} test examples"
    said += f"; {join(others)}." if others else "."
    common = float(np.bincount(data.labels).max() / n)
    if own < common:
        said += f" Always naming the most common class would be right on {percent(common)}."
        return Finding("doubt", "its accuracy", said)
    slack = max(0.02, 2 * math.sqrt(own * (1 - own) / n))
    gap = max(others_at.values(), default=own) - own
    return Finding("trust" if gap <= slack else "care", "its accuracy", said)


def _nll(data: ReportData) -> Finding:
    each = -np.log(np.maximum(data.probs[np.arange(len(data.labels)), data.labels], 1e-12))
    own, error = float(each.mean()), float(each.std() / math.sqrt(len(each)))
    _, baseline = rivals(data.metrics, "nll")
    shares = np.bincount(data.labels) / len(data.labels)
    guess = float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum()) or math.inf
    return losses(own, error, guess, "the class frequencies", "example", baseline)


def _calibration(data: ReportData) -> Finding:
    confidence, hit_rate, counts = reliability(data.probs, data.labels)
    error = float(np.nansum(counts * np.abs(confidence - hit_rate)) / counts.sum())
    chance = calibration_by_chance(data.probs)
    lean = float(data.probs.max(1).mean() - (data.probs.argmax(1) == data.labels).mean())
    manner = "more sure than it should be" if lean > 0 else "more modest than it need be"
    said = (
        f"Its stated confidence is off by {100 * error:.1f} points on average (ECE; chance alone "
        f"would give about {100 * chance:.1f})"
    )
    good = error <= max(0.05, 2 * chance)
    said += "." if abs(lean) < 0.02 else f"; overall it is {manner}."
    return Finding("trust" if good else "care" if error <= 0.1 else "doubt", "calibration", said)


def _sets(data: ReportData) -> Finding | None:
    student = data.metrics.get("student", {})
    covered = student.get("coverage_90")
    if not is_number(covered):
        return None
    error = math.sqrt(max(covered * (1 - covered), 0.0) / len(data.labels))
    size = student.get("set_size_90")
    said = f"Its {percent(0.9, 0)} sets contain the truth for {percent(covered)} of the examples"
    said += f" (± {100 * error:.1f} standard error)"
    said += f", with {size:.1f} classes on average" if is_number(size) else ""
    exact = student.get("coverage_90_exact")
    if is_number(exact):
        said += (
            "; whole classes hold more than asked, and cut to exactly "
            f"{percent(0.9, 0)} of the probability they would for {percent(exact)}"
        )
    said += "."
    short = 0.9 - 2 * error - covered
    level = "trust" if short <= 0 else "care" if short <= 0.05 else "doubt"
    return Finding(level, "its 90 % sets", said)


def _confusion(data: ReportData) -> Finding | None:
    """What is confused most, and whether classes are lost in others."""
    counts = confusion(data.labels, data.probs.argmax(1), len(data.classes))
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
