"""Can the student be trusted? Plain findings, each with the rule that graded it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mtbkd.metrics import reliability
from mtbkd.report.data import Floats, ReportData
from mtbkd.report.words import is_number, join, percent

Level = Literal["trust", "care", "doubt"]
_ORDER: tuple[Level, ...] = ("trust", "care", "doubt")
_FEW = 100


@dataclass(frozen=True)
class Finding:
    """One line of the verdict.

    Attributes:
        level: What this line alone would say.
        about: Its subject, for the headline.
        sentence: In plain words.
    """

    level: Level
    about: str
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """The worst level of all findings, and the findings.

    Attributes:
        level: "trust", "care" or "doubt".
        headline: One sentence, which names what lowered the level.
        findings: In the order in which a reader asks.
    """

    level: Level
    headline: str
    findings: tuple[Finding, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """The findings in words."""
        return tuple(finding.sentence for finding in self.findings)


def verdict(data: ReportData) -> Verdict:
    """Judge the student: it is as good as its worst finding.

    | Finding | trust | care | doubt |
    |---|---|---|---|
    | accuracy | within 2 points or 2 standard errors of teachers and pool | below | below the most common class |
    | NLL | within 2 standard errors of the best baseline | above | no better than class frequencies |
    | ECE | <= 0.05, or twice what chance gives | <= 0.10 | above |
    | 90 % sets | hold 90 %, less 2 standard errors | 5 points less | below |
    | AUROC for errors | >= 0.8 | >= 0.6 | below |
    | 95th percentile of R-hat | < 1.1 | < 1.2, or unknown | above |
    | warnings | none | any | |
    """  # noqa: E501
    found = (
        _accuracy(data),
        _nll(data),
        _calibration(data),
        _sets(data),
        _errors(data),
        _chains(data),
        _warnings(data),
    )
    findings = tuple(finding for finding in (_size(data), *found) if finding is not None)
    level = max(findings, key=lambda finding: _ORDER.index(finding.level)).level
    return Verdict(level, _headline(level, findings), findings)


def accuracy_when_handing_over(data: ReportData, order: Floats) -> tuple[Floats, Floats]:
    """Accuracy on what is left if the examples of largest ``order`` go to a person.

    Args:
        data: With labels and the student's probabilities.
        order: An uncertainty, shape (example,).

    Returns:
        Share handed over, from 0 to below 1, and accuracy on the rest, each (example,).
    """
    hits = (data.probs.argmax(1) == data.labels)[np.argsort(order, kind="stable")]
    kept = np.arange(1, len(hits) + 1)
    return (1 - kept / len(hits))[::-1], (np.cumsum(hits) / kept)[::-1]


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


def _headline(level: Level, findings: tuple[Finding, ...]) -> str:
    reasons = join([f.about for f in findings if f.level == level])
    return {
        "trust": "This student can be trusted on data like its test set.",
        "care": f"Use this student with care: look at {reasons}.",
        "doubt": f"Do not rely on this student yet: look at {reasons}.",
    }[level]


def _size(data: ReportData) -> Finding | None:
    n = len(data.labels)
    if n >= _FEW:
        return None
    said = f"There are only {n} test examples: every share below is uncertain by many points."
    return Finding("care", "the size of the test set", said)


def _rivals(data: ReportData, key: str) -> tuple[dict[str, float], float | None]:
    """Best teacher and pool by description, and the best baseline, at one metric."""
    pick = max if key == "accuracy" else min
    metrics, rivals = data.metrics, {}
    teachers = {n: m[key] for n, m in metrics.get("teachers", {}).items() if is_number(m.get(key))}
    if teachers:
        best = pick(teachers, key=teachers.__getitem__)
        rivals[f"the best teacher ({best})" if len(teachers) > 1 else best] = teachers[best]
    pool: Any = (metrics.get("teacher_pool") or {}).get(key)
    if is_number(pool) and len(teachers) > 1:
        rivals["the teachers' pool"] = pool
    values = [m[key] for m in metrics.get("baselines", {}).values() if is_number(m.get(key))]
    return rivals, pick(values) if values else None


def _accuracy(data: ReportData) -> Finding:
    n, own = len(data.labels), float((data.probs.argmax(1) == data.labels).mean())
    rivals, baseline = _rivals(data, "accuracy")
    others = [f"{name} on {percent(value)}" for name, value in rivals.items()]
    others += [f"the best baseline on {percent(baseline)}"] if baseline is not None else []
    said = f"The student is right on {percent(own)} of {n:,} test examples"
    said += f"; {join(others)}." if others else "."
    common = float(np.bincount(data.labels).max() / n)
    if own < common:
        said += f" Always naming the most common class would be right on {percent(common)}."
        return Finding("doubt", "its accuracy", said)
    slack = max(0.02, 2 * math.sqrt(own * (1 - own) / n))
    gap = max(rivals.values(), default=own) - own
    return Finding("trust" if gap <= slack else "care", "its accuracy", said)


def _nll(data: ReportData) -> Finding:
    losses = -np.log(np.maximum(data.probs[np.arange(len(data.labels)), data.labels], 1e-12))
    own, error = float(losses.mean()), float(losses.std() / math.sqrt(len(losses)))
    _, baseline = _rivals(data, "nll")
    shares = np.bincount(data.labels) / len(data.labels)
    guess = float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
    said = f"Its probabilities cost {own:.3f} nats per example (NLL, lower is better)"
    if own >= guess > 0:
        said += f", no better than the class frequencies alone ({guess:.3f})."
        return Finding("doubt", "its probabilities", said)
    if baseline is None:
        return Finding("trust", "its probabilities", f"{said}.")
    gap = own - baseline
    words = "much like" if abs(gap) <= 2 * error else "less than" if gap < 0 else "more than"
    level = "care" if gap > 2 * error else "trust"
    said += f", {words} the best baseline ({baseline:.3f})."
    return Finding(level, "its probabilities", said)


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


def _errors(data: ReportData) -> Finding:
    auroc = data.metrics.get("student", {}).get("error_auroc")
    handed, kept = accuracy_when_handing_over(data, data.total)
    at = min(int(np.searchsorted(handed, 0.2)), len(handed) - 1)
    gain = (
        f"handing the most uncertain {percent(0.2, 0)} to a person moves accuracy on the rest from "
        f"{percent(kept[0])} to {percent(kept[at])}"
    )
    if not is_number(auroc):
        return Finding("trust", "its errors", f"Whether it flags its errors is unknown; {gain}.")
    how = "well" if auroc >= 0.8 else "partly" if auroc >= 0.6 else "hardly"
    said = f"Uncertainty flags errors {how} (AUROC {auroc:.2f}; 0.5 is chance): {gain}."
    level = "trust" if auroc >= 0.8 else "care" if auroc >= 0.6 else "doubt"
    return Finding(level, "how it flags errors", said)


def _chains(data: ReportData) -> Finding:
    rhat = data.metrics.get("diagnostics", {}).get("rhat_95")
    if not is_number(rhat):
        said = "Whether its chains agree cannot be told: there are too few draws, or no R-hat."
        return Finding("care", "its chains", said)
    how, level = ("agree", "trust") if rhat < 1.1 else ("agree fairly", "care")
    if rhat >= 1.2:
        how, level = "disagree, so its epistemic uncertainty is not to be relied on", "doubt"
    said = f"Independent chains {how} (95th percentile of R-hat {rhat:.3f}; 1 is perfect)."
    return Finding(level, "its chains", said)


def _warnings(data: ReportData) -> Finding:
    n = len(data.warnings)
    if not n:
        return Finding("trust", "warnings", "The run gave no warnings.")
    said = f"The run gave {n} warning{'s' * (n > 1)}, listed below."
    return Finding("care", "the warnings", said)
