"""Where, and on which answers, each teacher is trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtbkd.app.report.canvas import ROLE, draw, legend
from mtbkd.app.report.data import Trust
from mtbkd.app.report.words import shorten

_ACROSS, _PANELS, _STEPS = 3, 12, 8
_POINTS = 2000  # of all panels, so that the page stays small
_MOST_CLASSES = 30


def trusted(trust: Trust, teachers: Sequence[str]) -> str:
    """One panel for each teacher, with examples where they lie, marked by its weight there.

    The teachers that count most, at most `_PANELS`, in the order in which they are given.
    """
    place, weights = np.asarray(trust.place), trust.weights
    shown = np.sort(np.argsort(-weights.mean(1), kind="stable")[:_PANELS]).tolist()
    every = -(-len(place) * len(shown) // _POINTS)
    across = min(_ACROSS, len(shown))
    down = math.ceil(len(shown) / across)
    top = max(float(weights.max()), 1e-12)
    size = (46 + 250 * across, 66 + 264 * down)
    with draw("trusted", "Weight of each teacher by where an example lies", size) as drawing:
        panels = drawing.figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
        for axes in panels.flat[len(shown) :]:
            axes.set_axis_off()
        for axes, teacher in zip(panels.flat, shown, strict=False):
            step = np.rint(_STEPS * weights[teacher] / top)[::every]
            for i in range(_STEPS + 1):  # the strongest on top
                axes.plot(*place[::every][step == i].T, "o", **_mark(i / _STEPS))
            mean = f"mean weight {weights[teacher].mean():.2f}"
            axes.set_title(f"{shorten(teachers[teacher], 32)}\n{mean}", fontsize=10.5)
            axes.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal")
            axes.set(xticks=[-2, 0, 2], yticks=[-2, 0, 2])
            axes.tick_params(length=0, labelbottom=True)
        for share in (0.0, 0.5, 1.0):
            axes.plot([], [], "o", label=f"weight {share * top:.2f}", **_mark(share))
        words = "direction (standard deviations)"
        drawing.figure.supxlabel(f"first {words}", fontsize=11, color=ROLE["muted"])
        drawing.figure.supylabel(f"second {words}", fontsize=11, color=ROLE["muted"])
        legend(drawing.figure, 3)
    return drawing.svg


def by_named_class(trust: Trust | None, classes: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Rows of the table of scores by the class that a teacher names; none if there are many."""
    if trust is None or trust.by_class is None or len(classes) > _MOST_CLASSES:
        return []
    rows = zip(classes, trust.by_class.T.tolist(), strict=True)
    return [
        (name, [f"{score:+.2f}".replace("-", "\N{MINUS SIGN}") for score in scores])
        for name, scores in rows
    ]


def _mark(share: float) -> dict[str, Any]:
    """How a point looks with this share of the largest weight."""
    return {
        "color": ROLE["student"],
        "markersize": 2 + 3.5 * share,
        "alpha": round(0.3 + 0.55 * share, 3),
        "markeredgewidth": 0,
    }
