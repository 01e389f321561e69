"""Mean results of a recipe over seeds, as in the README.

    python benchmarks/recipes.py digits
    python benchmarks/recipes.py digits --set prior=paper --out runs/paper
    python benchmarks/recipes.py deeploc          # needs MTBKD_DATA, see docs/data.md

Runs go to OUT/RECIPE-SEED and are taken from there if they are complete.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch

from mtbkd.config import build_config
from mtbkd.recipes import find_recipe
from mtbkd.recipes.run import run

SCORES = ("accuracy", "nll", "brier", "ece")
SETS = ("coverage_90", "coverage_90_exact", "mass_90", "set_size_90", "error_auroc")


def rows(metrics: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {
        **{f"teacher: {n}": m for n, m in metrics["teachers"].items()},
        "pool of teachers": metrics["teacher_pool"],
        **{f"baseline: {n}": m for n, m in metrics["baselines"].items()},
        "Bayesian student": metrics["student"],
    }


def spread(values: list[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.3f} ± {error:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for seed in asked.seeds:
        config = build_config(
            find_recipe(asked.recipe).defaults, [*asked.overrides, f"seed={seed}"]
        )
        found.append(run(config, asked.out / f"{asked.recipe}-{seed}"))
    tables = [rows(metrics) for metrics in found]
    print(f"| {asked.recipe}, {len(found)} seeds | " + " | ".join(SCORES) + " |")
    print("|---" * (len(SCORES) + 1) + "|")
    for name in tables[0]:
        cells = [spread([table[name][score] for table in tables]) for score in SCORES]
        print(f"| {name} | " + " | ".join(cells) + " |")
    for name in SETS:
        print(f"{name}: {spread([metrics['student'][name] for metrics in found])}")
    worst = max(metrics["diagnostics"]["rhat_95"] for metrics in found)
    print(f"largest 95th percentile of R-hat: {worst:.3f}")
    margins = [
        min(b["nll"] for b in metrics["baselines"].values()) - metrics["student"]["nll"]
        for metrics in found
        if metrics["baselines"]
    ]
    if margins:
        print(f"smallest margin of NLL to the best baseline of a run: {min(margins):.3f} nats")


if __name__ == "__main__":
    main()
