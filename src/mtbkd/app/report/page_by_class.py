"""The section that looks at each class or label by itself, and at unusual examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mtbkd.app.report import by_class, figures, figures_classes
from mtbkd.app.report.data import LabelReportData, ReportData
from mtbkd.app.report.sentences import confusion_sentences, spill_sentences
from mtbkd.app.report.words import count, is_number, number, plural
from mtbkd.types import Floats, Ints

MOST, _SINGLE, _SHARE = 24, 30, 0.2
_PARTS = {
    "total": "All of it. Further to the right is less sure.",
    "aleatoric": "The part that lies in the examples, which more training data would not remove.",
    "epistemic": "The part on which draws disagree, which more training data would reduce.",
}
_SECOND = "Mean probability of a draw's second class: how much is believed in a second one."
_ROLES = ("student", "pool", "wrong")


@dataclass(frozen=True)
class Section:
    """What the template shows; a part that makes no sense is missing.

    Attributes:
        noun: What a class is.
        nouns: More than one of them.
        confusion: "heading", "caption", "said", which are sentences, and whether it is "wide".
        left_out: How many classes are not shown by themselves.
        strips: Whether there are figures of uncertainty by class.
        apart: Heading, lead and figures (name, heading, caption) of each set of inputs beside the
            test set, and of examples of several labels.
        by_number: Rows of a table of examples by their number of labels.
        figures: SVG by name.
    """

    noun: str
    nouns: str
    confusion: dict[str, Any] | None = None
    left_out: int = 0
    strips: bool = False
    apart: list[dict[str, Any]] = field(default_factory=list)
    by_number: list[tuple[str, list[str]]] = field(default_factory=list)
    figures: dict[str, Markup] = field(default_factory=dict)


def section(data: ReportData | LabelReportData) -> Section | None:
    """The section, or None where it would be empty.

    Classes are looked at by themselves from three on; two are told apart by what the rest of the
    page says.
    """
    of_labels = isinstance(data, LabelReportData)
    of, hits = _answers(data)
    shares, counts = _taken(data)
    rows = np.flatnonzero(of.any(0) | (counts.any(0) if counts is not None else False))
    confusion, strips, drawn, left_out = None, False, {}, 0
    if len(rows) >= 3:
        order = _chosen(shares, rows)
        left_out = len(rows) - len(order)
        confusion, drawn["confusion"] = _confusion(data, shares, counts, order)
        strips = True
        names = [data.classes[i] for i in order]
        for part in ("aleatoric", "epistemic"):
            pairs = by_class.strips(getattr(data, part), of, hits)
            title = f"{part.capitalize()} uncertainty of each true {data.noun}, right and wrong"
            chosen = [pairs[i] for i in order]
            drawn[f"each-{part}"] = figures_classes.by_class(part, title, chosen, names)
    apart, pictures = _beside(data)
    by_number: list[tuple[str, list[str]]] = []
    if of_labels and len(data.classes) >= 3:
        more, by_number, further = _several(data)
        apart, pictures = apart + more, pictures | further
    if confusion is None and not apart:
        return None
    drawn |= pictures
    svgs = {name: Markup(svg) for name, svg in drawn.items()}
    return Section(
        data.noun, plural(data.noun), confusion, left_out, strips, apart, by_number, svgs
    )


def _answers(
    data: ReportData | LabelReportData,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which examples belong to each class, shape (example, class), and which answers are right."""
    if isinstance(data, LabelReportData):
        return data.labels == 1, (data.probs >= 0.5) == (data.labels == 1)
    of = data.labels[:, None] == np.arange(len(data.classes))
    return of, data.probs.argmax(1) == data.labels


def _taken(data: ReportData | LabelReportData) -> tuple[Floats, Ints | None]:
    """Shares of what is taken for what, and counts where an example has one true class."""
    said = data.probs.argmax(1)
    if isinstance(data, LabelReportData):
        true = by_class.single(data.labels)
        if (true >= 0).sum() < max(_SINGLE, _SHARE * len(true)):
            return by_class.spill(data.labels, data.probs), None
    else:
        true = data.labels
    counts = by_class.confusion(true, said, len(data.classes))
    return by_class.row_shares(counts), counts


def _chosen(shares: Floats, rows: Ints) -> list[int]:
    """At most `MOST` of these classes, the most confused, confused ones side by side."""
    off = np.nan_to_num(shares)
    np.fill_diagonal(off, 0.0)
    blurred = (off.sum(0) + off.sum(1))[rows]
    kept = np.sort(rows[np.argsort(-blurred, kind="stable")[:MOST]])
    return kept[by_class.neighbours(shares[np.ix_(kept, kept)])].tolist()


