"""What came of a comparison: one table of everything, and pages of means and differences."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mtbkd.app.bench.cells import read_cell
from mtbkd.app.bench.figures import write_figures
from mtbkd.app.bench.methods import METHODS, OURS
from mtbkd.app.bench.sets import SCORES
from mtbkd.files import replacing, write_bytes
from mtbkd.types import Family

Row = dict[str, Any]
"""One cell judged on one thing: ``task``, ``stress``, ``seed``, ``method``, ``on`` and numbers."""

_SCORES: dict[Family, tuple[str, ...]] = {
    "classification": (
        "accuracy", "nll", "brier", "ece", "ece_by_class", "ece_adaptive", "aurc", "error_auroc",
        "error_auroc_epistemic", "answered_alone", "set_coverage", "set_size",
    ),
    "multilabel": ("accuracy", "f1_macro", "nll", "brier", "ece", "aurc", "error_auroc"),
    "regression": ("rmse", "nll", "crps", "coverage_90", "width_90", "calibration"),
}  # fmt: skip
_ELSEWHERE = ("auroc_total", "auroc_epistemic")
_SETS = ("set_coverage", "set_size") + tuple(
    f"set_{what}_{score}" for score in SCORES for what in ("coverage", "size")
)
_COSTS = ("cpu_seconds", "parameters", "multiply_adds", "milliseconds")


def write_results(cells: Sequence[Path], out: Path) -> list[Path]:
    """Write ``results.parquet``, ``results.md`` and figures; returns where they are."""
    found = [read_cell(path) for path in cells]
    rows = [row for cell in found for row in rows_of(cell)]
    paths = [out / "results.parquet", out / "results.md"]
    if rows:
        names = list(dict.fromkeys(name for row in rows for name in row))
        table = pa.table({name: [row.get(name) for row in rows] for name in names})
        with replacing(paths[0]) as partial:
            pq.write_table(table, partial)
    write_bytes(paths[1], page(rows, found).encode())
    return [path for path in paths if path.exists()] + write_figures(rows, out)


def rows_of(cell: dict[str, Any]) -> Iterator[Row]:
    """Everything that one cell was judged on."""
    for on, numbers in cell.get("judged", {}).items():
        keys = {key: cell[key] for key in ("task", "family", "stress", "seed", "method")}
        yield keys | {"on": on} | cell["cost"] | numbers


def page(rows: Sequence[Row], cells: Sequence[dict[str, Any]]) -> str:
    """The tables as Markdown."""
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["task"], row["stress"], row["on"]].append(row)
    parts = [
        "# Results",
        "Mean ± standard error over seeds. A difference is that of a method to ours on the same "
        "seed, so below zero a smaller number than ours.",
    ]
    for (task, stress, on), own in groups.items():
        shown = _ELSEWHERE if on.startswith("elsewhere") else _SCORES[own[0]["family"]]
        scores = [name for name in shown if any(row.get(name) is not None for row in own)]
        if not scores:
            continue
        parts += [f"## {task}, stress {stress}, on {on}", table(own, scores)]
        if any(row["method"] == OURS for row in own) and len({r["method"] for r in own}) > 1:
            parts += ["Differences to ours:", table(own, scores, against=OURS)]
        if on == "test":
            parts += ["Costs:", table(own, _COSTS)]
            if any("set_size_lac" in row for row in own):
                parts += ["Sets at 90 %, ours and MAPIE's scores:", table(own, _SETS)]
    refused = {(c["task"], c["method"], c["refused"]) for c in cells if "refused" in c}
    if refused:
        parts.append("## Left out")
        parts.append("\n".join(f"- {m} on {t}: {why}" for t, m, why in sorted(refused)))
    return "\n\n".join(parts) + "\n"


def table(rows: Sequence[Row], scores: Sequence[str], against: str | None = None) -> str:
    """A line for each method, best known first as they are listed, and a column for each score."""
    by_method = {name: {r["seed"]: r for r in rows if r["method"] == name} for name in METHODS}
    base = by_method.get(against or "", {})
    lines = [f"| | seeds | {' | '.join(scores)} |", "|---" * (len(scores) + 2) + "|"]
    for name, own in by_method.items():
        if not own or name == against:
            continue
        cells, n_seeds = [], len(own)
        for score in scores:
            values = [row.get(score) for row in own.values()]
            if against is not None:
                pairs = [(own[s].get(score), base[s].get(score)) for s in own if s in base]
                values = [a - b for a, b in pairs if a is not None and b is not None]
                n_seeds = len(pairs)
            cells.append(spread([value for value in values if value is not None]))
        lines.append(f"| {METHODS[name].summary} | {n_seeds} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Mean and standard error, to three digits; a dash of nothing.

    Example:
        >>> spread([1.0, 2.0])
        '1.500 ± 0.500'
        >>> spread([12345.0])
        '12,345'
    """
    if not values:
        return "–"
    form = "{:,.0f}" if max(map(abs, values)) >= 1000 else "{:.3f}"
    mean = form.format(fmean(values))
    if len(values) == 1:
        return mean
    return f"{mean} ± {form.format(stdev(values) / math.sqrt(len(values)))}"
