"""One line of a verdict, and the lines that reports of every family share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mtbkd.app.report.answers import Answers
from mtbkd.app.report.data import ReportData
from mtbkd.app.report.words import is_number, join, percent
from mtbkd.types import Bools, Floats, Ints

Level = Literal["trust", "care", "doubt"]
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


def mean_when_handing_over(values: Floats | Bools, order: Floats) -> tuple[Floats, Floats]:
    """Mean over what is left if the answers of largest ``order`` go to a person.

    Args:
        values: Whether each answer is right, say; shape (answer,).
        order: An uncertainty, shape (answer,).

    Returns:
        Share handed over, from 0 to below 1, and mean over the rest, each (answer,).
    """
    ranked = values[np.argsort(order, kind="stable")]
    kept = np.arange(1, len(ranked) + 1)
    return (1 - kept / len(ranked))[::-1], (np.cumsum(ranked) / kept)[::-1]


def when_handing_over_a_fifth(values: Floats | Bools, order: Floats) -> tuple[float, float]:
    """Mean over all answers, and over what is left of them, as `mean_when_handing_over` has it."""
    handed, kept = mean_when_handing_over(values, order)
    at = min(int(np.searchsorted(handed, 0.2)), len(handed) - 1)
    return float(kept[0]), float(kept[at])


def size(data: ReportData[Any]) -> Finding | None:
    """Whether there are too few test examples."""
    n = len(data.labels)
    if n >= _FEW:
        return None
    said = f"There are only {n} test examples: every share below is uncertain by many points."
    return Finding("care", "the size of the test set", said)


def rivals(
    metrics: dict[str, Any], key: str, highest: bool = False
) -> tuple[dict[str, float], float | None]:
    """Best teacher and pool by description, and the best baseline, at one metric."""
    pick = max if highest else min
    found = {}
    teachers = {n: m[key] for n, m in metrics.get("teachers", {}).items() if is_number(m.get(key))}
    if teachers:
        best = pick(teachers, key=teachers.__getitem__)
        found[f"the best teacher ({best})" if len(teachers) > 1 else best] = teachers[best]
    pool: Any = (metrics.get("teacher_pool") or {}).get(key)
    if is_number(pool) and len(teachers) > 1:
        found["the teachers' pool"] = pool
    values = [m[key] for m in metrics.get("baselines", {}).values() if is_number(m.get(key))]
    return found, pick(values) if values else None


def compared(
    said: str,
    metrics: dict[str, Any],
    key: str,
    write: Callable[[float], str],
    highest: bool = False,
) -> tuple[str, list[float]]:
    """A sentence on a score of the student's that goes on with the others', as `rivals` finds them.

    Returns:
        The sentence, and what the best teacher and the pool reach.
    """
    others, baseline = rivals(metrics, key, highest)
    named = others if baseline is None else others | {"the best baseline": baseline}
    words = join([f"{name} {write(value)}" for name, value in named.items()])
    return said + (f"; {words}." if words else "."), list(others.values())


def gap_by_chance(shares: Floats, counts: Ints | float) -> Floats:
    """Mean size of the gap between a true share and the share of so many that chance gives.

    The gap is normal with variance ``p (1 - p) / n``, whose mean size is ``sqrt(2 / pi)`` standard
    deviations.

    Args:
        shares: In [0, 1], NaN where there is nothing.
        counts: How many each is a share of.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(2 / math.pi * np.clip(shares * (1 - shares), 0, None) / counts)


def calibrated(error: float, chance: float) -> Level:
    """The level of a calibration error, given what chance alone would make it."""
    return "trust" if error <= max(0.05, 2 * chance) else "care" if error <= 0.1 else "doubt"


def covered(short: float, slack: float) -> Level:
    """The level of sets or intervals that lack so much of their coverage."""
    return "trust" if short <= 0 else "care" if short <= slack else "doubt"


