"""The figures of the section that looks at each class or label by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from mtbkd.app.report.by_class import Strip
from mtbkd.app.report.canvas import ROLE, draw, quiet
from mtbkd.app.report.figures import interval
from mtbkd.app.report.words import shorten
from mtbkd.types import Floats, Ints

_LETTERS, _FEW = 24, 5
_RING: dict[str, Any] = {"markerfacecolor": "none", "markeredgewidth": 1.3, "markersize": 5}


def confusion_map(
    title: str,
    shares: Floats,
    counts: Ints | None,
    names: Sequence[str],
    words: tuple[str, str],
) -> str:
    """Heat map of what is taken for what: the truth down, the student's answers across.

    Args:
        title: For screen readers.
        shares: In [0, 1] or NaN, shape (true, said); a stronger colour means more.
        counts: Written into the cells, shape (true, said); the shares themselves if not given.
        names: Of the rows and columns, in their order.
        words: What is down and what is across.
    """
    c = len(names)
    few = c <= 12
    side, row = (34.0, 26.0) if few else (22.0, 17.0)
    font = 10.5 if few else 9.0
    short = [shorten(name, _LETTERS) for name in names]
    flat = max(len(name) for name in short) <= 3
    tilt: dict[str, Any] = {} if flat else {"rotation": 55, "ha": "left", "rotation_mode": "anchor"}
    longest = 6.1 * max(len(name) for name in short) * font / 11
    size = (round(longest + c * side + 40 + 0.3 * longest), round(c * row + 0.85 * longest + 62))

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for i, j in np.ndindex(c, c):
            share = float(np.nan_to_num(shares[i, j]))
            role, strength = ("heat", 0.96) if i == j else ("wrong", 0.6)
            alpha = round(0.04 + strength * min(max(share, 0.0), 1.0), 3)
            colour = ROLE[role] if share >= 0.005 else ROLE["muted"]
            axes.add_patch(
                Rectangle((j - 0.47, i - 0.46), 0.94, 0.92, color=colour, alpha=alpha, lw=0)
            )
            text = f"{shares[i, j]:.2f}" if counts is None else f"{counts[i, j]}"
            shown = share >= 0.005 and np.isfinite(shares[i, j]) if counts is None else counts[i, j]
            if shown:
                axes.text(j, i, text, ha="center", va="center", fontsize=10 if few else 8)
        axes.set(xlim=(-0.5, c - 0.5), ylim=(c - 0.5, -0.5), ylabel=words[0], xlabel=words[1])
        axes.set_yticks(range(c), short, fontsize=font)
        axes.set_xticks(range(c), short, **tilt)
        axes.tick_params(length=0, labelcolor=ROLE["ink"], labelsize=font)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("bottom")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)

    return draw("confusion", title, size, paint)


def by_class(
    name: str, title: str, pairs: Sequence[tuple[Strip, Strip]], names: Sequence[str]
) -> str:
    """Median, middle half and middle 80 % of an uncertainty for each class, right above wrong.

    Args:
        name: Of the figure.
        title: For screen readers.
        pairs: Right and wrong answers of each class.
        names: Of the classes.
    """
    labels = [
        f"{shorten(n, _LETTERS)}\n{right.n:,} right, {wrong.n:,} wrong"
        for n, (right, wrong) in zip(names, pairs, strict=True)
    ]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for row, pair in enumerate(pairs):
            for strip, colour, shift in zip(pair, ("student", "wrong"), (-0.16, 0.16), strict=True):
                if strip.n >= _FEW:
                    interval(axes, row + shift, np.array(strip.cuts), ROLE[colour], 0.8)
                elif strip.n:
                    median = strip.cuts[len(strip.cuts) // 2]
                    axes.plot(median, row + shift, "o", color=ROLE[colour], **_RING)
        axes.set_yticks(range(len(names)), labels, color=ROLE["ink"], fontsize=10)
        axes.set(xlabel=f"{name} uncertainty (nats)", ylim=(len(names) - 0.4, -0.6))
        axes.set_xlim(left=-0.02 * axes.get_xlim()[1])
        for word, colour in (("right", "student"), ("wrong", "wrong")):
            axes.plot([], [], color=ROLE[colour], linewidth=4, label=word)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        quiet(axes, "x")
        figure.legend(loc="outside upper left", ncols=2)

    return draw(f"each-{name}", title, (440, 70 + 37 * len(names)), paint)
