"""Examples of several labels: how many there are, and whether they are the uncertain ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mtbkd.app.report.data import Labels, ReportData
from mtbkd.app.report.page_by_class import PARTS, Apart, overlaid
from mtbkd.app.report.words import count, number, plural
from mtbkd.metrics import wrong_auroc
from mtbkd.types import Bools, Floats

_ROLES = ("student", "pool", "wrong")


@dataclass(frozen=True)
class Group:
    """Test examples with the same number of true labels.

    Attributes:
        least: That number; of the last group, at least so many.
        rows: Which examples, shape (example,).
        expected: Mean number of labels that the student expects, the sum of its probabilities.
    """

    least: int
    rows: Bools
    expected: float


def by_number(labels: Floats, probs: Floats, most: int = 3, fewest: int = 5) -> tuple[Group, ...]:
    """Examples grouped by how many labels are true, where all are known.

    Args:
        labels: 0, 1 or NaN, shape (example, label).
        probs: P(yes), shape (example, label).
        most: From this number on, all are one group.
        fewest: Groups of fewer examples are left out.
    """
    complete = ~np.isnan(labels).any(1)
    true = np.where(complete, np.minimum(np.nansum(labels, 1), most), -1)
    groups = []
    for least in range(most + 1):
        rows = true == least
        if rows.sum() >= fewest:
            groups.append(Group(least, rows, float(probs[rows].sum(1).mean())))
    return tuple(groups)


def several_auroc(groups: tuple[Group, ...], values: Floats) -> float | None:
    """The chance that an example of several labels is more uncertain than one of a single label.

    Args:
        groups: As `by_number` gives them.
        values: An uncertainty, shape (example,).
    """
    number = np.zeros(len(values), dtype=np.int64)
    for group in groups:
        number[group.rows] = group.least
    return wrong_auroc(values[number > 0], number[number > 0] > 1)


def several(data: ReportData[Labels]) -> Iterable[Apart]:
    """Examples by their number of true labels, if there are three labels and numbers differ."""
    groups = by_number(data.labels, data.part.probs)
    drawn_apart = [group for group in groups if group.least]
    if len(data.classes) < 3 or len(drawn_apart) < 2:
        return
    noun, nouns = data.noun, plural(data.noun)
    words = (f"no {noun}", f"one {noun}", f"two {nouns}", "three or more")
    sums = {part: data.of_examples(part) for part in PARTS}
    yield Apart(
        heading=f"One {noun} against several",
        lead=(
            f"Test examples by how many {nouns} are true; uncertainties are sums over {nouns}. The "
            f"AUROC tells several {nouns} from one."
        ),
        figures=[
            overlaid(
                f"number-{part}",
                f"{part.capitalize()} uncertainty by the number of true {nouns}",
                part,
                [(words[g.least], _ROLES[g.least - 1], values[g.rows]) for g in drawn_apart],
                several_auroc(groups, values),
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
