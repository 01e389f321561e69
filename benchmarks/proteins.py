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
`second` is the mean over draws of the probability of a draw's second most probable place: how
much it is believed that there is one. It was looked for after the entropies had been seen to do
worse on these proteins, so its figure there is not that of a choice made blind; the rows of
`validation AUROC` judge all five without them, by how well they tell the validation proteins to
whose second place the teachers give a quarter of their belief or more.
"""

from __future__ import annotations

import argparse
import csv
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from mtbkd.app.config.run import RunConfig, build_config
from mtbkd.app.recipes.deeploc import paper as deeploc
from mtbkd.app.recipes.deeploc.shared import Standardise, loudness
from mtbkd.app.run import stages
from mtbkd.app.run.commands import run
from mtbkd.data import Dataset
from mtbkd.distillation.posterior import Posterior
from mtbkd.files import read_json
from mtbkd.inputs.proteins.features import feature_names, sequence_features
from mtbkd.metrics import accuracy, coverage, ece, exact_coverage, scores, wrong_auroc
from mtbkd.outputs.store import load_outputs
from mtbkd.predictive import credible_set, draw_probs
from mtbkd.types import Floats

SEVERAL = "data_MuLabel_sub.csv"
SETTINGS = {"deeploc": [], "paper": ["prior=paper"], "apart": []}
BELIEVED = 0.25
SETS = {
    "set_coverage": "coverage of calibrated 90 % sets",
    "set_size": "classes in a calibrated set",
}
GROUPS = {
    "size": "size",
    "composition": "composition",
    "profiles": "profile",
    "hydropathy windows": "hydropathy",
    "membrane segments": "membrane|flank",
    "amphipathic moments": "moment",
    "charge and disorder windows": r"charge\d|disorder",
    "charge at both ends": "charge_start|charge_end",
    "richest windows": "richest",
    "motifs": "motif",
}


@dataclass(frozen=True)
class Judged:
    """What one run says of some proteins, protein by protein."""

    probs: Floats
    uncertainty: dict[str, Floats]

    @classmethod
    def of(cls, posterior: Posterior, inputs: torch.Tensor) -> Judged:
        """Averaged over the posterior."""
        parts: list[dict[str, torch.Tensor]] = []
        for some in draw_probs(posterior.student, posterior.samples, inputs):
            draws = some.flatten(0, 1).double()
            mean = draws.mean(0)
            total = -torch.special.xlogy(mean, mean).sum(-1)
            aleatoric = -torch.special.xlogy(draws, draws).sum(-1).mean(0)
            parts.append({
                "probs": mean,
                "total": total,
                "aleatoric": aleatoric,
                "epistemic": total - aleatoric,
                "1 - max": 1 - mean.amax(-1),
                "second": draws.topk(2).values[..., 1].mean(0),
            })  # fmt: skip
        found = {k: torch.cat([part[k] for part in parts]).numpy() for k in parts[0]}
        return cls(found.pop("probs"), found)


def joined(parts: list[Judged]) -> Judged:
    return Judged(
        np.concatenate([part.probs for part in parts]),
        {k: np.concatenate([p.uncertainty[k] for p in parts]) for k in parts[0].uncertainty},
    )


def several_locations(folder: Path, kept: Path) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """Features and homology partitions of the proteins with several locations."""
    with (folder / SEVERAL).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    path = kept / f"several-{len(feature_names())}.npy"
    if not path.exists():
        kept.mkdir(parents=True, exist_ok=True)
        np.save(path, sequence_features([row["Sequence"] for row in rows]))
    return torch.from_numpy(np.load(path)), np.array([int(row["Partition"]) for row in rows])


def answers(
    config: RunConfig, out: Path, more: torch.Tensor
) -> tuple[Dataset, Judged, Judged, dict[str, float]]:
    """A run's test proteins, its answers on them and on more, and how it did in validation."""
    run(config, out)
    task = stages.load(deeploc.RECIPE, config, out)
    posterior = stages.recall(deeploc.RECIPE, config, task.test.inputs[:2], task.test.classes, out)
    single, several, held = (
        Judged.of(posterior, inputs) for inputs in (task.test.inputs, more, task.calibration.inputs)
    )
    teachers = load_outputs(out / "teachers").at(task.calibration.ids)
    second = teachers.values.exp().mean(0).topk(2).values[:, 1].numpy() > BELIEVED
    labels = task.calibration.labels.numpy()
    validation = {f"validation {k}": v for k, v in scores(held.probs, labels).items()}
    student = read_json(out / "metrics.json")["student"]
    for name in ("set_coverage", "set_size"):
        validation[SETS[name]] = student[name] * len(task.test)
    for name, value in held.uncertainty.items():
        validation[f"validation AUROC, {name}"] = wrong_auroc(value, second) or np.nan
    return task.test, single, several, validation


