"""A run beside its reference, as one figure that stands alone."""

from __future__ import annotations

import io
from dataclasses import dataclass
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from mtbkd.app.report.canvas import styled
from mtbkd.metrics import total_variation
from mtbkd.types import Floats

_INK, _OWN, _FLOOR, _LIMIT = "#1c2733", "#2f74c0", "#9aa7b4", "#b4423a"


@dataclass(frozen=True)
class ReferenceData:
    """What the figure shows.

    Attributes:
        verdict: In words.
        own: The run's predictive probabilities, shape (example, class).
        probs: The reference's, shape (example, class).
        halves: Those of the first and second half of its chains, shape (2, example, class).
        running: Total variation of the halves, mean over examples, as draws are added: evenly
            spaced up to all of them, shape (point,).
        rhat: R-hat of the reference, for each test probability that moves, shape (function,).
        limit: Up to which R-hat is accepted.
    """

    verdict: str
    own: Floats
    probs: Floats
    halves: Floats
    running: Floats
    rhat: Floats
    limit: float


def draw_reference(data: ReferenceData) -> str:
    """Probabilities side by side, distance by example, and how the reference converged, as SVG.

    Equal data gives equal bytes.
    """
    with styled("reference"):
        figure = Figure(figsize=(11, 7.6), facecolor="white", layout="constrained")
        figure.suptitle(fill(data.verdict, 120), x=0.01, ha="left", color=_INK, fontsize=11.5)
        (first, second), (third, fourth) = figure.subplots(2, 2)
        _probabilities(first, data)
        _distances(second, data)
        _rhat(third, data)
        _running(fourth, data)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _probabilities(axes: Axes, data: ReferenceData) -> None:
    axes.set_title("Every class of every test example")
    bins = np.linspace(0, 1, 41)
    counts, _, _ = np.histogram2d(data.probs.ravel(), data.own.ravel(), bins=(bins, bins))
    x, y = np.meshgrid(bins[:-1] + 0.0125, bins[:-1] + 0.0125, indexing="ij")
    some = counts > 0
    size = 4 + 14 * np.log10(counts[some])
    axes.axline((0, 0), slope=1, color=_FLOOR, linewidth=1)
    axes.scatter(x[some], y[some], s=size, color=_OWN, alpha=0.75, linewidths=0)
    axes.set(xlabel="probability, reference", ylabel="probability, run")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))


def _distances(axes: Axes, data: ReferenceData) -> None:
    axes.set_title("Total variation of each test example")
    share = np.arange(1, len(data.own) + 1) / len(data.own)
    for name, colour, pair in (
        ("halves of the reference's chains", _FLOOR, tuple(data.halves)),
        ("run against reference", _OWN, (data.own, data.probs)),
    ):
        values = np.sort(total_variation(*pair))
        axes.plot(np.maximum(values, 1e-6), share, color=colour, label=name, linewidth=2)
    axes.set(xscale="log", xlabel="total variation", ylabel="share of examples below")
    axes.set_ylim(-0.03, 1.28)  # room for the legend
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.legend(loc="upper left", fontsize=8.5)
    _plain_ticks(axes.xaxis)


def _rhat(axes: Axes, data: ReferenceData) -> None:
    axes.set_title("Has the reference converged?")
    bins = np.geomspace(1e-5, 10, 60)
    excess = np.clip(data.rhat - 1, bins[0], bins[-1])
    axes.hist(excess, bins=bins.tolist(), color=_OWN)
    axes.set_xscale("log")
    axes.set_xticks([1e-5, 1e-3, 1e-1, 10])
    _plain_ticks(axes.xaxis)
    axes.axvline(data.limit - 1, color=_LIMIT, linewidth=1.5)
    axes.text(
        data.limit - 1, 1.0, f" limit {data.limit}", color=_LIMIT, va="top",
        transform=axes.get_xaxis_transform(),
    )  # fmt: skip
    axes.set(xlabel="R-hat - 1 of the reference (first bar: or less)", ylabel="test probabilities")


def _running(axes: Axes, data: ReferenceData) -> None:
    axes.set_title("Do the reference's chains come together?")
    axes.set(xlabel="share of the draws", ylabel="mean total variation", yscale="log")
    axes.set(xlim=(0, 1), ylim=(1e-4, 1))
    drawn = np.linspace(0, 1, len(data.running) + 1)[1:]
    own = float(total_variation(data.own, data.probs).mean())
    axes.plot(
        drawn, np.maximum(data.running, 1e-4), color=_FLOOR, linewidth=2,
        label="halves of the reference's chains",
    )  # fmt: skip
    axes.axhline(
        max(own, 1e-4), color=_OWN, linewidth=1.5, linestyle="--", label="run against reference"
    )
    axes.legend(loc="upper right", fontsize=8.5)
    _plain_ticks(axes.yaxis)


def _plain_ticks(axis: Axis) -> None:
    """Powers of ten without mathematical type, which the style switches off."""
    axis.set_major_formatter(lambda value, _: f"{value:g}".replace("e-0", "e-"))
    axis.set_minor_formatter(NullFormatter())
