"""How near few draws come to all: a curve over their number, for a finished run.

    python benchmarks/draws.py runs/digits
    python benchmarks/draws.py runs/deeploc --split calibration

`NLL` is that of the labels, less that of all draws, and `distance` the total variation of the mean
predictives, both on a split that the draws were not chosen by: `chosen` ones are those of
`Posterior.thin` on the training inputs, `any` the mean over ten choices at random. `epistemic` is
the uncertainty that the draws' disagreement tells of, as a share of that of all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mtbkd.app.folder import read_run
from mtbkd.app.recipes import find_recipe
from mtbkd.app.run import stages
from mtbkd.app.run.scoring import SCORINGS
from mtbkd.app.run.scoring_shared import Rival
from mtbkd.data import Dataset
from mtbkd.distillation.posterior import Posterior
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.observation import OUTCOMES
from mtbkd.predictive import draw_outputs, predict

NUMBERS, CHOICES = (1, 2, 4, 8, 16, 32), 10


def events(posterior: Posterior, samples: PosteriorSamples, inputs: Tensor) -> tuple[Tensor, ...]:
    """Mean probabilities of events, batch by batch, with cuts of all draws."""
    outcome, found = OUTCOMES[posterior.family], []
    student = posterior.student
    every = draw_outputs(student, posterior.samples, inputs)
    cuts = torch.cat([outcome.cuts(outputs.flatten(0, 1)) for outputs in every])
    start = 0
    for outputs in draw_outputs(student, samples, inputs):
        own = cuts[start : start + outputs.shape[2]]
        found.append(outcome.events(outputs.flatten(0, 1), own).mean(0))
        start += len(own)
    return tuple(found)


def scores(posterior: Posterior, samples: PosteriorSamples, data: Dataset) -> np.ndarray:
    """NLL, distance and mean epistemic uncertainty."""
    rival, units = Rival(posterior.student, samples), posterior.units
    few = torch.cat(events(posterior, samples, data.inputs))
    every = torch.cat(events(posterior, posterior.samples, data.inputs))
    answer = predict(posterior.student, samples, data.inputs, family=posterior.family, units=units)
    nll = SCORINGS[posterior.family].draws(rival, data, units)["nll"]
    distance = 0.5 * (few - every).abs().sum(-1).mean()
    return np.array([nll, float(distance), float(answer.epistemic.mean())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", choices=("test", "calibration"), default="test")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    config = read_run(asked.run, "samples/manifest.json")
    recipe = find_recipe(config.recipe)
    task = stages.load(recipe, config, asked.run)
    posterior = stages.recall(recipe, config, task.train.inputs[:2], task.train.classes, asked.run)
    task, posterior = stages.on_features(task, posterior, asked.run)
    data = getattr(task, asked.split)
    data = data.subset(data.known)
    samples = posterior.samples
    n_all = samples.n_chains * samples.n_draws
    whole = scores(posterior, samples, data)
    print(f"{asked.split}: {len(data)} examples, NLL {whole[0]:.4f} with all {n_all} draws")
    print("| draws | chosen: NLL | distance | epistemic | any: NLL | distance | epistemic |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for n in [n for n in NUMBERS if n < n_all] + [n_all]:
        chosen = scores(posterior, posterior.thin(n, task.train.inputs).samples, data)
        some = np.mean(
            [
                scores(posterior, samples.chosen(rng.choice(n_all, n, replace=False)), data)
                for rng in map(np.random.default_rng, range(CHOICES if n < n_all else 1))
            ],
            axis=0,
        )
        cells = [
            f"{s[0] - whole[0]:+.4f} | {s[1]:.4f} | {s[2] / whole[2]:.2f}" for s in (chosen, some)
        ]
        print(f"| {n} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
