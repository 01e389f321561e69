"""Unusual examples beside usual ones: not of the test set, or of several labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from mtbkd.app.report import by_class, figures
from mtbkd.app.report.data import Labels, ReportData
from mtbkd.app.report.words import count, is_number, number, plural
from mtbkd.types import Floats

_PARTS = {
    "total": "All of it. Further to the right is less sure.",
    "aleatoric": "The part that lies in the examples, which more training data would not remove.",
    "epistemic": "The part on which draws disagree, which more training data would reduce.",
}
_SECOND = "Mean probability of a draw's second class: how much is believed in a second one."
_ROLES = ("student", "pool", "wrong")


@dataclass(frozen=True)
class Apart:
    """Unusual examples beside usual ones.

    Attributes:
        heading: What they are.
        lead: A sentence on them.
        figures: Heading, caption and SVG of each figure.
        rows: What each row of a table beneath is about, and its cells.
    """

    heading: str
    lead: str
    figures: list[tuple[str, str, Markup]]
    rows: list[tuple[str, list[str]]] = field(default_factory=list)


def beside(data: ReportData[Any], second: Floats | None) -> Iterable[Apart]:
    """Each set of inputs beside the test set."""
    for i, (name, other) in enumerate(data.others.items()):
        scores = data.student.get("others", {}).get(name, {})
        shown = [
            _overlaid(
                f"other-{i}",
                part,
                f": test examples and {name}",
                [("test", "student", data.of_examples(part)), (name, "pool", getattr(other, part))],
                scores.get(f"auroc_{part}"),
            )
            for part in _PARTS
        ]
        if second is not None and other.second is not None:
            what = f"second {data.noun}"
            svg = figures.overlaid(
                f"other-{i}-second",
                f"Belief in a {what}: test examples and {name}",
                [("test", "student", second), (name, "pool", other.second)],
                (f"belief in a {what}", "share of such examples"),
            )
            shown.append((_scored(what, scores.get("auroc_second")), _SECOND, Markup(svg)))
        lead = (
            f"{len(other.total):,} examples of “{name}”, none of them in the test set; if the "
            "student knows that they are unlike it, they are more uncertain."
        )
        yield Apart(heading=f"Against the test set: {name}", lead=lead, figures=shown)


def several(data: ReportData[Labels]) -> Iterable[Apart]:
    """Examples by their number of true labels, if there are three labels and numbers differ."""
    groups = by_class.by_number(data.labels, data.part.probs)
    drawn_apart = [group for group in groups if group.least]
    if len(data.classes) < 3 or len(drawn_apart) < 2:
        return
    noun, nouns = data.noun, plural(data.noun)
    words = (f"no {noun}", f"one {noun}", f"two {nouns}", "three or more")
    sums = {part: data.of_examples(part) for part in _PARTS}
    yield Apart(
        heading=f"One {noun} against several",
        lead=(
            f"Test examples by how many {nouns} are true; uncertainties are sums over {nouns}. The "
            f"AUROC tells several {nouns} from one."
        ),
        figures=[
            _overlaid(
                "number",
                part,
                f" by the number of true {nouns}",
                [(words[g.least], _ROLES[g.least - 1], values[g.rows]) for g in drawn_apart],
                by_class.several_auroc(groups, values),
            )
            for part, values in sums.items()
        ],
        rows=[
            (
                words[g.least],
                [
                    count(int(g.rows.sum())),
                    number(float(np.nansum(data.labels[g.rows], 1).mean()), 2),
                    number(g.expected, 2),
                    number(float(np.median(sums["total"][g.rows])), 2),
                ],
            )
            for g in groups
        ],
    )


def _overlaid(
    key: str, part: str, what: str, groups: list[tuple[str, str, Floats]], auroc: float | None
) -> tuple[str, str, Markup]:
    """Heading, caption and figure of one part of the uncertainty of several groups of examples."""
    title = f"{part.capitalize()} uncertainty{what}"
    words = f"{part} uncertainty (nats)", "share of such examples"
    svg = figures.overlaid(f"{key}-{part}", title, groups, words)
    return _scored(part, auroc), _PARTS[part], Markup(svg)


def _scored(part: str, auroc: Any) -> str:
    scored = f": AUROC {number(auroc, 2)}" if is_number(auroc) else ""
    return f"{part.capitalize()}{scored}"
