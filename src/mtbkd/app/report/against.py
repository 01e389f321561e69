"""What the posterior adds over an ensemble that knows as much, and at which cost, in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mtbkd.app.report.data import ReportData
from mtbkd.app.report.findings import Finding
from mtbkd.app.report.words import is_number, join, number, significant

_CERTAIN = 2.0  # standard errors
_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class _Compared:
    """One comparison: its words, and how many standard errors the student is ahead, if any."""

    words: str
    ahead: float


def against(data: ReportData[Any]) -> Finding | None:
    """Whether the student is better than the rival in ``metrics.json``, and what that costs.

    Only a difference of more than 2 standard errors counts.
    """
    rival = data.metrics.get("rival")
    if not rival:
        return None
    compared = _all_compared(rival)
    better = [one.words for one in compared if one.ahead > _CERTAIN]
    worse = [one.words for one in compared if one.ahead < -_CERTAIN]
    alike = [one.words for one in compared if abs(one.ahead) <= _CERTAIN]
    whom, parts = f"the {rival['name']}", []
    for how, which in (("better than", better), ("worse than", worse), ("no better than", alike)):
        if which:
            parts.append(f"{how} {whom} in {join(which)}")
            whom = "it"
    if not parts:
        return None
    cost = _cost(data, rival["name"], bool(better), bool(worse))
    said = f"The posterior is {'; '.join(parts)}.{cost}"
    level = "care" if worse and not better else "trust"
    return Finding(level, "what it adds over an ensemble", said)


def _all_compared(rival: dict[str, Any]) -> list[_Compared]:
    """Those that are known, in the order in which a reader asks."""
    rows: list[tuple[str, Any, Callable[[Any], str], int]] = [
        ("NLL", rival.get("nll"), number, -1),
        ("CRPS", rival.get("crps"), significant, -1),
        ("finding errors by AUROC", rival.get("error_auroc"), number, 1),
        ("selective risk", rival.get("selective_risk"), significant, -1),
    ]
    for name, scores in rival.get("others", {}).items():
        rows.append((f"finding “{name}” by AUROC", scores, number, 1))
    found = []
    for what, scores, write, sign in rows:
        if not scores or not is_number(scores["error"]):
            continue
        gap, error = scores["difference"], scores["error"]
        ahead = 0.0 if gap == 0 else sign * gap / error if error else sign * gap * float("inf")
        student, other = write(scores["student"]), write(scores["rival"])
        away = f"{_MINUS if gap < 0 else '+'}{significant(abs(gap), 2)} ± {significant(error, 2)}"
        words = f"{what} ({student} against {other}, difference {away})"
        found.append(_Compared(words, ahead))
    return found


def _cost(data: ReportData[Any], name: str, better: bool, worse: bool) -> str:
    """A sentence on CPU seconds, or none if they are not known.

    The choices of the prior's numbers count for both, since both use them.
    """
    spent = data.metrics.get("cost", {}).get("cpu_seconds", {})
    other = spent.get("baselines", {}).get(name)
    if not {"choices", "modes", "sampling"} <= spent.keys() or not is_number(other):
        return ""
    own = spent["choices"] + spent["modes"] + spent["sampling"]
    other = spent["choices"] + other
    ours, theirs = f"{significant(own, 2)}", f"{significant(other, 2)}"
    ratio = own / max(other, 1e-3)
    if better:
        return (
            f" It costs {significant(ratio, 2)} times as much as the ensemble ({ours} CPU seconds "
            f"of training against {theirs})."
        )
    seconds = f"({theirs} CPU seconds of training against {ours})"
    cost = f"1/{ratio:.0f} of the cost" if ratio >= 1.5 else f"{1 / ratio:.1f} times the cost"
    return f" The ensemble is {'better' if worse else 'as good'}, for {cost} {seconds}."
