"""Does the student know where its teachers, which it has not asked, disagree?

    python benchmarks/causes.py digits
    python benchmarks/causes.py deeploc          # needs the data, see docs/data.md

On test examples, whose teachers are known here and not to the student: how well the test examples
on which teachers disagree most, a quarter of them by Jensen-Shannon divergence, are told from the
others (area under the ROC curve) by the teachers' disagreement on the twenty training examples that
the student answers most alike, on those with the nearest inputs, and by the student's own entropy.
Means over seeds; runs go to OUT/RECIPE-SEED and are taken from there if they are complete.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mtbkd.app.config.run import build_config
from mtbkd.app.recipes import find_recipe
from mtbkd.app.run import stages
from mtbkd.app.run.commands import run
from mtbkd.app.run.scoring import pool_of
from mtbkd.metrics import wrong_auroc
from mtbkd.predictive import Predictive

NEAREST = 20


def near(values: Tensor, like: Tensor, to: Tensor) -> np.ndarray:
    nearest = torch.cdist(to.float(), like.float()).topk(NEAREST, largest=False).indices
    return values[nearest].mean(1).numpy()


def measure(name: str, seed: int, out: Path) -> dict[str, float]:
    recipe = find_recipe(name)
    config = build_config(recipe.defaults, [f"seed={seed}", "baselines=none"])
    run(config, out)
    task = stages.load(recipe, config, out)
    teachers, _ = stages.teach(recipe, config, task, out)
    posterior = stages.recall(recipe, config, task.train.inputs[:2], task.test.classes, out)
    task, posterior = stages.on_features(task, posterior, out)
    train, test = (posterior.predict(part.inputs) for part in (task.train, task.test))
    assert isinstance(train, Predictive)
    assert isinstance(test, Predictive)
    apart = [
        pool_of(teachers.at(part.ids), posterior.weighting, None, part.inputs)[
            "disagreement"
        ].float()
        for part in (task.train, task.test)
    ]
    told = apart[1].numpy()
    most = told >= np.quantile(told, 0.75)
    roots = [torch.from_numpy(answer.probs).sqrt() for answer in (train, test)]
    scores = {
        "examples answered alike": near(apart[0], *roots),
        "examples with inputs alike": near(apart[0], task.train.inputs, task.test.inputs),
        "the student's entropy": test.total,
    }
    return {name: wrong_auroc(score, most) or np.nan for name, score in scores.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/causes"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = [measure(asked.recipe, s, asked.out / f"{asked.recipe}-{s}") for s in asked.seeds]
    for name in found[0]:
        values = [numbers[name] for numbers in found]
        print(f"{name}: {statistics.fmean(values):.3f} ({', '.join(f'{v:.3f}' for v in values)})")


if __name__ == "__main__":
    main()
