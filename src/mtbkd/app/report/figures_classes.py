"""Figures of each class or label: heat maps, right answers above wrong ones, reliability."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mtbkd.app.report.answers import Answers
from mtbkd.app.report.canvas import ROLE, diagonal, draw, legend, quiet
from mtbkd.app.report.data import Labels, ReportData
from mtbkd.app.report.figures import SMALL, wilson
from mtbkd.app.report.words import shorten
from mtbkd.metrics import label_ece, label_reliability
from mtbkd.types import Floats, Ints

LETTERS = 24
"""Beyond so many, names are cut."""

PANELS = 24
_ACROSS, _BINS = 6, 8


def confusion_map(
    title: str,
    shares: Floats,
    counts: Ints | None,
    names: Sequence[str],
    words: tuple[str, str],
) -> str:
    """Heat map of what is taken for what: the truth down, the student's answers across.

    Args:
        title: What a screen reader says.
        shares: In [0, 1] or NaN, shape (true, said); a stronger colour means more.
        counts: Written into the cells, shape (true, said); the shares themselves if not given.
        names: Names of the rows and columns, in their order.
        words: What is down and what is across.
    """
    c = len(names)
    few = c <= 12
    side, row = (34.0, 26.0) if few else (22.0, 17.0)
    font = 10.5 if few else 9.0
    short = [shorten(name, LETTERS) for name in names]
    flat = max(len(name) for name in short) <= 3
    tilt: dict[str, Any] = {} if flat else {"rotation": 55, "ha": "left", "rotation_mode": "anchor"}
    longest = 6.1 * max(len(name) for name in short) * font / 11
    size = (round(longest + c * side + 40 + 0.3 * longest), round(c * row + 0.85 * longest + 62))

    def cell(i: int, j: int) -> tuple[str, float, str]:
        share = float(np.nan_to_num(shares[i, j]))
        role, strength = ("heat", 0.96) if i == j else ("wrong", 0.6)
        alpha = 0.04 + strength * min(max(share, 0.0), 1.0)
        shown = share >= 0.005
        text = f"{share:.2f}" if shown else ""
        if counts is not None:
            text = f"{counts[i, j]}" if counts[i, j] else ""
        return role if shown else "muted", alpha, text

    with draw("confusion", title, size) as drawing:
        axes = drawing.figure.subplots()
        _cells(axes, (c, c), cell, (0.94, 0.92), 10 if few else 8)
        axes.set(ylabel=words[0], xlabel=words[1])
        axes.set_yticks(range(c), short, fontsize=font)
        axes.set_xticks(range(c), short, **tilt)
        axes.tick_params(labelsize=font)
        axes.xaxis.set_label_position("bottom")
    return drawing.svg


def shares(
    name: str, title: str, values: Floats, teachers: Sequence[str], classes: Sequence[str]
) -> str:
    """Heat map of each teacher's share in each class: classes down, teachers across.

    Values are in [0, 1], shape (teacher, class); names are cut where they find no room.
    """
    k, c = values.shape
    few = c <= 20
    width, row, font = min(96.0, 300 / k), 22.0 if few else 13.0, 11.0 if few else 9.0
    letters = int(width / 6.5)
    flat = k <= 4
    heads = [_lines(t, letters) if flat else shorten(t, 20) for t in teachers]
    label = 6.4 * min(LETTERS, max(len(n) for n in classes)) * font / 11
    size = (round(label + k * width + 16), round(c * row + (44 if flat else 130)))
    rotation, side = (0, "center") if flat else (55, "left")

    def cell(i: int, j: int) -> tuple[str, float, str]:
        share = float(np.clip(np.nan_to_num(values[j, i]), 0, 1))
        return "heat", 0.04 + 0.96 * share, f"{values[j, i]:.2f}" if few and width >= 30 else ""

    with draw(name, title, size) as drawing:
        axes = drawing.figure.subplots()
        _cells(axes, (c, k), cell, (0.96, 0.92), 10)
        axes.set_yticks(range(c), [shorten(n, LETTERS) for n in classes], fontsize=font)
        axes.set_xticks(range(k), heads, rotation=rotation, ha=side)
    return drawing.svg


def _cells(
    axes: Axes,
    shape: tuple[int, int],
    cell: Callable[[int, int], tuple[str, float, str]],
    size: tuple[float, float],
    font: float,
) -> None:
    """Fill axes with a cell for each row and column: its role, opacity and text."""
    for i, j in np.ndindex(shape):
        role, alpha, text = cell(i, j)
        corner = j - size[0] / 2, i - size[1] / 2
        axes.add_patch(Rectangle(corner, *size, color=ROLE[role], alpha=round(alpha, 3), lw=0))
        if text:
            axes.text(j, i, text, ha="center", va="center", fontsize=font)
    axes.set(xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5))
    axes.tick_params(length=0, labelcolor=ROLE["ink"])
    axes.xaxis.tick_top()
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def split(answers: Answers) -> str:
    """Each part of the uncertainty of right and of wrong answers."""
    hits = answers.hits
    rows = [
        (part, getattr(answers, part)[hits], getattr(answers, part)[~hits])
        for part in ("total", "aleatoric", "epistemic")
    ]
    title = "Aleatoric and epistemic uncertainty, right against wrong"
    return right_above_wrong("split", title, rows, "uncertainty (nats)", SMALL)


def right_above_wrong(
    name: str,
    title: str,
    rows: Sequence[tuple[str, Floats, Floats]],
    words: str,
    size: tuple[float, float],
    fewest: int = 1,
) -> str:
    """Median, middle half and middle 80 % of the right and of the wrong answers of each row.

    A row is what it is called, its values of right, and its values of wrong answers; where there
    are fewer than ``fewest`` of either, only their median is drawn, as a ring.
    """
    room, dot, font = (0.0, 1.0, 10.5) if fewest == 1 else (0.1, 0.8, 10)
    ring: Any = {"markerfacecolor": "none", "markeredgewidth": 1.3, "markersize": 5}
    with draw(name, title, size) as drawing:
        axes = drawing.figure.subplots()
        for row, (_, *pair) in enumerate(rows):
            for values, role, shift in zip(pair, ("student", "wrong"), (-0.16, 0.16), strict=True):
                at, colour = row + shift, ROLE[role]
                if 0 < len(values) < fewest:
                    axes.plot(np.median(values), at, "o", color=colour, **ring)
                elif len(values):
                    cuts = np.quantile(values, (0.1, 0.25, 0.5, 0.75, 0.9))
                    axes.hlines(at, cuts[0], cuts[4], color=colour, linewidth=1.6, alpha=0.6)
                    axes.hlines(at, cuts[1], cuts[3], color=colour, linewidth=6 * dot, alpha=0.6)
                    axes.plot(cuts[2], at, "o", color=colour, markersize=7 * dot)
        axes.set_yticks(range(len(rows)), [n for n, *_ in rows], color=ROLE["ink"], fontsize=font)
        axes.set(xlabel=words, ylim=(len(rows) - 0.5 + room, -0.5 - room))
        axes.set_xlim(left=-0.02 * axes.get_xlim()[1])
        for word, role in (("right", "student"), ("wrong", "wrong")):
            axes.plot([], [], color=ROLE[role], linewidth=4, label=word)
        quiet(axes, "x", ticks=5)
        legend(drawing.figure, 2)
    return drawing.svg


def each_label(data: ReportData[Labels]) -> str:
    """A small reliability diagram of each label, the worst calibrated first, at most `PANELS`."""
    probs, labels, names = data.part.probs, data.labels, data.classes
    errors = label_ece(probs, labels)
    order = np.argsort(-errors, kind="stable")  # NaN, never known, ends up last
    order = order[~np.isnan(errors[order])][:PANELS]
    across = min(_ACROSS, len(order))
    down = math.ceil(len(order) / across)
    size = (24 + 162 * across, 20 + 178 * down)
    with draw("labels", "Reliability diagram of each label", size) as drawing:
        drawing.figure.get_layout_engine().set(h_pad=0.12)  # type: ignore[union-attr, call-arg]
        panels = drawing.figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
        for axes in panels.flat[len(order) :]:
            axes.set_axis_off()
        for place, (axes, label) in enumerate(zip(panels.flat, order.tolist(), strict=False)):
            said, true, counts = label_reliability(probs[:, label], labels[:, label], _BINS)
            filled = np.flatnonzero(counts)
            said, true, counts = said[filled], true[filled], counts[filled]
            low, high = wilson(true, counts)
            diagonal(axes)
            axes.vlines(said, low, high, color=ROLE["student"], linewidth=1.3, alpha=0.5)
            axes.plot(said, true, "o", color=ROLE["student"], markersize=4)
            axes.set_title(shorten(names[label], 20), fontsize=10.5)
            axes.set_xlabel(f"ECE {errors[label]:.3f}", fontsize=9.5, labelpad=2)
            axes.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            axes.set_xticklabels(["0", "", "100\xa0%"])
            axes.set_yticklabels(["0", "", "100\xa0%"])
            axes.tick_params(length=0, labelsize=9, labelbottom=True)
            axes.tick_params(labelleft=place % across == 0)
            axes.spines["left"].set_visible(False)
    return drawing.svg


def _lines(text: str, letters: int) -> str:
    """At most two lines."""
    lines = wrap(text, letters, break_long_words=False) or [""]
    if len(lines) > 2:
        lines = [lines[0], " ".join(lines[1:])]
    return "\n".join(shorten(line, letters) for line in lines)
