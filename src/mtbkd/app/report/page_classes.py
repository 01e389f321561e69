"""What the page shows of a student that names one class of several."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtbkd.app.report.answers import of_classes
from mtbkd.app.report.by_class import confusion, row_shares
from mtbkd.app.report.data import Classes, Example, ReportData
from mtbkd.app.report.page_answers import bar, figures_of_answers
from mtbkd.app.report.page_by_class import Columns, section
from mtbkd.app.report.words import number
from mtbkd.metrics import reliability
from mtbkd.predictive import credible_set

_SET_SHOWN = 6


def figures(data: ReportData[Classes]) -> dict[str, str]:
    """How calibrated it is, and whether wrong answers are the uncertain ones."""
    words = "stated confidence", "share right"
    return figures_of_answers(data, of_classes(data), reliability, words)


def more(data: ReportData[Classes]) -> dict[str, Any]:
    """The section on each class."""
    said = data.part.probs.argmax(1)
    counts = confusion(data.labels, said, len(data.classes))
    columns = Columns(
        of=data.labels[:, None] == np.arange(len(data.classes)),
        hits=said == data.labels,
        shares=row_shares(counts),
        counts=counts,
        counted="test examples",
        answer="the student's answer",
    )
    return {"each": section(data, columns, data.part.second)}


def card(data: ReportData[Classes], example: Example) -> dict[str, Any]:
    """The student's class, the true one, and the classes of its 90 % set, likely ones first."""
    row = example.row
    probs = data.part.probs[row]
    top, true = int(probs.argmax()), int(data.labels[row])
    inside = credible_set(probs[None], 0.9)[0]
    likely = [data.classes[i] for i in np.argsort(-probs, kind="stable") if inside[i]]
    hidden = len(likely) - _SET_SHOWN
    parts = {part: float(getattr(data, part)[row]) for part in ("aleatoric", "epistemic")}
    longest = max(float(data.total[e.row]) for e in data.examples)
    return {
        "prediction": data.classes[top],
        "label": data.classes[true],
        "right": top == true,
        "probability": number(float(probs[top]), 2),
        "parts": bar(parts, longest, lambda nats: number(nats, 2)),
        "total": number(float(data.total[row]), 2),
        "set": likely[:_SET_SHOWN],
        "hidden": max(hidden, 0),
    }


def teacher_says(
    names: tuple[str, ...], values: NDArray[Any], known: NDArray[Any], kept: list[int]
) -> str:
    """The teacher's most probable class, from its log probabilities, as "cat (0.87)"."""
    if not known:
        return "nothing"
    probs = np.exp(values)
    top = int(probs.argmax())
    if kept:
        answer = "another" if top == len(kept) else names[kept[top]]
    else:
        answer = names[top]
    return f"{answer} ({float(probs[top]):.2f})"
