"""The section that looks at each class or label by itself, and at unusual examples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from mtbkd.app.report import by_class, figures_classes
from mtbkd.app.report.apart import Apart, beside
from mtbkd.app.report.data import Classes, Labels, ReportData
from mtbkd.app.report.sentences import confusion_sentences, spill_sentences
from mtbkd.app.report.words import plural, shorten
from mtbkd.types import Bools, Floats, Ints

MOST, _FEW = 24, 5


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
            drawn[f"each-{part}"] = _each(data, columns, order, part)
    everything = [*beside(data, second), *apart]
    if confusion is None and not everything:
        return None
    return Section(confusion, everything, {name: Markup(svg) for name, svg in drawn.items()})


def _each(data: ReportData[Any], columns: Columns, order: list[int], part: str) -> str:
    """One part of the uncertainty of each class."""
    pairs = by_class.right_and_wrong(getattr(data, part), columns.of, columns.hits)
    rows = []
    for i in order:
        name, (right, wrong) = shorten(data.classes[i], figures_classes.LETTERS), pairs[i]
        rows.append((f"{name}\n{len(right):,} right, {len(wrong):,} wrong", right, wrong))
    return figures_classes.right_above_wrong(
        f"each-{part}",
        f"{part.capitalize()} uncertainty of each true {data.noun}, right and wrong",
        rows,
        f"{part} uncertainty (nats)",
        (440.0, 70.0 + 37 * len(rows)),
        _FEW,
    )


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
