"""The figures that reports of every family share, each an inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mtbkd.app.report.answers import Answers
from mtbkd.app.report.canvas import CHAINS, DASHED, ROLE, diagonal, draw, legend, quiet
from mtbkd.app.report.findings import mean_when_handing_over
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

    The bins are those of `mtbkd.metrics.reliability` or `mtbkd.metrics.label_reliability`; words
    say what is stated, and of what a share is observed.
    """
    confidence, hit_rate, counts = bins
    filled = np.flatnonzero(counts)
    low, high = wilson(hit_rate[filled], counts[filled])
    with draw(name, title, MIDDLE) as drawing:
        top, beneath = drawing.figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
        diagonal(top)
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
        drawing.figure.align_ylabels()
    return drawing.svg


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

    Two are filled; of more, only the outlines are drawn. A group is what it is called, its role,
    and its values, which are not negative; empty ones are left out.
    """
    top = max((float(values.max()) for *_, values in groups if len(values)), default=0.0)
    crowded = len(groups) > 2
    edges = np.linspace(0, max(top, 1e-3), 17 if crowded else 25)
    with draw(name, title, SMALL) as drawing:
        axes = drawing.figure.subplots()
        for word, colour, values in groups:
            if len(values):
                shares = np.histogram(values, edges)[0] / len(values)
                label = f"{word} ({len(values):,})"
                if not crowded:
                    axes.stairs(shares, edges, fill=True, color=ROLE[colour], alpha=0.22)
                axes.stairs(shares, edges, color=ROLE[colour], linewidth=1.6, label=label)
        axes.set(xlabel=words[0], ylabel=words[1])
        axes.set(xlim=(-0.02 * edges[-1], 1.02 * edges[-1]))
        in_percent(axes.yaxis)
        quiet(axes, ticks=5)
        short = max(len(word) for word, *_ in groups) <= 18
        legend(drawing.figure, 2 if short else 1)
    return drawing.svg


def handing_over(answers: Answers, numbers: bool = False) -> str:
    """Accuracy, or RMSE of numbers, of the rest against the share handed to a person."""
    squares = np.square(answers.error)
    orders = [
        ("perfect order", answers.error, "muted", DASHED),
        ("by the teachers' disagreement", answers.disagreement, "pool", "-"),
        ("by the student's uncertainty", answers.total, "student", "-"),
    ]
    what = "RMSE when uncertain numbers" if numbers else "Accuracy when uncertain answers"
    with draw("handing", f"{what} go to a person", SMALL) as drawing:
        axes = drawing.figure.subplots()
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
        legend(drawing.figure)
    return drawing.svg


def trace(values: Floats) -> str:
    """What each chain's draws score on the probe examples, in nats, shape (chain, draw)."""
    with draw("trace", "Log score of each draw, one line for each chain", (440, 250)) as drawing:
        axes = drawing.figure.subplots()
        draws = np.arange(1, values.shape[1] + 1)
        for chain, scores in enumerate(values):
            colour = CHAINS[chain % len(CHAINS)]
            marker = "o" if len(draws) == 1 else None
            axes.plot(draws, scores, color=colour, linewidth=1.3, alpha=0.9, marker=marker)
        axes.set(xlabel="draw", ylabel="log score (nats per example)")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.margins(x=0.01)
        quiet(axes)
    return drawing.svg


def in_percent(*several: Axis) -> None:
    """Write an axis of shares in per cent."""
    for axis in several:
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g}\xa0%"))
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def wilson(share: Floats, counts: Ints) -> tuple[Floats, Floats]:
    """90 % interval of a share: (bin,), (bin,)."""
    z = 1.645
    centre = (share + z**2 / (2 * counts)) / (1 + z**2 / counts)
    half = z * np.sqrt(share * (1 - share) / counts + z**2 / (4 * counts**2))
    half /= 1 + z**2 / counts
    return centre - half, centre + half