def judge(single: Judged, several: Judged, labels: NDArray[np.int64]) -> dict[str, float]:
    certain = np.argsort(single.uncertainty["total"], kind="stable")[: len(labels) // 2]
    found = {
        **scores(single.probs, labels),
        "ECE if calibrated": ideal_ece(single.probs),
        "accuracy of the certain half": accuracy(single.probs[certain], labels[certain]),
    }
    for name, one in single.uncertainty.items():
        many = several.uncertainty[name]
        which = np.repeat([False, True], [len(one), len(many)])
        area = wrong_auroc(np.concatenate([one, many]), which)
        found[f"AUROC of several locations, {name}"] = area or np.nan
    sets = credible_set(single.probs, 0.9)
    return found | {
        "coverage of 90 % credible sets": coverage(sets, labels),
        "the same, cut to exactly 90 %": exact_coverage(single.probs, labels, 0.9),
        "classes in a set": float(sets.sum(1).mean()),
    }


def ideal_ece(probs: Floats, times: int = 200) -> float:
    """What the ECE would be if labels were drawn from the predictions: chance in the bins."""
    rng = np.random.default_rng(0)
    edges = probs.cumsum(1)
    drawn = [
        np.minimum((edges < rng.random((len(probs), 1))).sum(1), probs.shape[1] - 1)
        for _ in range(times)
    ]
    return statistics.fmean(ece(probs, labels) for labels in drawn)


def measure(what: str, seed: int, overrides: list[str], out: Path) -> dict[str, float]:
    asked = [*SETTINGS[what], "baselines=none", f"seed={seed}", *overrides]
    config = build_config(deeploc.RECIPE.defaults, asked)
    inputs, partition = several_locations(deeploc.data_folder(config), out)
    if what != "apart":
        found = [answers(config, out / f"{what}-{seed}", inputs)]
    else:
        found = [
            answers(
                build_config(deeploc.RECIPE.defaults, [*asked, f"scenario={scenario}"]),
                out / f"{scenario}-{seed}",
                inputs[torch.from_numpy(partition == n)],
            )
            for n, scenario in enumerate(deeploc.SCENARIOS)
        ]
    tests, single, several, validation = zip(*found, strict=True)
    labels = np.concatenate([test.labels.numpy() for test in tests])
    rest = {name: statistics.fmean(part[name] for part in validation) for name in validation[0]}
    for name in SETS.values():
        rest[name] *= len(validation) / len(labels)
    return judge(joined(list(single)), joined(list(several)), labels) | rest


def ablation() -> None:
    """Cross-validated log loss of logistic regression without a group, and with it alone.

    On the training proteins, with a homology partition as each fold.
    """
    config = build_config(deeploc.RECIPE.defaults)
    with (deeploc.data_folder(config) / "data_our_train_sample.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    features = torch.from_numpy(sequence_features([row["Sequence"] for row in rows]))
    labels = np.array([int(row["Label"]) for row in rows])
    fold = np.array([int(row["Partition"]) for row in rows])
    of = {
        group: np.array([re.match(f"({start})", name) is not None for name in feature_names()])
        for group, start in GROUPS.items()
    }
    if not (np.sum(list(of.values()), 0) == 1).all():
        raise RuntimeError("a column is in no group or in two")
    scaled = []
    for n in range(5):
        learnt = torch.from_numpy(fold != n)
        scaled.append(Standardise(features[learnt], loudness())(features).numpy())

    def loss(columns: NDArray[np.bool_]) -> float:
        total = 0.0
        for n in range(5):
            x, learnt = scaled[n][:, columns], fold != n
            model = LogisticRegression(C=0.002, max_iter=100, tol=1e-3)
            model.fit(x[learnt], labels[learnt])
            probs = model.predict_proba(x[~learnt])
            total -= np.log(probs[np.arange(len(probs)), labels[~learnt]]).sum()
        return total / len(labels)

    everything = loss(np.ones(len(feature_names()), dtype=bool))
    prior = np.bincount(labels) / len(labels)
    print(f"log loss with all columns: {everything:.3f}; of the class frequencies: "
          f"{-(prior * np.log(prior)).sum():.3f}")  # fmt: skip
    print("| group | columns | lost without it | gained by it alone |\n|---|---|---|---|")
    for group, columns in of.items():
        without, alone = loss(~columns), loss(columns)
        print(
            f"| {group} | {columns.sum()} | {without - everything:+.4f} | "
            f"{-(prior * np.log(prior)).sum() - alone:.3f} |",
            flush=True,
        )


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
    if "ablation" in asked.what:
        ablation()
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
