"""The figures that reports of every family share, each an inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mtbkd.app.report.answers import Answers
from mtbkd.app.report.canvas import CHAINS, ROLE, draw, quiet
from mtbkd.app.report.findings import mean_when_handing_over
from mtbkd.app.report.words import shorten
from mtbkd.types import Floats, Ints

SMALL, MIDDLE = (310.0, 290.0), (420.0, 330.0)
_POINTS = 200


def calibration(
    name: str,
    title: str,
    bins: tuple[Floats, Floats, Ints],
    colour: str,
    words: tuple[str, str] = ("stated confidence", "share right"),
) -> str:
    """Reliability diagram, with the number of answers in each bin beneath.

    Args:
        name: Of the figure.
        title: Of the figure, for screen readers.
        bins: From `mtbkd.metrics.reliability` or `mtbkd.metrics.label_reliability`, each (bin,).
        colour: A role.
        words: What is stated, and the share that is observed.
    """
    confidence, hit_rate, counts = bins
    filled = np.flatnonzero(counts)
    low, high = wilson(hit_rate[filled], counts[filled])

    def paint(figure: Figure) -> None:
        top, beneath = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
        top.plot([0, 1], [0, 1], color=ROLE["muted"], linewidth=1, linestyle=(0, (4, 3)))
        top.vlines(confidence[filled], low, high, color=ROLE[colour], linewidth=1.4, alpha=0.5)
        top.plot(confidence[filled], hit_rate[filled], color=ROLE[colour], alpha=0.35, linewidth=1)
        top.plot(confidence[filled], hit_rate[filled], "o", color=ROLE[colour], markersize=5.5)
        top.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel=words[1])
        edges = np.arange(len(counts)) / len(counts)
        beneath.bar(edges, counts, 0.85 / len(counts), align="edge", color=ROLE[colour], alpha=0.75)
        beneath.set(xlabel=words[0], ylabel="answers")
        beneath.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        for axes in (top, beneath):
            quiet(axes)
        in_percent(top.yaxis, beneath.xaxis)
        figure.align_ylabels()

    return draw(name, title, MIDDLE, paint)


def right_and_wrong(answers: Answers) -> str:
    """How total uncertainty is spread over right and over wrong answers."""
    hits, total = answers.hits, answers.total
    groups = [("right", "student", total[hits]), ("wrong", "wrong", total[~hits])]
    words = "total uncertainty (nats)", "share of such answers"
    return overlaid("spread", "Total uncertainty of right and of wrong answers", groups, words)


def overlaid(
    name: str, title: str, groups: Sequence[tuple[str, str, Floats]], words: tuple[str, str]
) -> str:
    """Histograms of the same quantity in several groups, each in shares of its group.

    Two are filled; of more, only the outlines are drawn.

    Args:
        name: Of the figure.
        title: Of the figure, for screen readers.
        groups: What each is called, its role, and its values, not negative; empty ones are left
            out.
        words: What is along the axes.
    """
    top = max((float(values.max()) for *_, values in groups if len(values)), default=0.0)
    crowded = len(groups) > 2
    edges = np.linspace(0, max(top, 1e-3), 17 if crowded else 25)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for word, colour, values in groups:
            if len(values):
                shares = np.histogram(values, edges)[0] / len(values)
                label = f"{word} ({len(values):,})"
                if not crowded:
                    axes.stairs(shares, edges, fill=True, color=ROLE[colour], alpha=0.22)
                axes.stairs(shares, edges, color=ROLE[colour], linewidth=1.6, label=label)
        axes.set(xlabel=words[0], ylabel=words[1])
        axes.set(xlim=(-0.02 * edges[-1], 1.02 * edges[-1]))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        in_percent(axes.yaxis)
        quiet(axes)
        short = max(len(word) for word, *_ in groups) <= 18
        figure.legend(loc="outside upper left", ncols=2 if short else 1)

    return draw(name, title, SMALL, paint)


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

    Args:
        name: Of the figure.
        title: Of the figure, for screen readers.
        rows: What each is called, its values of right, and its values of wrong answers.
        words: What is along the axis.
        size: Of the figure.
        fewest: Of fewer answers only the median is drawn, as a ring.
    """
    room, dot, font = (0.0, 1.0, 10.5) if fewest == 1 else (0.1, 0.8, 10)
    ring: Any = {"markerfacecolor": "none", "markeredgewidth": 1.3, "markersize": 5}

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
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
        axes.xaxis.set_major_locator(MaxNLocator(5))
        quiet(axes, "x")
        figure.legend(loc="outside upper left", ncols=2)

    return draw(name, title, size, paint)


