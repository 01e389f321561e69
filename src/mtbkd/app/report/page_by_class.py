"""The section that looks at each class or label by itself, and at unusual examples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from mtbkd.app.report import by_class, figures, figures_classes
from mtbkd.app.report.data import Classes, Labels, ReportData
from mtbkd.app.report.sentences import confusion_sentences, spill_sentences
from mtbkd.app.report.words import is_number, number, plural, shorten
from mtbkd.types import Bools, Floats, Ints

MOST, _FEW = 24, 5
PARTS = {
    "total": "All of it. Further to the right is less sure.",
    "aleatoric": "The part that lies in the examples, which more training data would not remove.",
    "epistemic": "The part on which draws disagree, which more training data would reduce.",
}
_SECOND = "Mean probability of a draw's second class: how much is believed in a second one."


@dataclass(frozen=True)
class Columns:
    """What is known of each class or label.

    Attributes:
        of: Which examples belong to each, shape (example, class).
        hits: Whether the answer is right, shape (example,), or (example, label) where each label
            has an answer.
        shares: What is taken for what, in shares of rows, shape (true, said).
        counts: The same in examples, where each example counted has one true class.
        counted: Which examples these are.
        answer: What is taken for the student's answer on them.
    """

    of: Bools
    hits: Bools
    shares: Floats
    counts: Ints | None
    counted: str
    answer: str


@dataclass(frozen=True)
class Apart:
    """Unusual examples beside usual ones.

    Attributes:
        heading: What they are.
        lead: A sentence on them.
        figures: Name, heading, caption and SVG of each figure.
        rows: Of a table beneath: what a row is about, and its cells.
    """

    heading: str
    lead: str
    figures: list[tuple[str, str, Markup]]
    rows: list[tuple[str, list[str]]] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """What the template shows; a part that makes no sense is missing.

    Attributes:
        confusion: "heading", "caption", "said", which are sentences, whether it is "wide", and how
            many classes are "left_out".
        apart: Sets of inputs beside the test set, and examples of several labels.
        figures: SVG by name.
    """

    confusion: dict[str, Any] | None
    apart: list[Apart]
    figures: dict[str, Markup]


def section(
    data: ReportData[Classes] | ReportData[Labels],
    columns: Columns,
    second: Floats | None = None,
    apart: Iterable[Apart] = (),
) -> Section | None:
    """The section, or None where it would be empty.

    Classes are looked at by themselves from three on; two are told apart by what the rest of the
    page says.

    Args:
        data: The report's.
        columns: What is known of each class or label.
        second: Belief in a second class, if that can be, shape (example,).
        apart: More of unusual examples, beside inputs that are not of the test set.
    """
    counts = columns.counts
    rows = np.flatnonzero(columns.of.any(0) | (counts.any(0) if counts is not None else False))
    confusion, drawn = None, {}
    if len(rows) >= 3:
        order = _chosen(columns.shares, rows)
        confusion, drawn["confusion"] = _confusion(data, columns, order)
        confusion["left_out"] = len(rows) - len(order)
        for part in ("aleatoric", "epistemic"):
            title = f"{part.capitalize()} uncertainty of each true {data.noun}, right and wrong"
            pairs = by_class.right_and_wrong(getattr(data, part), columns.of, columns.hits)
            drawn[f"each-{part}"] = _each(data, part, title, [(i, *pairs[i]) for i in order])
    everything = [*_beside(data, second), *apart]
    if confusion is None and not everything:
        return None
    return Section(confusion, everything, {name: Markup(svg) for name, svg in drawn.items()})


def _each(
    data: ReportData[Any], part: str, title: str, chosen: list[tuple[int, Floats, Floats]]
) -> str:
    rows = [
        (
            f"{shorten(data.classes[i], figures_classes.LETTERS)}\n"
            f"{len(right):,} right, {len(wrong):,} wrong",
            right,
            wrong,
        )
        for i, right, wrong in chosen
    ]
    size = 440.0, 70.0 + 37 * len(rows)
    words = f"{part} uncertainty (nats)"
    return figures.right_above_wrong(f"each-{part}", title, rows, words, size, _FEW)


def _chosen(shares: Floats, rows: Ints) -> list[int]:
    """At most `MOST` of these classes, the most confused, confused ones side by side."""
    off = np.nan_to_num(shares)
    np.fill_diagonal(off, 0.0)
    blurred = (off.sum(0) + off.sum(1))[rows]
    kept = np.sort(rows[np.argsort(-blurred, kind="stable")[:MOST]])
    return kept[by_class.neighbours(shares[np.ix_(kept, kept)])].tolist()


def _confusion(
    data: ReportData[Any], columns: Columns, order: list[int]
) -> tuple[dict[str, Any], str]:
    """What is said of the map of what is taken for what, and the map."""
    noun, shares, counts = data.noun, columns.shares, columns.counts
    if counts is None:
        heading, across = f"What a true {noun} spills over to", "probability given to"
        said = spill_sentences(shares, data.classes)
        caption = (
            f"The true {noun} down. On the diagonal the mean probability that the student gives to "
            f"it; elsewhere the mean probability of the {noun} across, over examples that have the "
            f"one down and not the one across: it should be near 0."
        )
    else:
        heading, across = "What is taken for what", "taken for"
        said = confusion_sentences(counts, data.classes)
        caption = (
            f"The true {noun} down, {columns.answer} across. Numbers count {columns.counted}; the "
            "colour is their share of the row, blue if right and orange if not. "
            f"{plural(noun).capitalize()} that are confused stand side by side."
        )
    cut = np.ix_(order, order)
    svg = figures_classes.confusion_map(
        f"{heading}, by {noun}",
        shares[cut],
        None if counts is None else counts[cut],
        [data.classes[i] for i in order],
        (f"true {noun}", across),
    )
    shown = {"heading": heading, "caption": caption, "said": said, "wide": len(order) >= 8}
    return shown, svg


def _beside(data: ReportData[Any], second: Floats | None) -> Iterable[Apart]:
    """Each set of inputs beside the test set."""
    for i, (name, other) in enumerate(data.others.items()):
        scores = data.student.get("others", {}).get(name, {})
        shown = [
            overlaid(
                f"other-{i}-{part}",
                f"{part.capitalize()} uncertainty: test examples and {name}",
                part,
                [("test", "student", data.of_examples(part)), (name, "pool", getattr(other, part))],
                scores.get(f"auroc_{part}"),
            )
            for part in PARTS
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


def overlaid(
    name: str, title: str, part: str, groups: list[tuple[str, str, Floats]], auroc: Any
) -> tuple[str, str, Markup]:
    """Heading, caption and figure of one part of the uncertainty of several groups of examples.

    Args:
        name: Of the figure.
        title: Of the figure, for screen readers.
        part: "total", "aleatoric" or "epistemic".
        groups: What each is called, its role, and its values in nats.
        auroc: How well it tells one group from the others, if that is known.
    """
    words = f"{part} uncertainty (nats)", "share of such examples"
    svg = figures.overlaid(name, title, groups, words)
    return _scored(part, auroc), PARTS[part], Markup(svg)


def _scored(part: str, auroc: Any) -> str:
    scored = f": AUROC {number(auroc, 2)}" if is_number(auroc) else ""
    return f"{part.capitalize()}{scored}"
