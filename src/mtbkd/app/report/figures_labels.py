"""The figures of a report on several labels alone."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from mtbkd.app.report.canvas import ROLE, draw
from mtbkd.app.report.data import Labels, ReportData
from mtbkd.app.report.figures import wilson
from mtbkd.app.report.words import shorten
from mtbkd.metrics import label_ece, label_reliability

PANELS = 24
_ACROSS, _BINS = 6, 8


def each_label(data: ReportData[Labels]) -> str:
    """A small reliability diagram of each label, the worst calibrated first, at most `PANELS`."""
    probs, labels, names = data.part.probs, data.labels, data.classes
    errors = label_ece(probs, labels)
    order = np.argsort(-errors, kind="stable")  # NaN, never known, ends up last
    order = order[~np.isnan(errors[order])][:PANELS]
    across = min(_ACROSS, len(order))
    down = math.ceil(len(order) / across)

    def paint(figure: Figure) -> None:
        figure.get_layout_engine().set(h_pad=0.12)  # type: ignore[union-attr, call-arg]
        panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
        for axes in panels.flat[len(order) :]:
            axes.set_axis_off()
        for place, (axes, label) in enumerate(zip(panels.flat, order.tolist(), strict=False)):
            said, true, counts = label_reliability(probs[:, label], labels[:, label], _BINS)
            filled = np.flatnonzero(counts)
            said, true, counts = said[filled], true[filled], counts[filled]
            low, high = wilson(true, counts)
            axes.plot([0, 1], [0, 1], color=ROLE["muted"], linewidth=1, linestyle=(0, (4, 3)))
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

    size = (24 + 162 * across, 20 + 178 * down)
    return draw("labels", "Reliability diagram of each label", size, paint)
