"""What is found about a student that answers yes or no for each of several labels."""

from __future__ import annotations

import numpy as np

from mtbkd.app.report.answers import of_labels
from mtbkd.app.report.data import Labels, ReportData
from mtbkd.app.report.findings import (
    Finding,
    calibrated,
    compared,
    flagged_errors,
    gap_by_chance,
    losses,
)
from mtbkd.app.report.words import number
from mtbkd.metrics import f1_macro, label_ece, label_losses, label_reliability, mean_with_error
from mtbkd.types import Floats

_RESAMPLES = 200
_RARE = 10


def findings(data: ReportData[Labels]) -> tuple[Finding, ...]:
    """In the order in which a reader asks; the rules stand in `mtbkd.app.report.verdict`."""
    auroc = data.student.get("error_auroc")
    return (
        _f1(data),
        _nll(data),
        _calibration(data),
        _worst_label(data),
        flagged_errors(auroc, of_labels(data), " of the answers"),
    )


def f1_macro_error(data: ReportData[Labels]) -> float:
    """Bootstrap standard error of macro F1, over examples."""
    known = ~np.isnan(data.labels)
    said, true = (data.part.probs >= 0.5) & known, data.labels == 1
    twice = (2 * (said & true)).astype(float)
    either = said.astype(float) + true
    n = len(data.labels)
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), _RESAMPLES).astype(float)
    above, below = drawn @ twice, drawn @ either
    f1 = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
    some = ~np.isnan(f1).all(1)
    return float(np.nanmean(f1[some], axis=1).std()) if some.any() else 0.0


def label_ece_by_chance(probs: Floats, labels: Floats) -> Floats:
    """The ECE of each label to be expected of a perfectly calibrated model on as many examples.

    Args:
        probs: P(yes), shape (example, label).
        labels: Tell which answers are known, shape (example, label).

    Returns:
        Shape (label,); NaN for a label that is never known.
    """
    expected = []
    for said, true in zip(probs.T, labels.T, strict=True):
        share, _, counts = label_reliability(said, true)
        gaps = np.nansum(gap_by_chance(share, counts) * counts)
        expected.append(gaps / counts.sum() if counts.sum() else np.nan)
    return np.array(expected)


def _f1(data: ReportData[Labels]) -> Finding:
    probs, n = data.part.probs, len(data.labels)
    own, error = f1_macro(probs, data.labels), f1_macro_error(data)
    said, others = compared(
        f"The student reaches a macro F1 of {own:.3f} on {n:,} test examples",
        data.metrics,
        "f1_macro",
        number,
        highest=True,
    )
    rare = int(((data.labels == 1).sum(0) < _RARE).sum())
    if rare:
        said += (
            f" {rare} of {len(data.classes)} labels {'is' if rare == 1 else 'are'} yes for fewer "
            f"than {_RARE} of them, too few to tell."
        )
    always = f1_macro(np.ones_like(probs), data.labels)
    if own < always:
        said += f" Always saying yes would reach {always:.3f}."
        return Finding("doubt", "its macro F1", said)
    gap = max(others, default=own) - own
    level = "trust" if gap <= max(0.02, 2 * error) else "care"
    return Finding(level, "its macro F1", said)


def _nll(data: ReportData[Labels]) -> Finding:
    known = ~np.isnan(data.labels)
    own, error = mean_with_error(label_losses(data.part.probs, data.labels), known)
    share = np.where(known, data.labels, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    guess = label_losses(np.broadcast_to(share, data.labels.shape), data.labels)[known].mean()
    return losses(own, error, float(guess), "the labels' frequencies", "label", data.metrics)


def _calibration(data: ReportData[Labels]) -> Finding:
    known, probs = ~np.isnan(data.labels), data.part.probs
    error = float(np.nanmean(label_ece(probs, data.labels)))
    chance = float(np.nanmean(label_ece_by_chance(probs, data.labels)))
    lean = float(probs[known].mean() - data.labels[known].mean())
    manner = "says yes more often" if lean > 0 else "says yes less often"
    said = (
        f"Its stated probabilities are off by {100 * error:.1f} points on average (ECE, mean over "
        f"labels; chance alone would give about {100 * chance:.1f})"
    )
    said += "." if abs(lean) < 0.02 else f"; overall it {manner} than is true."
    return Finding(calibrated(error, chance), "calibration", said)


def _worst_label(data: ReportData[Labels]) -> Finding:
    errors = label_ece(data.part.probs, data.labels)
    chance = label_ece_by_chance(data.part.probs, data.labels)
    excess = np.where(np.isnan(errors), -np.inf, errors - np.maximum(0.1, 3 * chance))
    off = int((excess > 0).sum())
    worst = int(np.nanargmax(errors)) if not off else int(excess.argmax())
    said = (
        f"The label whose probabilities mean least is {data.classes[worst]}, off by "
        f"{100 * errors[worst]:.1f} points (chance alone {100 * chance[worst]:.1f})"
    )
    said += f"; {off} of {len(errors)} labels are off by more than they should." if off else "."
    return Finding("care" if off else "trust", "the calibration of single labels", said)
