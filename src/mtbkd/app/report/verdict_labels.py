"""What is found about a student that answers yes or no for each of several labels."""

from __future__ import annotations

import math

import numpy as np

from mtbkd.app.report.data import LabelReportData
from mtbkd.app.report.findings import Finding, flagged_errors, losses, rivals
from mtbkd.app.report.words import join
from mtbkd.metrics import f1_macro, label_ece, label_losses, label_reliability
from mtbkd.types import Floats

_RESAMPLES = 200
_RARE = 10


def findings(data: LabelReportData) -> tuple[Finding, ...]:
    """In the order in which a reader asks; the rules stand in `mtbkd.app.report.verdict`."""
    known = ~np.isnan(data.labels)
    hits = ((data.probs >= 0.5) == (data.labels == 1))[known]
    auroc = data.metrics.get("student", {}).get("error_auroc")
    return (
        _f1(data),
        _nll(data),
        _calibration(data),
        _worst_label(data),
        flagged_errors(auroc, hits, data.total[known], " of the answers"),
    )


def f1_macro_error(data: LabelReportData) -> float:
    """Bootstrap standard error of macro F1, over examples."""
    known = ~np.isnan(data.labels)
    said, true = (data.probs >= 0.5) & known, data.labels == 1
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

    Each bin's gap is normal with variance ``sum p (1 - p) / n^2``, whose mean size is
    ``sqrt(2 / pi)`` standard deviations.

    Args:
        probs: P(yes), shape (example, label).
        labels: Tell which answers are known, shape (example, label).

    Returns:
        Shape (label,); NaN for a label that is never known.
    """
    expected = []
    for said, true in zip(probs.T, labels.T, strict=True):
        p, _, counts = label_reliability(said, true)
        spread = np.sqrt(2 / math.pi * np.clip(p * (1 - p), 0, None) * counts)
        expected.append(np.nansum(spread) / counts.sum() if counts.sum() else np.nan)
    return np.array(expected)


def _f1(data: LabelReportData) -> Finding:
    own, error = f1_macro(data.probs, data.labels), f1_macro_error(data)
    others_at, baseline = rivals(data.metrics, "f1_macro", highest=True)
    others = [f"{name} {value:.3f}" for name, value in others_at.items()]
    others += [f"the best baseline {baseline:.3f}"] if baseline is not None else []
    n = len(data.labels)
    said = f"The student reaches a macro F1 of {own:.3f} on {n:,} test examples"
    said += f"; {join(others)}." if others else "."
    rare = int(((data.labels == 1).sum(0) < _RARE).sum())
    if rare:
        said += (
            f" {rare} of {len(data.classes)} labels {'is' if rare == 1 else 'are'} yes for fewer "
            f"than {_RARE} of them, too few to tell."
        )
    always = f1_macro(np.ones_like(data.probs), data.labels)
    if own < always:
        said += f" Always saying yes would reach {always:.3f}."
        return Finding("doubt", "its macro F1", said)
    gap = max(others_at.values(), default=own) - own
    level = "trust" if gap <= max(0.02, 2 * error) else "care"
    return Finding(level, "its macro F1", said)


def _nll(data: LabelReportData) -> Finding:
    known = ~np.isnan(data.labels)
    each = label_losses(data.probs, data.labels)
    own = float(each[known].mean())
    # answers on one example belong together, so the error is that of a ratio of sums over examples
    strays = np.where(known, each - own, 0.0).sum(1)
    error = float(np.sqrt(np.square(strays).sum()) / known.sum())
    _, baseline = rivals(data.metrics, "nll")
    share = np.where(known, data.labels, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    guess = label_losses(np.broadcast_to(share, data.labels.shape), data.labels)[known].mean()
    return losses(own, error, float(guess), "the labels' frequencies", "label", baseline)


def _calibration(data: LabelReportData) -> Finding:
    known = ~np.isnan(data.labels)
    error = float(np.nanmean(label_ece(data.probs, data.labels)))
    chance = float(np.nanmean(label_ece_by_chance(data.probs, data.labels)))
    lean = float(data.probs[known].mean() - data.labels[known].mean())
    manner = "says yes more often" if lean > 0 else "says yes less often"
    said = (
        f"Its stated probabilities are off by {100 * error:.1f} points on average (ECE, mean over "
        f"labels; chance alone would give about {100 * chance:.1f})"
    )
    said += "." if abs(lean) < 0.02 else f"; overall it {manner} than is true."
    good = error <= max(0.05, 2 * chance)
    return Finding("trust" if good else "care" if error <= 0.1 else "doubt", "calibration", said)


def _worst_label(data: LabelReportData) -> Finding:
    errors = label_ece(data.probs, data.labels)
    chance = label_ece_by_chance(data.probs, data.labels)
    excess = np.where(np.isnan(errors), -np.inf, errors - np.maximum(0.1, 3 * chance))
    off = int((excess > 0).sum())
    worst = int(np.nanargmax(errors)) if not off else int(excess.argmax())
    said = (
        f"The label whose probabilities mean least is {data.classes[worst]}, off by "
        f"{100 * errors[worst]:.1f} points (chance alone {100 * chance[worst]:.1f})"
    )
    said += f"; {off} of {len(errors)} labels are off by more than they should." if off else "."
    return Finding("care" if off else "trust", "the calibration of single labels", said)