def _confusion(
    data: ReportData | LabelReportData, shares: Floats, counts: Ints | None, order: list[int]
) -> tuple[dict[str, Any], str]:
    noun, nouns = data.noun, plural(data.noun)
    cut = np.ix_(order, order)
    names = [data.classes[i] for i in order]
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
        whose, answer = "test examples", "the student's answer"
        if isinstance(data, LabelReportData):
            whose = f"the {counts.sum():,} test examples that have exactly one {noun}"
            answer = f"the most probable {noun}"
        caption = (
            f"The true {noun} down, {answer} across. Numbers count {whose}; the colour is their "
            f"share of the row, blue if right and orange if not. {nouns.capitalize()} that are "
            "confused stand side by side."
        )
    drawn = figures_classes.confusion_map(
        f"{heading}, by {noun}",
        shares[cut],
        None if counts is None else counts[cut],
        names,
        (f"true {noun}", across),
    )
    return {
        "heading": heading,
        "caption": caption,
        "said": said,
        "wide": len(order) >= 8,
    }, drawn


def _beside(data: ReportData | LabelReportData) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Each set of inputs beside the test set: what it is, and its figures."""
    sums = _sums(data)
    found, drawn = [], {}
    for i, (name, other) in enumerate(data.others.items()):
        scores = data.metrics.get("student", {}).get("others", {}).get(name, {})
        shown = []
        for part in _PARTS:
            key, auroc = f"other-{i}-{part}", scores.get(f"auroc_{part}")
            groups = [("test", "student", sums[part]), (name, "pool", getattr(other, part))]
            title = f"{part.capitalize()} uncertainty: test examples and {name}"
            drawn[key] = _overlaid(key, title, groups, part)
            shown.append((key, _heading(part, auroc), _PARTS[part]))
        second = data.second if isinstance(data, ReportData) else None
        if second is not None and other.second is not None:
            key, auroc = f"other-{i}-second", scores.get("auroc_second")
            drawn[key] = figures.overlaid(
                key,
                f"Belief in a second {data.noun}: test examples and {name}",
                [("test", "student", second), (name, "pool", other.second)],
                (f"belief in a second {data.noun}", "share of such examples"),
            )
            shown.append((key, _heading(f"second {data.noun}", auroc), _SECOND))
        lead = (
            f"{len(other.total):,} examples of “{name}”, none of them in the test set; if the "
            "student knows that they are unlike it, they are more uncertain."
        )
        heading = f"Against the test set: {name}"
        found.append({"heading": heading, "lead": lead, "figures": shown})
    return found, drawn


def _several(
    data: LabelReportData,
) -> tuple[list[dict[str, Any]], list[tuple[str, list[str]]], dict[str, str]]:
    """Examples by their number of true labels, if these numbers differ."""
    groups = by_class.by_number(data.labels, data.probs)
    drawn_apart = [group for group in groups if group.least]
    if len(drawn_apart) < 2:
        return [], [], {}
    noun, nouns = data.noun, plural(data.noun)
    words = (f"no {noun}", f"one {noun}", f"two {nouns}", "three or more")
    sums = _sums(data)
    drawn, shown = {}, []
    for part in _PARTS:
        key = f"number-{part}"
        its = [(words[g.least], _ROLES[g.least - 1], sums[part][g.rows]) for g in drawn_apart]
        title = f"{part.capitalize()} uncertainty by the number of true {nouns}"
        drawn[key] = _overlaid(key, title, its, part)
        auroc = by_class.several_auroc(groups, sums[part])
        shown.append((key, _heading(part, auroc), _PARTS[part]))
    table = [
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
    ]
    lead = (
        f"Test examples by how many {nouns} are true; uncertainties are sums over {nouns}. The "
        f"AUROC tells several {nouns} from one."
    )
    heading = f"One {noun} against several"
    return [{"heading": heading, "lead": lead, "figures": shown}], table, drawn


def _sums(data: ReportData | LabelReportData) -> dict[str, Floats]:
    """Each part of the uncertainty of whole examples, shape (example,)."""
    parts = {part: getattr(data, part) for part in _PARTS}
    return {part: v if v.ndim == 1 else v.sum(1) for part, v in parts.items()}


def _heading(part: str, auroc: Any) -> str:
    scored = f": AUROC {number(auroc, 2)}" if is_number(auroc) else ""
    return f"{part.capitalize()}{scored}"


def _overlaid(key: str, title: str, groups: list[tuple[str, str, Floats]], part: str) -> str:
    return figures.overlaid(
        key, title, groups, (f"{part} uncertainty (nats)", "share of such examples")
    )
