"""What the protein student knows, and whether it knows what it does not; needs MTBKD_DATA.

    python benchmarks/proteins.py deeploc       # the paper's split
    python benchmarks/proteins.py paper         # the same student under the paper's prior
    python benchmarks/proteins.py apart         # no relative of a test protein is trained on
    python benchmarks/proteins.py ablation      # what each group of features is worth, minutes

Means over seeds. `apart` pools five runs for each seed, one for each homology partition, so that
all 1,000 test proteins count once. Runs go to OUT/NAME-SEED and are taken from there if they are
complete.

Beside the scores of single-location proteins: the accuracy of the half that the student is most
certain of (by total entropy), and how well each uncertainty tells 2,000 proteins with two to five
locations, which no student was trained on, from the 1,000 with one (area under the ROC curve).
"""

from __future__ import annotations

import argparse
import csv
import statistics
from pathlib import Path

import numpy as np
import torch

from mtbkd.config import RunConfig, build_config
from mtbkd.metrics import accuracy, coverage, exact_coverage, scores, wrong_auroc
from mtbkd.predictive import Floats, Predictive
from mtbkd.proteins.features import sequence_features
from mtbkd.recipes import deeploc, stages
from mtbkd.recipes.run import run

SEVERAL = "data_MuLabel_sub.csv"
UNCERTAINTIES = ("total", "aleatoric", "epistemic", "1 - max")
SETTINGS = {"deeploc": [], "paper": ["prior=paper"], "apart": []}


def several_locations(folder: Path, kept: Path) -> tuple[torch.Tensor, np.ndarray]:
    """Features and homology partitions of the proteins with several locations."""
    with (folder / SEVERAL).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    path = kept / "several.npy"
    if not path.exists():
        kept.mkdir(parents=True, exist_ok=True)
        np.save(path, sequence_features([row["Sequence"] for row in rows]))
    return torch.from_numpy(np.load(path)), np.array([int(row["Partition"]) for row in rows])


def answers(config: RunConfig, out: Path, more: torch.Tensor) -> tuple[Predictive, ...]:
    """A run's predictions on its test proteins, and on more proteins, and the labels."""
    run(config, out)
    task = stages.load(deeploc.RECIPE, config, out)
    posterior = stages.recall(deeploc.RECIPE, config, task.test.inputs[:2], task.test.classes, out)
    made = [posterior.predict(inputs) for inputs in (task.test.inputs, more)]
    return *made, task.test.labels.numpy()  # type: ignore[return-value]


def uncertainties(answer: Predictive) -> dict[str, Floats]:
    values = (answer.total, answer.aleatoric, answer.epistemic, 1 - answer.probs.max(1))
    return dict(zip(UNCERTAINTIES, values, strict=True))


def judge(parts: list[tuple[Predictive, ...]]) -> dict[str, float]:
    """Scores of one seed; several parts are pooled."""
    probs = np.concatenate([single.probs for single, _, _ in parts])
    labels = np.concatenate([labels for _, _, labels in parts])
    one = [uncertainties(single) for single, _, _ in parts]
    many = [uncertainties(several) for _, several, _ in parts]
    certain = np.argsort(np.concatenate([u["total"] for u in one]), kind="stable")
    certain = certain[: len(labels) // 2]
    sets = np.concatenate([single.credible_set(0.9) for single, _, _ in parts])
    found = {
        **scores(probs, labels),
        "accuracy of the certain half": accuracy(probs[certain], labels[certain]),
    }
    for name in UNCERTAINTIES:
        values = [np.concatenate([u[name] for u in group]) for group in (one, many)]
        several = np.repeat([False, True], [len(v) for v in values])
        area = wrong_auroc(np.concatenate(values), several)
        found[f"AUROC of several locations, {name}"] = area if area is not None else 0.5
    return found | {
        "coverage of 90 % credible sets": coverage(sets, labels),
        "the same, cut to exactly 90 %": exact_coverage(probs, labels, 0.9),
        "classes in a set": float(sets.sum(1).mean()),
    }


def measure(what: str, seed: int, overrides: list[str], out: Path) -> dict[str, float]:
    asked = [*SETTINGS[what], "baselines=false", f"seed={seed}", *overrides]
    config = build_config(deeploc.RECIPE.defaults, asked)
    inputs, partition = several_locations(deeploc.data_folder(config), out)
    if what != "apart":
        return judge([answers(config, out / f"{what}-{seed}", inputs)])
    parts = []
    for n, scenario in enumerate(deeploc.SCENARIOS):
        config = build_config(deeploc.RECIPE.defaults, [*asked, f"scenario={scenario}"])
        more = inputs[torch.from_numpy(partition == n)]
        parts.append(answers(config, out / f"{scenario}-{seed}", more))
    return judge(parts)


def spread(values: list[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.3f} ± {error:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=[*SETTINGS, "ablation"], nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--out", type=Path, default=Path("runs/proteins"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    table: dict[str, list[dict[str, float]]] = {}
    for what in asked.what:
        if what in SETTINGS:
            table[what] = [measure(what, s, asked.overrides, asked.out) for s in asked.seeds]
    if table:
        print(f"| {len(asked.seeds)} seeds | " + " | ".join(table) + " |")
        print("|---" * (len(table) + 1) + "|")
        for name in next(iter(table.values()))[0]:
            cells = [spread([found[name] for found in column]) for column in table.values()]
            print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