def losses(
    own: float, error: float, guess: float, guess_name: str, unit: str, metrics: dict[str, Any]
) -> Finding:
    """How its NLL compares with the best baseline's and with what needs no model.

    Args:
        own: The student's, in nats.
        error: Its standard error.
        guess: The loss of a prediction which is the same for all examples.
        guess_name: What that is.
        unit: What one loss belongs to.
        metrics: Hold the baselines'.
    """
    _, baseline = rivals(metrics, "nll")
    said = f"Its probabilities cost {own:.3f} nats per {unit} (NLL, lower is better)"
    if own >= guess:
        said += f", no better than {guess_name} alone ({guess:.3f})."
        return Finding("doubt", "its probabilities", said)
    if baseline is None:
        return Finding("trust", "its probabilities", f"{said}.")
    gap = own - baseline
    words = "much like" if abs(gap) <= 2 * error else "less than" if gap < 0 else "more than"
    level = "care" if gap > 2 * error else "trust"
    said += f", {words} the best baseline ({baseline:.3f})."
    return Finding(level, "its probabilities", said)


def flagged_errors(auroc: Any, answers: Answers, what: str) -> Finding:
    """Whether wrong answers are the uncertain ones.

    Args:
        auroc: Area under the curve of uncertainty as a detector of errors, if known.
        answers: Right and wrong ones.
        what: How the most uncertain answers are called.
    """
    before, after = when_handing_over_a_fifth(answers.hits, answers.total)
    gain = (
        f"handing the most uncertain {percent(0.2, 0)}{what} to a person moves accuracy on the "
        f"rest from {percent(before)} to {percent(after)}"
    )
    if not is_number(auroc):
        return Finding("trust", "its errors", f"Whether it flags its errors is unknown; {gain}.")
    how = "well" if auroc >= 0.8 else "partly" if auroc >= 0.6 else "hardly"
    said = f"Uncertainty flags errors {how} (AUROC {auroc:.2f}; 0.5 is chance): {gain}."
    level = "trust" if auroc >= 0.8 else "care" if auroc >= 0.6 else "doubt"
    return Finding(level, "how it flags errors", said)


_MEASURES = {"auroc_total": "total uncertainty", "auroc_second": "belief in a second class"}


def told_apart(data: ReportData[Any]) -> Finding | None:
    """Whether inputs beside the test set are the uncertain ones; of several sets the least so."""
    known, measures = {}, {}
    for name, scores in data.student.get("others", {}).items():
        own = {what: scores.get(key) for key, what in _MEASURES.items()}
        own = {what: auroc for what, auroc in own.items() if is_number(auroc)}
        if own:
            measures[name] = max(own, key=own.__getitem__)
            known[name] = own[measures[name]]
    if not known:
        return None
    name = min(known, key=known.__getitem__)
    how = "well" if known[name] >= 0.8 else "partly" if known[name] >= 0.6 else "hardly"
    said = (
        f"It tells examples of “{name}” from test examples {how}, by {measures[name]} "
        f"(AUROC {known[name]:.2f}; 0.5 is chance)."
    )
    level = "trust" if known[name] >= 0.6 else "care"
    return Finding(level, f"how it takes “{name}”", said)


def chains(data: ReportData[Any]) -> Finding:
    """Whether the chains agree."""
    rhat = data.metrics.get("diagnostics", {}).get("rhat_95")
    if not is_number(rhat):
        said = "Whether its chains agree cannot be told: there are too few draws, or no R-hat."
        return Finding("care", "its chains", said)
    how, level = ("agree", "trust") if rhat < 1.1 else ("agree fairly", "care")
    if rhat >= 1.2:
        how, level = "disagree, so its epistemic uncertainty is not to be relied on", "doubt"
    said = f"Independent chains {how} (95th percentile of R-hat {rhat:.3f}; 1 is perfect)."
    return Finding(level, "its chains", said)


def warnings(data: ReportData[Any]) -> Finding:
    """Whether the run warned."""
    n = len(data.warnings)
    if not n:
        return Finding("trust", "warnings", "The run gave no warnings.")
    said = f"The run gave {n} warning{'s' * (n > 1)}, listed below."
    return Finding("care", "the warnings", said)
