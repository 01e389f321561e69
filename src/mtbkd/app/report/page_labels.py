"""What the page says about a student that answers yes or no for each of several labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup

from mtbkd.app.report import figures, figures_labels, page_by_class
from mtbkd.app.report.data import LabelReportData, Shown
from mtbkd.app.report.words import count, number, percent, plural, shown, significant
from mtbkd.metrics import average_precision, f1_by_label, label_ece, label_reliability

_COLUMNS = (
    ("f1_macro", "Macro F1", number, max),
    ("f1_micro", "Micro F1", number, max),
    ("jaccard", "Jaccard", number, max),
    ("accuracy", "All right", percent, max),
    ("nll", "NLL, nats", number, min),
    ("ece", "ECE", number, min),
    ("parameters", "Parameters", count, min),
    ("ms_per_example", "ms / example", significant, min),
)
_ANSWERS_SHOWN = 6


def parts(data: LabelReportData) -> dict[str, Any]:
    """What the template needs beside what pages of every family share."""
    return {
        "what": "label",
        "in_each": f"for each {data.noun}",
        "nouns": plural(data.noun),
        "each": page_by_class.section(data),
        "tiles": _tiles(data),
        "columns": _COLUMNS,
        "figures": _figures(data),
        "by_label": _by_label(data),
        "drawn_apart": min(figures_labels.PANELS, len(data.classes)),
        "examples": [_card(data, example) for example in data.examples],
    }


def _tiles(data: LabelReportData) -> list[tuple[str, str, str]]:
    """Name, value and meaning of the numbers at the top."""
    student = data.metrics.get("student", {})
    return [
        ("Macro F1", shown(student, "f1_macro", number), "mean over labels, rare ones like others"),
        ("Micro F1", shown(student, "f1_micro", number), "of all answers together"),
        (
            "Jaccard",
            shown(student, "jaccard", number),
            "mean overlap of the labels said and the true ones of an example",
        ),
        (
            "ECE",
            shown(student, "ece", number),
            "gap between stated probability and share of yes, mean over labels; 0 is best",
        ),
    ]


def _figures(data: LabelReportData) -> dict[str, str]:
    known = ~np.isnan(data.labels)
    hits = ((data.probs >= 0.5) == (data.labels == 1))[known]
    total, aleatoric, epistemic = (
        part[known] for part in (data.total, data.aleatoric, data.epistemic)
    )
    several = data.disagreement is not None and len(data.teachers) > 1
    quarrel = data.disagreement[known] if several and data.disagreement is not None else None
    title, words = "Reliability diagram of the", ("stated probability of yes", "share of yes")
    bins = label_reliability(data.probs, data.labels)
    drawn = {
        "student": figures.calibration("student", f"{title} student", bins, "student", words),
        "spread": figures.right_and_wrong(hits, total),
        "split": figures.split(hits, total, aleatoric, epistemic),
        "handing": figures.handing_over(hits, total, quarrel),
    }
    if data.pool_probs is not None:
        bins = label_reliability(data.pool_probs, data.labels)
        drawn["pool"] = figures.calibration("pool", f"{title} teachers' pool", bins, "pool", words)
    if len(data.classes) > 1:
        drawn["labels"] = figures_labels.each_label(data.probs, data.labels, data.classes)
    return drawn


def _by_label(data: LabelReportData) -> list[tuple[str, list[str]]]:
    """Name of each label, and its cells: yes, share of yes, AP, F1, ECE."""
    known = (~np.isnan(data.labels)).sum(0)
    yes = (data.labels == 1).sum(0)
    numbers = np.column_stack(
        [
            average_precision(data.probs, data.labels),
            f1_by_label(data.probs, data.labels),
            label_ece(data.probs, data.labels),
        ]
    )
    return [
        (
            name,
            [
                count(int(yes[i])),
                percent(yes[i] / known[i]) if known[i] else number(None),
                *(number(value) for value in numbers[i].tolist()),
            ],
        )
        for i, name in enumerate(data.classes)
    ]


def _card(data: LabelReportData, example: Shown) -> dict[str, Any]:
    """An example: what is said of it, and the answers a person should look at.

    These are the labels that are said or true, then the most uncertain ones.
    """
    row = example.row
    probs, labels, total = data.probs[row], data.labels[row], data.total[row]
    said, true = probs >= 0.5, labels == 1
    wrong = (said != true) & ~np.isnan(labels)
    order = np.lexsort((-total, ~(said | true)))
    hidden = max(int((said | true).sum()), _ANSWERS_SHOWN)
    answers = [
        (
            data.classes[i],
            number(float(probs[i]), 2),
            "unknown" if np.isnan(labels[i]) else "yes" if true[i] else "no",
            bool(wrong[i]),
        )
        for i in order[:hidden].tolist()
    ]
    longest = max(float(data.total[e.row].sum()) for e in data.examples) or 1.0
    sums = [("aleatoric", data.aleatoric[row].sum()), ("epistemic", data.epistemic[row].sum())]
    return {
        "example": example,
        "drawn": Markup(example.html),
        "said": [n for n, yes in zip(data.classes, said, strict=True) if yes],
        "wrong": int(wrong.sum()),
        "answers": answers,
        "parts": [
            (word, number(float(nats), 2), f"{100 * max(0.0, float(nats)) / longest:.1f}")
            for word, nats in sums
        ],
        "total": number(float(total.sum()), 2),
    }
