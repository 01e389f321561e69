"""The families in a report: one row for each, with all that the page does differently for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

from numpy.typing import NDArray

from mtbkd.app.report import page_classes, page_labels, page_numbers
from mtbkd.app.report.data import Classes, Example, Labels, Numbers, Part, ReportData
from mtbkd.app.report.findings import Finding
from mtbkd.app.report.verdict_classes import findings as found_of_classes
from mtbkd.app.report.verdict_labels import findings as found_of_labels
from mtbkd.app.report.verdict_numbers import findings as found_of_numbers
from mtbkd.app.report.words import count, number, percent, significant
from mtbkd.types import Family

Column = tuple[str, str, Callable[[Any], str], Callable[[list[float]], float] | None]
"""Key in ``metrics.json``, heading, how it is written, and which is the best, if any is."""

_COSTS: tuple[Column, ...] = (
    ("parameters", "Parameters", count, min),
    ("ms_per_example", "ms / example", significant, min),
)
_90 = percent(0.9, 0)

SPREAD = "spread_correlation"
"""Where the spread of the truth was measured: how it goes with total uncertainty."""


@dataclass(frozen=True)
class FamilyPage(Generic[Part]):
    """What a report says, draws and finds about a student of one family.

    Attributes:
        part: What holds the arrays that only this family has.
        noun: What a column is called where the task has no word for it.
        each: How one speaks of every column, with a place for the noun.
        taught_by: What responsibilities are averaged over, likewise.
        template: The file of the family's words; a set of macros.
        columns: Those of the table of scores.
        figures: SVG by name.
        more: What else the template needs.
        card: What it shows of an example.
        findings: What the verdict looks at, in the order in which a reader asks.
        teacher_says: A teacher's answer in words: from the names of the columns, its values on one
            example, which of them are known, and the classes that it tells apart, if not all.
    """

    part: type[Part]
    noun: str
    each: str
    taught_by: str
    template: str
    columns: tuple[Column, ...]
    figures: Callable[[ReportData[Part]], dict[str, str]]
    more: Callable[[ReportData[Part]], dict[str, Any]]
    card: Callable[[ReportData[Part], Example], dict[str, Any]]
    findings: Callable[[ReportData[Part]], tuple[Finding | None, ...]]
    teacher_says: Callable[[tuple[str, ...], NDArray[Any], NDArray[Any], list[int]], str]


FAMILIES: dict[Family, FamilyPage[Any]] = {
    "classification": FamilyPage(
        part=Classes,
        noun="class",
        each="in each {}",
        taught_by="training examples of the {}",
        template="classes.html.j2",
        columns=(
            ("accuracy", "Accuracy", percent, max),
            ("nll", "NLL, nats", number, min),
            ("brier", "Brier", number, min),
            ("ece", "ECE", number, min),
            (SPREAD, "Doubts as people do", number, max),
            *_COSTS,
        ),
        figures=page_classes.figures,
        more=page_classes.more,
        card=page_classes.card,
        findings=found_of_classes,
        teacher_says=page_classes.teacher_says,
    ),
    "multilabel": FamilyPage(
        part=Labels,
        noun="label",
        each="for each {}",
        taught_by="training examples",
        template="labels.html.j2",
        columns=(
            ("f1_macro", "Macro F1", number, max),
            ("f1_micro", "Micro F1", number, max),
            ("jaccard", "Jaccard", number, max),
            ("accuracy", "All right", percent, max),
            ("nll", "NLL, nats", number, min),
            ("ece", "ECE", number, min),
            *_COSTS,
        ),
        figures=page_labels.figures,
        more=page_labels.more,
        card=page_labels.card,
        findings=found_of_labels,
        teacher_says=page_labels.teacher_says,
    ),
    "regression": FamilyPage(
        part=Numbers,
        noun="target",
        each="for each {}",
        taught_by="training examples",
        template="numbers.html.j2",
        columns=(
            ("rmse", "RMSE", significant, min),
            ("crps", "CRPS", significant, min),
            ("nll", "NLL, nats", number, min),
            (
                "coverage_90",
                f"{_90} coverage",
                percent,
                lambda values: min(values, key=lambda share: abs(share - 0.9)),
            ),
            ("width_90", f"{_90} width", significant, None),
            ("calibration", "Calibration", number, min),
            *_COSTS,
        ),
        figures=page_numbers.figures,
        more=page_numbers.more,
        card=page_numbers.card,
        findings=found_of_numbers,
        teacher_says=page_numbers.teacher_says,
    ),
}
