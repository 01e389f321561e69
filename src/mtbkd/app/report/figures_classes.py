"""The figures of the section that looks at each class or label by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mtbkd.app.report.canvas import ROLE, draw
from mtbkd.app.report.words import shorten
from mtbkd.types import Floats, Ints

LETTERS = 24


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
    short = [shorten(name, LETTERS) for name in names]
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
