"""Mean results of a recipe over seeds, as in the README.

    python benchmarks/recipes.py digits
    python benchmarks/recipes.py digits --set prior=paper --out runs/paper
    python benchmarks/recipes.py deeploc          # needs MTBKD_DATA, see docs/data.md
    python benchmarks/recipes.py deeploc-multilabel --seeds 0 1
    python benchmarks/recipes.py news --set scenario=MiniLM --out runs/minilm     # and the extra

Of several labels, `tuned` is at a threshold for each label that was chosen on calibration examples,
and `worst ece` that of the label with the largest.

Runs go to OUT/RECIPE-SEED and are taken from there if they are complete.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch

from mtbkd.app.config.run import build_config
from mtbkd.app.recipes import find_recipe
from mtbkd.app.run.commands import run
from mtbkd.explain.causes import FLAGS

SCORES = {
    "classification": ("accuracy", "nll", "brier", "ece"),
    "multilabel": (
        "accuracy", "f1_micro", "f1_macro", "jaccard", "nll", "ece", "worst ece",
        "tuned accuracy", "tuned f1_micro", "tuned f1_macro", "tuned jaccard",
    ),
    "regression": ("rmse", "nll", "crps", "coverage_90"),
}  # fmt: skip
SETS = (
    "coverage_90", "coverage_90_exact", "mass_90", "set_size_90", "set_coverage", "set_size",
    "error_auroc",
)  # fmt: skip


def rows(metrics: dict[str, Any]) -> dict[str, dict[str, float]]:
    found = {
        **{f"teacher: {n}": m for n, m in metrics["teachers"].items()},
        "pool of teachers": metrics["teacher_pool"],
        **{f"baseline: {n}": m for n, m in metrics["baselines"].items()},
        "Bayesian student": metrics["student"],
    }
    return {name: flat(numbers) for name, numbers in found.items()}


def flat(numbers: dict[str, Any]) -> dict[str, float]:
    """With the scores at chosen thresholds, and the largest calibration error of a label."""
    tuned = {f"tuned {name}": value for name, value in numbers.get("tuned", {}).items()}
    labels = numbers.get("by_label", {}).values()
    errors = [label["ece"] for label in labels if label["ece"] is not None]
    return numbers | tuned | ({"worst ece": max(errors)} if errors else {})


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
    columns = SCORES[found[0].get("family", "classification")]
    print(f"| {asked.recipe}, {len(found)} seeds | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name in tables[0]:
        cells = [spread([table[name][score] for table in tables]) for score in columns]
        print(f"| {name} | " + " | ".join(cells) + " |")
    for name in (n for n in SETS if n in found[0]["student"]):
        print(f"{name}: {spread([metrics['student'][name] for metrics in found])}")
    for name in ("none", *FLAGS):
        told = [metrics["flags"][name] for metrics in found if name in metrics["flags"]]
        if told and told[0]["right"] is not None:
            n = sum(one["n"] for one in told) / len(found)
            right, expected = ([one[key] for one in told] for key in ("right", "expected"))
            print(
                f"flag {name}: {n:.0f} examples, {spread(right)} right, {spread(expected)} expected"
            )
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
