"""The figures of docs/synthetic.md, drawn from the results of `synthetic`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

Results = dict[str, dict[str, Any]]

METHODS = {
    "ours, declared evidence": ("ours, evidence declared", "#0b5fa5", "o"),
    "ours, estimated evidence": ("ours, evidence estimated", "#56b4e9", "D"),
    "ours, power 1": ("ours, power 1", "#111111", "x"),
    "single-teacher BKD": ("one teacher (BKD)", "#d55e00", "^"),
    "averaged KD, MC dropout": ("averaged KD, MC dropout", "#009e73", "s"),
    "averaged KD, deep ensemble": ("averaged KD, deep ensemble", "#b0609a", "v"),
}
HONEST = ("one", "two", "alike", "five", "ten", "few", "many", "specialists", "shared", "wide")
OTHERS = ("reused", "wrong", "noise", "curved")
_BAND = (0.93, 0.97)
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "synthetic",
    "path.simplify": True,
}


def draw_all(results: list[dict[str, Any]], folder: Path) -> None:
    """Write ``synthetic-coverage.svg``, ``-width.svg`` and ``-evidence.svg``."""
    found = {result["scenario"]: result for result in results}
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE):
        for name, size, paint in (
            ("coverage", (8.0, 6.2), paint_coverage),
            ("width", (8.0, 5.2), paint_width),
            ("evidence", (8.6, 4.0), paint_evidence),
        ):
            figure = Figure(figsize=size, layout="constrained", facecolor="white")
            FigureCanvasSVG(figure)
            paint(figure, found)
            path = folder / f"synthetic-{name}.svg"
            figure.savefig(path, metadata={"Date": None, "Creator": None})
            path.write_text(re.sub(r"[ \t]+$", "", path.read_text(), flags=re.MULTILINE))


def rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", color="#dddddd")
    axes.tick_params(axis="y", length=0)


def paint_coverage(figure: Figure, found: Results) -> None:
    axes = figure.add_subplot()
    names = [name for name in (*HONEST, *OTHERS) if name in found]
    axes.axvspan(*_BAND, color="#0b5fa5", alpha=0.15, linewidth=0)
    rows(axes, names)
    for i, (method, (label, colour, marker)) in enumerate(METHODS.items()):
        ys = np.arange(len(names)) + (i - 2.5) * 0.11
        values = [found[name]["methods"].get(method, {}).get("coverage_0.95") for name in names]
        known = [j for j, v in enumerate(values) if v is not None]
        means = [float(np.mean(values[j])) for j in known]
        errors = [float(np.std(values[j], ddof=1) / len(values[j]) ** 0.5) for j in known]
        axes.errorbar(
            *(means, ys[known]),
            xerr=errors,
            fmt=marker,
            color=colour,
            markersize=5,
            elinewidth=1,
            label=label,
        )
    axes.axhline(len([n for n in names if n in HONEST]) - 0.5, color="#888888", linewidth=0.8)
    axes.set_xlim(0, 1.01)
    axes.set_xlabel("share of 95 % intervals that contain p*(y | x); band: 0.93 to 0.97")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)


def paint_width(figure: Figure, found: Results) -> None:
    axes = figure.add_subplot()
    names = [name for name in HONEST if name in found]
    rows(axes, names)
    for method, (label, colour, marker) in METHODS.items():
        points = [
            (found[name]["methods"][method]["width_inflated_to_95"], i)
            for i, name in enumerate(names)
            if method in found[name]["methods"]
        ]
        axes.plot(*zip(*points, strict=True), marker, color=colour, markersize=6, label=label)
    axes.set_xlim(0)
    axes.set_xlabel("mean width of an interval, each method's inflated or shrunk to cover 95 %")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)


def paint_evidence(figure: Figure, found: Results) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    names = [name for name in (*HONEST, *OTHERS) if "estimated_evidence" in found.get(name, {})]
    rows(left, names)
    for i, name in enumerate(names):
        ratio = np.array(found[name]["estimated_evidence"]) / found[name]["true_evidence"]
        low, middle, high = np.quantile(ratio, [0.1, 0.5, 0.9])
        left.plot([low, high], [i, i], color="#56b4e9", linewidth=3, solid_capstyle="round")
        left.plot(middle, i, "o", color="#0b5fa5")
    left.axvline(1, color="#888888", linewidth=1)
    left.set_xscale("log", base=2)
    ticks = (0.125, 0.25, 0.5, 1, 2, 4)
    left.set_xticks(ticks, [f"{t:g}" for t in ticks])
    left.set_xlabel("evidence that disagreement tells / true evidence")
    for name, colour in (("alike", "#0b5fa5"), ("specialists", "#009e73"), ("wrong", "#d55e00")):
        if name not in found:
            continue
        methods, base = found[name]["methods"], "ours, declared evidence"
        steps = {1: base} | {v: f"{base}, concentration {v}" for v in (5, 20, 100)}
        values = [methods[m]["width_inflated_to_95"] for m in steps.values()]
        right.plot(list(steps), values, "o-", color=colour, label=name)
    right.set_xscale("log")
    right.set_xticks([1, 5, 20, 100], ["1", "5", "20", "100"])
    right.set_ylim(0, 1.08 * right.get_ylim()[1])
    right.set_xlabel("concentration, at the same declared evidence")
    right.set_ylabel("width at 95 % coverage")
    right.grid(axis="y", color="#dddddd")
    right.legend()
