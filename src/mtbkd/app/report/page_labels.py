"""What the page shows of a student that answers yes or no for each of several labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtbkd.app.report import by_class, figures_classes
from mtbkd.app.report.answers import of_labels
from mtbkd.app.report.apart import several
from mtbkd.app.report.data import Example, Labels, ReportData
from mtbkd.app.report.page_answers import bar, figures_of_answers
from mtbkd.app.report.page_by_class import Columns, section
from mtbkd.app.report.words import count, number, percent
from mtbkd.metrics import average_precision, f1_by_label, label_ece, label_reliability

_ANSWERS_SHOWN = 6
_FEWEST_SINGLE, _SHARE_SINGLE = 30, 0.2


def figures(data: ReportData[Labels]) -> dict[str, str]:
    """How calibrated it is, label by label too, and whether wrong answers are uncertain."""
    words = "stated probability of yes", "share of yes"
    drawn = figures_of_answers(data, of_labels(data), label_reliability, words)
    if len(data.classes) > 1:
        drawn["labels"] = figures_classes.each_label(data)
    return drawn


def more(data: ReportData[Labels]) -> dict[str, Any]:
    """The table by label and the section on each label."""
    return {
        "by_label": _by_label(data),
        "drawn_apart": min(figures_classes.PANELS, len(data.classes)),
        "each": section(data, _columns(data), apart=several(data)),
    }


def _columns(data: ReportData[Labels]) -> Columns:
    """What is taken for what: counted where many examples have one label, else in probability."""
    probs, counts = data.part.probs, None
    true = by_class.single(data.labels)
    if (true >= 0).sum() < max(_FEWEST_SINGLE, _SHARE_SINGLE * len(true)):
        shares = by_class.spill(data.labels, probs)
    else:
        counts = by_class.confusion(true, probs.argmax(1), len(data.classes))
        shares = by_class.row_shares(counts)
    n = int((true >= 0).sum())
    return Columns(
        of=data.labels == 1,
        hits=(probs >= 0.5) == (data.labels == 1),
        shares=shares,
        counts=counts,
        counted=f"the {n:,} test examples that have exactly one {data.noun}",
        answer=f"the most probable {data.noun}",
    )


def _by_label(data: ReportData[Labels]) -> list[tuple[str, list[str]]]:
    """Name of each label, and its cells: yes, share of yes, AP, F1, ECE."""
    known = (~np.isnan(data.labels)).sum(0)
    yes = (data.labels == 1).sum(0)
    scores = np.column_stack(
        [
            average_precision(data.part.probs, data.labels),
            f1_by_label(data.part.probs, data.labels),
            label_ece(data.part.probs, data.labels),
        ]
    )
    return [
        (
            name,
            [
                count(int(yes[i])),
                percent(yes[i] / known[i]) if known[i] else number(None),
                *(number(score) for score in scores[i].tolist()),
            ],
        )
        for i, name in enumerate(data.classes)
    ]


def card(data: ReportData[Labels], example: Example) -> dict[str, Any]:
    """What is said of an example, and the answers a person should look at.

    These are the labels that are said or true, then the most uncertain ones.
    """
    row = example.row
    probs, labels, total = data.part.probs[row], data.labels[row], data.total[row]
    said, true = probs >= 0.5, labels == 1
    wrong = (said != true) & ~np.isnan(labels)
    order = np.lexsort((-total, ~(said | true)))
    shown = max(int((said | true).sum()), _ANSWERS_SHOWN)
    answers = [
        (
            data.classes[i],
            number(float(probs[i]), 2),
            "unknown" if np.isnan(labels[i]) else "yes" if true[i] else "no",
            bool(wrong[i]),
        )
        for i in order[:shown].tolist()
    ]
    return {
        "said": [n for n, yes in zip(data.classes, said, strict=True) if yes],
        "wrong": int(wrong.sum()),
        "answers": answers,
        **bar(data, example, lambda nats: number(nats, 2)),
    }


def teacher_says(
    names: tuple[str, ...], values: NDArray[Any], known: NDArray[Any], kept: list[int]
) -> str:
    """The labels that a teacher says, likely ones first, as "nucleus (0.87), membrane (0.61)"."""
    del kept
    yes = np.exp(values[:, 1])
    order = np.argsort(-yes, kind="stable").tolist()
    said = [f"{names[i]} ({float(yes[i]):.2f})" for i in order if known[i] and yes[i] >= 0.5]
    return ", ".join(said) or ("none" if known.any() else "nothing")
