"""Which answers a student may give alone, as one figure that stands alone."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from mtbkd.app.report.canvas import DASHED, styled
from mtbkd.app.report.figures import in_percent
from mtbkd.types import Floats

_INK, _OWN, _LIMIT = "#1c2733", "#2f74c0", "#b4423a"
_OTHERS = ("#9aa7b4", "#7a9e7e", "#c28f2c", "#8a6fb0", "#5b6875")
_LEAST = 0.05  # share of the answers, below which a curve is ragged


@dataclass(frozen=True)
class DeferData:
    """What the figure shows.

    Attributes:
        curves: For each score the shares answered alone, and what is reached there, each (point,).
        chosen: The score that was chosen.
        what: What is reached, in words.
        target: What was promised; None if prices decided.
        alone: Share that is answered alone.
        reached: What is reached there; None if nothing is answered alone.
        n: How many calibration examples there are.
    """

    curves: Mapping[str, tuple[Floats, Floats]]
    chosen: str
    what: str
    target: float | None
    alone: float
    reached: float | None
    n: int


def draw_defer(data: DeferData) -> str:
    """What is reached over the share answered alone, for each score, as SVG.

    Equal data gives equal bytes.
    """
    with styled("reference"):
        figure = Figure(figsize=(7.2, 4.6), facecolor="white", layout="constrained")
        axes = figure.subplots()
        axes.set_title(f"Answers given alone, surest first ({data.n:,} calibration examples)")
        others = iter(_OTHERS)
        lowest = 1.0
        for name, (share, reached) in data.curves.items():
            own = name == data.chosen
            shown = share >= _LEAST
            axes.plot(
                share[shown], reached[shown], color=_OWN if own else next(others),
                linewidth=2 if own else 1.2, zorder=3 if own else 2,
                label=f"{name} (chosen)" if own else name,
                marker="o" if shown.sum() < 3 else None, markersize=4,
            )  # fmt: skip
            lowest = min([lowest, *reached[shown].tolist()])
        if data.target is not None:
            axes.axhline(data.target, color=_LIMIT, linewidth=1.2, linestyle=DASHED)
            axes.text(0.005, data.target, "promised", color=_LIMIT, va="bottom", fontsize=8.5)
            lowest = min(lowest, data.target)
        if data.reached is not None:
            axes.plot([data.alone], [data.reached], "o", color=_INK, markersize=7, zorder=4)
        axes.set(xlim=(0, 1.02), ylim=(lowest - 0.1 * (1 - lowest) - 0.005, 1.005))
        axes.set(xlabel="share answered alone", ylabel=data.what)
        in_percent(axes.xaxis, axes.yaxis)
        axes.legend(loc="lower left", fontsize=8.5)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
