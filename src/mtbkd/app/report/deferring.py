"""Which answers a student may give alone: the figure, on its own and on the report's page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mtbkd.app.report.canvas import DASHED, ROLE, draw, legend, quiet, styled
from mtbkd.app.report.figures import MIDDLE, in_percent
from mtbkd.app.report.words import count, number, percent

_ALONE = {"chosen": "#2f74c0", "limit": "#b4423a", "point": "#1c2733"}
_PAGE = {"chosen": ROLE["student"], "limit": ROLE["wrong"], "point": ROLE["ink"]}
_OTHERS = ("#9aa7b4", "#7a9e7e", "#c28f2c", "#8a6fb0", "#5b6875")
_LEAST = 0.05  # share of the answers, below which a curve is ragged
_NUMBERS = (
    ("alone", "Answered alone", percent),
    ("accuracy_alone", "Accuracy there", percent),
    ("agreement_alone", "Agreement with the pool there", percent),
    ("accuracy_system", "Accuracy of student, else teachers", percent),
    ("accuracy_student", "Accuracy of the student on all", percent),
    ("accuracy_asked", "Accuracy if all were asked", percent),
)
HEADINGS = ("Examples", *(heading for _, heading, _ in _NUMBERS))


def draw_defer(found: dict[str, Any]) -> str:
    """What is reached over the share answered alone, for each score, as SVG that stands alone.

    Equal data gives equal bytes.

    Args:
        found: The content of ``defer.json``.
    """
    with styled("reference"):
        figure = Figure(figsize=(7.2, 4.6), facecolor="white", layout="constrained")
        axes = figure.subplots()
        axes.set_title(promise(found))
        _paint(axes, found, _ALONE)
        axes.legend(loc="lower left", fontsize=8.5)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def inline_defer(found: dict[str, Any]) -> str:
    """The same for the report's page."""
    with draw("defer", "What is reached over the share answered alone", MIDDLE) as drawing:
        axes = drawing.figure.subplots()
        _paint(axes, found, _PAGE)
        quiet(axes)
        legend(drawing.figure, 2)
    return drawing.svg


def promise(found: dict[str, Any]) -> str:
    """What ``defer.json`` promises, in words."""
    goal, sure = found["goal"], f"{100 * found['confidence']:.0f} % confidence"
    each = " of each class" if goal["per_class"] else ""
    if goal["accuracy"] is not None:
        return f"Answers given alone{each} are right for {percent(goal['accuracy'])} ({sure})"
    if goal["agree"] is not None:
        return f"Answers given alone{each} are the pool's for {percent(goal['agree'])} ({sure})"
    return f"Cheapest, with {goal['call']:g} for asking and {goal['error']:g} for an error"


def rows_of_defer(found: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Rows of the report's table, with a cell for each of `HEADINGS`."""
    return [
        (
            f"{part} examples",
            [
                count(found[part]["n"]),
                *(
                    number(None) if found[part][key] is None else how(found[part][key])
                    for key, _, how in _NUMBERS
                ),
            ],
        )
        for part in ("calibration", "test")
    ]


def _paint(axes: Axes, found: dict[str, Any], colours: dict[str, str]) -> None:
    goal, part = found["goal"], found["calibration"]
    agree = goal["agree"] is not None
    target = goal["agree"] or goal["accuracy"]
    others = iter(_OTHERS)
    seen: list[float] = [] if target is None else [target]
    for name, curve in found["curves"].items():
        share, reached = map(np.asarray, curve)
        own, shown = name == found["score"], share >= _LEAST
        axes.plot(
            share[shown], reached[shown], color=colours["chosen"] if own else next(others),
            linewidth=2 if own else 1.2, zorder=3 if own else 2,
            label=f"{name} (chosen)" if own else name,
            marker="o" if shown.sum() < 3 else None, markersize=4,
        )  # fmt: skip
        seen += reached[shown].tolist()
    if target is not None:
        axes.axhline(target, color=colours["limit"], linewidth=1.2, linestyle=DASHED)
        axes.text(0.005, target, "promised", color=colours["limit"], va="bottom", fontsize=8.5)
    reached = part["agreement_alone" if agree else "accuracy_alone"]
    if reached is not None:
        axes.plot([part["alone"]], [reached], "o", color=colours["point"], markersize=7, zorder=4)
    axes.set(xlim=(0, 1.02), ylim=(_floor(seen), 1.005))
    axes.set(xlabel="share answered alone", ylabel="agreement" if agree else "accuracy")
    in_percent(axes.xaxis, axes.yaxis)


def _floor(seen: Sequence[float]) -> float:
    """A little below all that is drawn."""
    lowest = min(seen, default=0.0)
    return lowest - 0.1 * (1 - lowest) - 0.005