def handing_over(answers: Answers, numbers: bool = False) -> str:
    """Accuracy, or RMSE of numbers, of the rest against the share handed to a person."""
    squares = np.square(answers.error)
    orders = [
        ("perfect order", answers.error, "muted", (0, (4, 3))),
        ("by the teachers' disagreement", answers.disagreement, "pool", "-"),
        ("by the student's uncertainty", answers.total, "student", "-"),
    ]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for label, order, colour, style in orders:
            if order is not None:
                handed, mean = mean_when_handing_over(squares, order)
                rows = np.flatnonzero(handed <= 0.95)  # short of the ragged end
                rows = rows[np.linspace(0, len(rows) - 1, min(_POINTS, len(rows))).astype(int)]
                axes.plot(
                    handed[rows], np.sqrt(mean[rows]) if numbers else 1 - mean[rows],
                    color=ROLE[colour], linestyle=style,
                    linewidth=1.2 if colour == "muted" else 1.8, label=label,
                )  # fmt: skip
        chance = float(squares.mean())
        chance = chance**0.5 if numbers else 1 - chance
        axes.axhline(chance, color=ROLE["muted"], linewidth=1, linestyle=":")
        axes.set_xlim(0, 1)
        in_percent(axes.xaxis)
        if numbers:
            what = f"RMSE of the rest{answers.unit}"
            axes.set(xlabel="least certain numbers handed over", ylabel=what)
            axes.set_ylim(bottom=0)
        else:
            axes.set(xlabel="most uncertain answers handed over", ylabel="accuracy on the rest")
            axes.set_ylim(top=1 + 0.02 * (1 - axes.get_ylim()[0]))
            in_percent(axes.yaxis)
        quiet(axes)
        figure.legend(loc="outside upper left")

    what = "RMSE when uncertain numbers" if numbers else "Accuracy when uncertain answers"
    return draw("handing", f"{what} go to a person", SMALL, paint)


def shares(
    name: str, title: str, values: Floats, teachers: Sequence[str], classes: Sequence[str]
) -> str:
    """Heat map of each teacher's share in each class: classes down, teachers across.

    Args:
        name: Of the figure.
        title: Of the figure, for screen readers.
        values: In [0, 1], shape (teacher, class).
        teachers: Names; beyond the room of a column they are cut.
        classes: Names; beyond 24 letters they are cut.
    """
    k, c = values.shape
    few = c <= 20
    cell, row, font = min(96.0, 300 / k), 22.0 if few else 13.0, 11.0 if few else 9.0
    letters = int(cell / 6.5)
    flat = k <= 4
    heads = [_lines(t, letters) if flat else shorten(t, 20) for t in teachers]
    label = 6.4 * min(24, max(len(n) for n in classes)) * font / 11
    size = (round(label + k * cell + 16), round(c * row + (44 if flat else 130)))

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for i, j in np.ndindex(k, c):
            value = float(np.clip(np.nan_to_num(values[i, j]), 0, 1))
            alpha = round(0.04 + 0.96 * value, 3)
            axes.add_patch(
                Rectangle((i - 0.48, j - 0.46), 0.96, 0.92, color=ROLE["heat"], alpha=alpha, lw=0)
            )
            if few and cell >= 30:
                axes.text(i, j, f"{values[i, j]:.2f}", ha="center", va="center", fontsize=10)
        axes.set(xlim=(-0.5, k - 0.5), ylim=(c - 0.5, -0.5))
        axes.set_yticks(range(c), [shorten(n, 24) for n in classes], fontsize=font)
        axes.set_xticks(
            range(k), heads, rotation=0 if flat else 55, ha="center" if flat else "left"
        )
        axes.tick_params(length=0, labelcolor=ROLE["ink"], top=False)
        axes.xaxis.tick_top()
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)

    return draw(name, title, size, paint)


def trace(values: Floats) -> str:
    """What each chain's draws score on the probe examples, draw after draw.

    Args:
        values: In nats per example, shape (chain, draw).
    """

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        draws = np.arange(1, values.shape[1] + 1)
        for chain, scores in enumerate(values):
            colour = CHAINS[chain % len(CHAINS)]
            marker = "o" if len(draws) == 1 else None
            axes.plot(draws, scores, color=colour, linewidth=1.3, alpha=0.9, marker=marker)
        axes.set(xlabel="draw", ylabel="log score (nats per example)")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.margins(x=0.01)
        quiet(axes)

    return draw("trace", "Log score of each draw, one line for each chain", (440, 250), paint)


def in_percent(*several: Axis) -> None:
    """Write an axis of shares in per cent."""
    for axis in several:
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g}\xa0%"))
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def _lines(text: str, letters: int) -> str:
    """At most two lines."""
    lines = wrap(text, letters, break_long_words=False) or [""]
    if len(lines) > 2:
        lines = [lines[0], " ".join(lines[1:])]
    return "\n".join(shorten(line, letters) for line in lines)


def wilson(share: Floats, counts: Ints) -> tuple[Floats, Floats]:
    """90 % interval of a share: (bin,), (bin,)."""
    z = 1.645
    centre = (share + z**2 / (2 * counts)) / (1 + z**2 / counts)
    half = z * np.sqrt(share * (1 - share) / counts + z**2 / (4 * counts**2))
    half /= 1 + z**2 / counts
    return centre - half, centre + half
