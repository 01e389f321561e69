"""Figures of a comparison: ranks with their critical difference, and quality against cost."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtbkd.files import replacing
from mtbkd.types import Floats

_FEWEST = 3  # blocks from which ranks are compared
_LEVEL = 0.95


def write_figures(rows: Sequence[Mapping[str, Any]], out: Path) -> list[Path]:
    """Write ``ranks.svg`` and a ``cost-TASK.svg`` for each task; returns those that there are."""
    tested = [row for row in rows if row["on"] == "test"]
    paths = []
    names, losses = blocks(tested)
    if len(losses) >= _FEWEST and len(names) > 1:
        paths.append(_ranks(names, losses, out / "ranks.svg"))
    for task in dict.fromkeys(row["task"] for row in tested):
        own = [row for row in tested if row["task"] == task and row["stress"] == "none"]
        if own:
            paths.append(_cost(task, own, out / f"cost-{task}.svg"))
    return paths


def blocks(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], Floats]:
    """Mean NLL over seeds of each task under each stress, (block, method), and the methods.

    Only methods that have one in every block.
    """
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row["task"], row["stress"]][row["method"]].append(row["nll"])
    common = set.intersection(*(set(own) for own in found.values())) if found else set()
    names = tuple(name for name in dict.fromkeys(r["method"] for r in rows) if name in common)
    losses = [[float(np.mean(own[name])) for name in names] for own in found.values()]
    return names, np.array(losses).reshape(len(found), len(names))


def critical_difference(n_methods: int, n_blocks: int, level: float = _LEVEL) -> float:
    """How far mean ranks must be apart (Nemenyi's test; Demšar 2006, JMLR 7, section 3.2.2).

    ``q sqrt(k (k + 1) / (6 N))``, q from the studentised range divided by ``sqrt(2)``.

    Example:
        >>> round(critical_difference(4, 14), 2)
        1.25
    """
    from scipy.stats import studentized_range  # slow to import

    q = float(studentized_range.ppf(level, n_methods, math.inf)) / math.sqrt(2)
    return q * math.sqrt(n_methods * (n_methods + 1) / (6 * n_blocks))


def mean_ranks(losses: Floats) -> Floats:
    """Each method's mean rank, 1 for the smallest loss: (block, method) to (method,).

    Example:
        >>> mean_ranks(np.array([[0.1, 0.2], [0.3, 0.3]]))
        array([1.25, 1.75])
    """
    from scipy.stats import rankdata

    return rankdata(losses, axis=1).mean(0)


def front(costs: Floats, losses: Floats) -> list[int]:
    """Places of the points that nobody is better *and* not dearer than, by rising cost.

    Example:
        >>> front(np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.6, 0.4]))
        [0, 2]
    """
    best, kept = math.inf, []
    for place in np.lexsort((losses, costs)).tolist():
        if losses[place] < best:
            best = losses[place]
            kept.append(place)
    return kept


def _ranks(names: Sequence[str], losses: Floats, path: Path) -> Path:
    """Mean ranks on a line; methods within a bar do not differ at 5 %."""
    from matplotlib.figure import Figure

    ranks, gap = mean_ranks(losses), critical_difference(len(names), len(losses))
    order = np.argsort(ranks, kind="stable")
    figure = Figure(figsize=(7, 0.3 * len(names) + 1), layout="constrained")
    axes = figure.subplots()
    for row, place in enumerate(order):
        axes.plot(ranks[place], -row, "o", color="black", markersize=4)
        axes.annotate(str(names[place]), (ranks[place], -row), (6, -3), textcoords="offset points")
        axes.plot([ranks[place], ranks[place] + gap], [-row, -row], color="grey", linewidth=1)
    axes.set(
        xlabel=f"mean rank by NLL over {len(losses)} pairs of task and stress; bars are the "
        f"critical difference, {gap:.2f}",
        yticks=[],
        xlim=(0.8, len(names) + 1.5),
    )
    return _saved(figure, path)


def _cost(task: str, rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Mean NLL against CPU seconds of training, and against multiply-adds of an answer."""
    from matplotlib.figure import Figure

    names = tuple(dict.fromkeys(row["method"] for row in rows))

    def mean(name: str, what: str) -> float:
        return float(np.mean([row[what] for row in rows if row["method"] == name]))

    losses = np.array([mean(name, "nll") for name in names])
    figure = Figure(figsize=(9, 4), layout="constrained")
    costs = {"cpu_seconds": "CPU s of training", "multiply_adds": "multiply-adds of an answer"}
    for axes, (what, label) in zip(figure.subplots(1, 2, sharey=True), costs.items(), strict=True):
        spent = np.array([mean(name, what) for name in names])
        kept = front(spent, losses)
        axes.plot(spent[kept], losses[kept], color="grey", linewidth=1, drawstyle="steps-post")
        axes.plot(spent, losses, "o", color="black", markersize=4)
        for place, name in enumerate(names):
            at = (spent[place], losses[place])
            axes.annotate(name, at, (4, 3), textcoords="offset points", fontsize=8)
        axes.set(xlabel=label, xscale="log")
    figure.axes[0].set(ylabel=f"NLL on {task}, nats")
    return _saved(figure, path)


def _saved(figure: Any, path: Path) -> Path:
    with replacing(path) as partial:
        figure.savefig(partial, format="svg", metadata={"Date": None})
    return path
